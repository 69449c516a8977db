// One-way transports with the clients that people have: npm `eventsource`, `fetch`, npm `ws`, and what Chromium has by itself.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { fresh, numbers, publishNumbers } from './centrifuge.mjs';
import { launch, servePages } from './chromium.mjs';
import { Server, told, until } from './harness.mjs';

/** How each client opens a connection; `take` gets every message, `ended` is called at the end. */
const openers = {
  uni_sse(address, connect, { take, ended }) {
    const source = new EventSource(`${address}?cf_connect=${encodeURIComponent(connect)}`);
    source.addEventListener('message', ({ data }) => take(JSON.parse(data)));
    // It would come back.
    source.addEventListener('error', () => (source.close(), ended()));
    return () => source.close();
  },
  uni_http_stream(address, connect, { take, ended }) {
    const controller = new AbortController();
    const read = async () => {
      const answer = await fetch(address, { method: 'POST', body: connect, signal: controller.signal });
      assert.equal(answer.status, 200);
      let rest = '';
      for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop();
        lines.forEach((line) => take(JSON.parse(line)));
      }
      assert.equal(rest, '');
    };
    read().then(ended, (error) => error.name === 'AbortError' || ended(error));
    return () => controller.abort();
  },
  uni_websocket(address, connect, { take, ended }) {
    const socket = new WebSocket(address.replace('http', 'ws'));
    socket.on('open', () => socket.send(connect));
    socket.on('message', (data) => take(JSON.parse(data)));
    // Answered by the library itself.
    socket.on('ping', () => take({}));
    socket.on('close', () => ended());
    return () => socket.close();
  },
};

describe('one-way transports', () => {
  let server;
  let pages;
  let browser;
  let open = [];
  before(async () => {
    pages = await servePages({ '/': ['text/html', '<!doctype html><title>Page</title>'] });
    server = await Server.start({
      client: { allowed_origins: [pages.origin], ping_interval: '1s', pong_timeout: '900ms' },
    });
    browser = await launch();
  });
  afterEach(() => {
    for (const close of open) close();
    open = [];
  });
  after(async () => {
    await browser.close();
    pages.stop();
    await server.stop();
  });

  const address = (transport) => `${server.http}/connection/${transport}`;

  /** A client of the user with its server-side subscriptions, once it is connected. */
  const connected = async (transport, connect) => {
    const seen = { messages: [], pings: 0, isOver: false };
    const take = (message) => (Object.keys(message).length ? seen.messages.push(message) : (seen.pings += 1));
    const ended = (error) => Object.assign(seen, { isOver: true, error });
    open.push(openers[transport](address(transport), JSON.stringify(connect), { take, ended }));
    await until(() => seen.messages.length || seen.isOver, 'the client is connected');
    seen.connect = seen.messages.shift().connect;
    assert.ok(seen.connect.client, JSON.stringify(seen));
    return seen;
  };

  for (const transport of Object.keys(openers)) {
    const check = (name, body) => test(`${transport}: ${name}`, told(() => server, body));

    check('publications of the topics that the token and the request name arrive in order', async () => {
      const [granted, asked] = [fresh('token'), fresh('open')];
      const token = server.token('alice', { channels: [granted] });
      const seen = await connected(transport, { token, subs: { [asked]: {} }, name: 'js' });
      assert.deepEqual(Object.keys(seen.connect.subs).sort(), [granted, asked].sort());
      await publishNumbers(server, granted, 1, 300);
      await publishNumbers(server, asked, 1, 300);
      const of = (topic) => seen.messages.filter(({ channel, pub }) => channel === topic && pub);
      await until(() => of(granted).length + of(asked).length >= 600, 'all arrive');
      for (const topic of [granted, asked]) assert.deepEqual(of(topic).map(({ pub }) => pub.data), numbers(1, 300));
    });

    check('a quiet connection is pinged and stays', async () => {
      const seen = await connected(transport, { token: server.token('alice') });
      assert.equal(seen.connect.ping, transport === 'uni_websocket' ? undefined : 1);
      await until(() => seen.pings >= 3, 'three pings arrive');
      assert.ok(!seen.isOver);
    });

    check('the end has a reason', async () => {
      const user = fresh('leaver');
      const seen = await connected(transport, { token: server.token(user) });
      await server.api('disconnect', { user, disconnect: { code: 4501, reason: 'go away' } });
      await until(() => seen.isOver, 'the connection ends');
      assert.deepEqual(seen.messages.at(-1), { disconnect: { code: 4501, reason: 'go away' } });
    });

    check('a client that comes back recovers what it missed', async () => {
      const topic = fresh('open');
      await publishNumbers(server, topic, 1, 10);
      const { epoch } = await server.api('history', { channel: topic });
      const subs = { [topic]: { recover: true, epoch, offset: 4 } };
      const seen = await connected(transport, { token: server.token('alice'), subs });
      const { recovered, publications } = seen.connect.subs[topic];
      assert.ok(recovered);
      assert.deepEqual(publications.map(({ data }) => data), numbers(5, 10));
    });

    check('Chromium gets the same, from a page of another origin', async () => {
      const topic = fresh('open');
      const page = await browser.newPage();
      await page.goto(pages.origin);
      const connect = JSON.stringify({ token: server.token('alice'), subs: { [topic]: {} } });
      await page.evaluate(listen, [transport, address(transport), connect]);
      await page.waitForFunction('seen.length > 0');
      await server.publish(topic, { text: 'ünïcödé 👋\n' });
      await page.waitForFunction('seen.some(({ pub }) => pub)');
      const seen = await page.evaluate('seen');
      assert.ok(seen[0].connect.client);
      assert.deepEqual(seen.find(({ pub }) => pub).pub.data, { text: 'ünïcödé 👋\n' });
      await page.close();
    });
  }
});

/** Runs in the page. */
function listen([transport, address, connect]) {
  globalThis.seen = [];
  const take = (text) => globalThis.seen.push(JSON.parse(text));
  if (transport === 'uni_sse') {
    const source = new EventSource(`${address}?cf_connect=${encodeURIComponent(connect)}`);
    source.onmessage = ({ data }) => take(data);
  } else if (transport === 'uni_websocket') {
    const socket = new WebSocket(`${address.replace('http', 'ws')}?cf_connect=${encodeURIComponent(connect)}`);
    socket.onmessage = ({ data }) => take(data);
  } else {
    const read = async () => {
      const { body } = await fetch(address, { method: 'POST', body: connect });
      let rest = '';
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const lines = (rest + value).split('\n');
        rest = lines.pop();
        lines.forEach(take);
      }
    };
    read();
  }
}
