// npm `centrifuge`'s browser build and the browser's own EventSource in a Chromium page of another origin.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fresh, numbers, publishNumbers } from './centrifuge.mjs';
import { launch, packageFolder, servePages } from './chromium.mjs';
import { Proxy, Server, told, until } from './harness.mjs';

const HTML = 'text/html; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';

for (const build of ['centrifuge.js', 'centrifuge.protobuf.js']) {
  describe(`Chromium with ${build}`, () => {
    let pages;
    let strangers;
    let server;
    let proxy;
    let browser;
    before(async () => {
      const script = fs.readFileSync(path.join(packageFolder('centrifuge'), 'dist', build), 'utf8');
      const content = {
        '/': [HTML, '<!doctype html><title>test</title><script src="/centrifuge.js"></script>'],
        '/centrifuge.js': [SCRIPT, script],
      };
      pages = await servePages(content);
      strangers = await servePages(content);
      server = await Server.start({ client: { allowed_origins: [pages.origin] }, subscribe: { jsonp: true } });
      proxy = await Proxy.start(server.port);
      browser = await launch();
    });
    after(async () => {
      await browser?.close();
      proxy?.stop();
      await server?.stop();
      pages?.stop();
      strangers?.stop();
    });
    const check = (name, body) => test(name, told(() => server, body));

    /** A page with a connected client that keeps what it receives in `window.seen`. */
    const open = async (user, channel, { origin = pages.origin, without = [] } = {}) => {
      const page = await browser.newPage();
      await page.addInitScript((names) => names.forEach((name) => delete window[name]), without);
      await page.goto(origin);
      await page.evaluate(
        ({ port, token, channel, protobuf }) => {
          window.pack = (value) => (protobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
          window.unpack = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
          window.seen = { data: [], states: [], subscribed: [] };
          const at = (transport, scheme = 'http') => ({
            transport,
            endpoint: `${scheme}://127.0.0.1:${port}/connection/${transport}`,
          });
          window.client = new Centrifuge([at('websocket', 'ws'), at('http_stream'), at('sse')], {
            emulationEndpoint: `http://127.0.0.1:${port}/emulation`,
            token,
            minReconnectDelay: 20,
            maxReconnectDelay: 200,
          });
          client.on('state', ({ newState }) => seen.states.push(newState));
          client.on('connected', ({ transport }) => (seen.transport = transport));
          client.on('error', () => {});
          window.room = client.newSubscription(channel);
          room.on('publication', ({ data }) => seen.data.push(unpack(data)));
          room.on('subscribed', ({ recovered, wasRecovering }) => seen.subscribed.push({ recovered, wasRecovering }));
          room.subscribe();
          client.connect();
        },
        { port: proxy.port, token: server.token(user), channel, protobuf: build.includes('protobuf') },
      );
      return page;
    };
    const seen = (page) => page.evaluate(() => window.seen);
    const subscribed = (page, times) =>
      until(async () => (await seen(page)).subscribed.length >= times, 'the page is subscribed', 60_000);
    const received = (page, count) =>
      until(async () => (await seen(page)).data.length >= count, `${count} publications reach the page`);

    check('a page receives in order, sees who is there, reads history, publishes', async () => {
      const channel = fresh('open');
      const [alice, bob] = [await open('alice', channel), await open('bob', channel)];
      await subscribed(alice, 1);
      await subscribed(bob, 1);
      await publishNumbers(server, channel, 1, 500);
      await received(alice, 500);
      await alice.evaluate(() => room.publish(pack('from the page')));
      await received(bob, 501);
      assert.deepEqual((await seen(bob)).data, [...numbers(1, 500), 'from the page']);
      const users = await alice.evaluate(async () =>
        Object.values((await room.presence()).clients).map(({ user }) => user),
      );
      assert.deepEqual(users.sort(), ['alice', 'bob']);
      const newest = await alice.evaluate(async () => {
        const { publications } = await room.history({ limit: 2, reverse: true });
        return publications.map(({ data }) => unpack(data));
      });
      assert.deepEqual(newest, ['from the page', 500]);
      await alice.close();
      await until(async () => {
        return (await bob.evaluate(async () => (await room.presenceStats()).numClients)) === 1;
      }, 'the closed page is gone');
      await bob.close();
    });

    check('a page whose connection is cut misses nothing', async () => {
      const channel = fresh('open');
      const page = await open('alice', channel);
      await subscribed(page, 1);
      await publishNumbers(server, channel, 1, 10);
      await received(page, 10);
      proxy.cut();
      await until(async () => (await seen(page)).states.at(-1) === 'connecting', 'the page notices the cut');
      await publishNumbers(server, channel, 11, 100);
      proxy.mend();
      await received(page, 100);
      const { data, subscribed: contexts } = await seen(page);
      assert.deepEqual(data, numbers(1, 100));
      assert.deepEqual(contexts[1], { recovered: true, wasRecovering: true });
      await page.close();
    });

    check('a page comes back after the server was restarted', async () => {
      const channel = fresh('open');
      const page = await open('alice', channel);
      await subscribed(page, 1);
      await server.restart();
      const present = async () => Object.keys((await server.api('presence', { channel })).presence).length;
      await until(async () => (await present()) === 1, 'the page is back', 60_000);
      await server.publish(channel, 'again');
      await received(page, 1);
      assert.deepEqual((await seen(page)).data, ['again']);
      await page.close();
    });

    // The package speaks no Protobuf over SSE.
    const poorer = build.includes('protobuf') ? ['http_stream'] : ['http_stream', 'sse'];
    for (const transport of poorer) {
      check(`a page that has no WebSocket uses ${transport} and misses nothing`, async () => {
        const channel = fresh('open');
        const without = transport === 'sse' ? ['WebSocket', 'ReadableStream'] : ['WebSocket'];
        const page = await open('alice', channel, { without });
        await subscribed(page, 1);
        assert.equal((await seen(page)).transport, transport);
        await page.evaluate(() => room.publish(pack('mine')));
        await publishNumbers(server, channel, 1, 99);
        await received(page, 100);
        proxy.cut();
        await publishNumbers(server, channel, 100, 199);
        proxy.mend();
        await subscribed(page, 2);
        await received(page, 200);
        assert.deepEqual((await seen(page)).data, ['mine', ...numbers(1, 199)]);
        assert.equal((await seen(page)).subscribed[1].recovered, true);
        assert.equal(await page.evaluate(async () => (await room.presenceStats()).numClients), 1);
        await page.close();
      });
    }

    check('a page of a strange origin gets nothing', async () => {
      const page = await open('alice', fresh('open'), { origin: strangers.origin });
      const refused = await page.evaluate(
        (port) =>
          new Promise((resolve) => {
            const socket = new WebSocket(`ws://127.0.0.1:${port}/connection/websocket`);
            socket.onopen = () => resolve('opened');
            socket.onclose = ({ code }) => resolve(code);
          }),
        server.port,
      );
      assert.equal(refused, 1006);
      assert.ok(!(await seen(page)).states.includes('connected'));
      const fetched = await page.evaluate(
        (url) => fetch(url).then(() => 'readable', () => 'refused'),
        `${server.http}/subscribe?topic=plain:x&token=${server.token('alice')}`,
      );
      assert.equal(fetched, 'refused');
      await page.close();
    });

    check('a page polls by scripts, which need no origin that is allowed', async () => {
      const topic = fresh('open');
      const page = await browser.newPage();
      await page.goto(strangers.origin);
      await page.evaluate((url) => {
        window.messages = [];
        const place = { cursor: '', session: '' };
        const next = () => {
          const script = document.createElement('script');
          script.src = `${url}&callback=polled.answer&cursor=${place.cursor}&session=${place.session}`;
          script.onload = () => script.remove();
          script.onerror = () => setTimeout(next, 100);
          document.head.append(script);
        };
        window.polled = {
          answer({ messages: more, cursor = place.cursor, session = '' }) {
            messages.push(...more.map(({ data }) => data));
            Object.assign(place, { cursor, session });
            next();
          },
        };
        next();
      }, `${server.http}/subscribe?topic=${topic}&wait=2&token=${server.token('alice')}`);
      const present = async () => Object.keys((await server.api('presence', { channel: topic })).presence).length;
      await until(async () => (await present()) === 1, 'the page is present');
      await publishNumbers(server, topic, 1, 300);
      await until(async () => (await page.evaluate(() => messages.length)) >= 300, 'everything arrives');
      assert.deepEqual(await page.evaluate(() => messages), numbers(1, 300));
      await page.close();
    });

    check('a page reads why it is refused, and that there is nothing at an address', async () => {
      const page = await browser.newPage();
      await page.goto(pages.origin);
      const ask = (path, options = {}) =>
        page.evaluate(
          ([url, options]) => fetch(url, options).then(async (answer) => [answer.status, await answer.text()], String),
          [`${server.http}${path}`, options],
        );
      // Both headers make the browser ask before.
      const headers = { authorization: `Bearer ${server.token('alice')}`, 'content-type': 'application/json' };
      for (const options of [{}, { headers }, { method: 'POST', headers, body: '{}' }]) {
        const [status, text] = await ask('/connection/none', options);
        assert.equal(status, 404);
        assert.match(text, /There is nothing here/);
      }
      assert.deepEqual(await ask('/probe'), [200, '{}']);
      const [status, text] = await ask(`/subscribe?topic=${fresh('token')}`, { headers });
      assert.equal(status, 403);
      assert.equal(JSON.parse(text).error.code, 103);
      assert.equal((await ask('/subscribe', { method: 'POST', headers, body: '{}' }))[0], 405);
      // The API is for backends.
      assert.match(await ask('/api/info', { method: 'POST', headers, body: '{}' }), /Failed to fetch/);
      await page.goto(strangers.origin);
      assert.match(await ask('/connection/none'), /Failed to fetch/);
      await page.close();
    });

    check("the browser's own EventSource receives in order", async () => {
      const topic = fresh('open');
      const page = await browser.newPage();
      await page.goto(pages.origin);
      await page.evaluate((url) => {
        window.messages = [];
        window.source = new EventSource(url);
        source.onmessage = ({ data }) => messages.push(JSON.parse(data).data);
      }, `${server.http}/subscribe?topic=${topic}&token=${server.token('alice')}`);
      await until(() => page.evaluate(() => source.readyState === EventSource.OPEN), 'the stream is open');
      await publishNumbers(server, topic, 1, 300);
      await until(async () => (await page.evaluate(() => messages.length)) >= 300, 'everything arrives');
      assert.deepEqual(await page.evaluate(() => messages), numbers(1, 300));
      await page.close();
    });
  });
}
