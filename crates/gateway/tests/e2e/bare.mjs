// Bare WebSockets, as pages and scripts have them that know no protocol: npm `ws`, a browser's own WebSocket, and the two
// libraries that reconnect one, `reconnecting-websocket` and `reconnectingwebsocket`, with a text heartbeat.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { fresh } from './centrifuge.mjs';
import { launch, packageFolder, servePages } from './chromium.mjs';
import { Proxy, Server, sign, told, until } from './harness.mjs';

const ReconnectingWebSocket = createRequire(import.meta.url)('reconnecting-websocket');

const COOKIE = 'fanwire_token';
const HTML = 'text/html; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';
/** The heartbeat of a page, and the time that its answer has. */
const HEARTBEAT = { every: 5000, within: 2000 };

const libraries = {
  'reconnecting-websocket': {
    file: path.join(packageFolder('reconnecting-websocket'), 'dist/reconnecting-websocket-iife.min.js'),
    reconnect: 'reconnect',
  },
  reconnectingwebsocket: {
    file: path.join(packageFolder('reconnectingwebsocket'), 'reconnecting-websocket.js'),
    reconnect: 'refresh',
  },
};

describe('bare WebSockets', () => {
  let pages;
  let strangers;
  let server;
  let proxy;
  let browser;
  let sockets = [];
  before(async () => {
    const content = { '/': [HTML, '<!doctype html><title>test</title>'] };
    for (const [name, { file }] of Object.entries(libraries)) {
      content[`/${name}`] = [HTML, `<!doctype html><title>test</title><script src="/${name}.js"></script>`];
      content[`/${name}.js`] = [SCRIPT, fs.readFileSync(file, 'utf8')];
    }
    pages = await servePages(content);
    strangers = await servePages(content);
    server = await Server.start({
      client: { allowed_origins: [pages.origin] },
      subscribe: { subprotocols: ['chat'], token_cookie: COOKIE, heartbeats: ['ping=pong', '{"op":1}={"op":11}'] },
    });
    proxy = await Proxy.start(server.port);
    browser = await launch();
  });
  afterEach(() => {
    for (const socket of sockets) socket.close();
    sockets = [];
  });
  after(async () => {
    await browser?.close();
    proxy?.stop();
    await server?.stop();
    pages?.stop();
    strangers?.stop();
  });
  const check = (name, body) => test(name, told(() => server, body));

  const address = (topic, { user = 'alice', port = server.port, more = {} } = {}) => {
    const query = new URLSearchParams({ topic, ...more });
    if (user !== null) query.append('token', server.token(user));
    return `ws://127.0.0.1:${port}/subscribe?${query}`;
  };

  const opened = async (url, protocols) => {
    const socket = new WebSocket(url, protocols);
    sockets.push(socket);
    const seen = { socket, messages: [] };
    socket.on('message', (data, isBinary) => seen.messages.push(isBinary ? data : data.toString()));
    await once(socket, 'open');
    return seen;
  };

  /** The status and the error of a handshake that is refused. */
  const refused = async (url, protocols) => {
    const socket = new WebSocket(url, protocols);
    socket.on('error', () => {});
    const [, answer] = await once(socket, 'unexpected-response');
    let text = '';
    for await (const chunk of answer) text += chunk;
    return [answer.statusCode, text];
  };

  const arrives = (seen, expected) =>
    until(() => seen.messages.length >= expected.length, `${expected.length} messages arrive`).then(() =>
      assert.deepEqual(seen.messages, expected),
    );

  check('npm ws receives data, publishes texts and bytes, and is told what it may not', async () => {
    const topic = fresh('open');
    const [one, other] = [await opened(address(topic)), await opened(address(topic, { user: 'bob' }))];
    await server.publish(topic, { a: 1 });
    one.socket.send('hello');
    one.socket.send('ping');
    await until(() => one.messages.includes('hello') && one.messages.includes('pong'), 'both come');
    assert.deepEqual(one.messages.filter((message) => message !== 'pong'), ['{"a":1}', 'hello']);
    await arrives(other, ['{"a":1}', 'hello']);
    const { publications } = await server.api('history', { channel: topic, limit: 10 });
    assert.deepEqual(publications.map(({ data, tags }) => [data, tags]), [
      [{ a: 1 }, undefined],
      ['hello', { text: 'true' }],
    ]);
    assert.equal(publications[1].info.user, 'alice');

    one.socket.send(Buffer.from([0xff]));
    const refusal = JSON.parse(await until(() => one.messages[3], 'the refusal comes'));
    assert.equal(refusal.error.code, 107);
    assert.match(refusal.error.message, /publication_format/);
    other.socket.send('{"op":1}');
    await arrives(other, ['{"a":1}', 'hello', '{"op":11}']);

    const bytes = fresh('bytes');
    const listener = await opened(address(bytes));
    await server.api('publish', { channel: bytes, b64data: '/wA=' });
    await arrives(listener, [Buffer.from([0xff, 0])]);
    listener.socket.send('not permitted');
    const denied = JSON.parse(await until(() => listener.messages[1], 'the refusal comes'));
    assert.deepEqual([denied.error.code, listener.socket.readyState], [103, WebSocket.OPEN]);
  });

  check('a sub-protocol is confirmed, and refusals have a status and a sentence', async () => {
    const { socket } = await opened(address(fresh('plain')), ['other', 'chat']);
    assert.equal(socket.protocol, 'chat');
    const cases = [
      [401, /101.*invalid token/, `ws://127.0.0.1:${server.port}/subscribe?topic=plain:x&token=${sign({ sub: 'a' }, 'x')}`],
      [403, /103.*token:x/, address('token:x')],
      [404, /102.*nowhere:x/, address('nowhere:x')],
      [400, /107.*topic/, address('')],
      [400, /\/connection\/websocket/, address('plain:x'), ['centrifuge-json']],
    ];
    for (const [status, words, url, protocols] of cases) {
      const [is, text] = await refused(url, protocols);
      assert.equal(is, status, text);
      assert.match(text, words);
    }
  });

  check('reconnecting-websocket in Node.js comes back after a restart, and sends what waited', async () => {
    const topic = fresh('open');
    const socket = new ReconnectingWebSocket(address(topic), [], {
      WebSocket,
      minReconnectionDelay: 20,
      maxReconnectionDelay: 200,
    });
    sockets.push(socket);
    const messages = [];
    socket.addEventListener('message', ({ data }) => messages.push(data));
    await until(() => socket.readyState === WebSocket.OPEN, 'it opens');
    const closed = new Promise((resolve) => socket.addEventListener('close', resolve, { once: true }));
    await server.restart();
    assert.equal((await closed).code, 3001);
    socket.send('waited');
    await until(() => messages.includes('waited'), 'it is back and has published');
    await server.publish(topic, 1);
    await until(() => messages.includes('1'), 'it receives again');
  });

  check("a page's own WebSocket sends a text ping, and talks to another page", async () => {
    const topic = fresh('open');
    const talk = async (user) => {
      const page = await browser.newPage();
      await page.goto(pages.origin);
      await page.evaluate((url) => {
        window.messages = [];
        window.socket = new WebSocket(url);
        socket.onmessage = ({ data }) => messages.push(data);
        return new Promise((resolve, reject) => {
          socket.onopen = resolve;
          socket.onerror = () => reject(new Error('no connection'));
        });
      }, address(topic, { user }));
      return page;
    };
    const messages = (page) => page.evaluate(() => messages);
    const [alice, bob] = [await talk('alice'), await talk('bob')];
    await alice.evaluate(() => socket.send('ping'));
    await until(async () => (await messages(alice)).includes('pong'), 'the ping is answered');
    await alice.evaluate(() => socket.send('Hello, Bob'));
    await until(async () => (await messages(bob)).includes('Hello, Bob'), 'the message arrives');
    assert.deepEqual(await messages(bob), ['Hello, Bob']);
    await Promise.all([alice.close(), bob.close()]);
  });

  check('pages of allowed origins connect and publish with a cookie, others do not', async () => {
    const topic = fresh('object');
    const ask = async (origin) => {
      const page = await browser.newPage();
      await page.goto(origin);
      // Cookies are for a host, whatever the port.
      await page.evaluate((cookie) => (document.cookie = cookie), `${COOKIE}=${server.token('carol')}`);
      const result = await page.evaluate(
        async ({ port, topic }) => {
          const socket = new WebSocket(`ws://127.0.0.1:${port}/subscribe?topic=${topic}`);
          const opens = await new Promise((resolve) => {
            socket.onopen = () => resolve(true);
            socket.onclose = () => resolve(false);
          });
          const message = new Promise((resolve) => (socket.onmessage = ({ data }) => resolve(data)));
          const answer = fetch(`http://127.0.0.1:${port}/publish?topic=${topic}`, {
            method: 'POST',
            credentials: 'include',
            headers: { 'Content-Type': 'application/json' },
            body: '{"a":1}',
          });
          const status = await answer.then(({ status }) => status, () => 'unreadable');
          return { opens, status, received: status === 200 ? await message : null };
        },
        { port: server.port, topic },
      );
      await page.close();
      return result;
    };
    assert.deepEqual(await ask(pages.origin), { opens: true, status: 200, received: '{"a":1}' });
    assert.deepEqual(await ask(strangers.origin), { opens: false, status: 'unreadable', received: null });
  });

  for (const name of Object.keys(libraries)) {
    check(`${name} in a page goes on where it left off, by the cursor in each envelope`, async () => {
      const topic = fresh('open');
      const page = await browser.newPage();
      await page.goto(`${pages.origin}/${name}`);
      await page.evaluate(
        ({ url, name }) => {
          window.seen = { subscribed: [], data: [] };
          let cursor = '';
          const address = () => `${url}&cursor=${cursor}`;
          const socket = new ReconnectingWebSocket(name === 'reconnecting-websocket' ? address : address());
          socket.onmessage = ({ data }) => {
            const message = JSON.parse(data);
            cursor = message.cursor ?? cursor;
            if (name === 'reconnectingwebsocket') socket.url = address();
            if (message.topic) seen.data.push(message.data);
            else seen.subscribed.push(message.subscribed[0].recovered ?? 'new');
          };
        },
        { url: address(topic, { port: proxy.port, more: { envelope: 'json' } }), name },
      );
      const seen = () => page.evaluate(() => seen);
      const hears = (count) => until(async () => (await seen()).data.length >= count, `${count} messages arrive`);
      await until(async () => (await seen()).subscribed.length === 1, 'it opens');
      for (const value of [1, 2]) await server.publish(topic, value);
      await hears(2);
      for (let turn = 1; turn <= 2; turn += 1) {
        proxy.cut();
        for (const value of [3, 4, 5]) await server.publish(topic, 3 * (turn - 1) + value);
        proxy.mend();
        await hears(2 + 3 * turn);
      }
      await server.publish(topic, 9);
      await hears(9);
      assert.deepEqual(await seen(), { subscribed: ['new', true, true], data: [1, 2, 3, 4, 5, 6, 7, 8, 9] });
      await page.close();
    });
  }

  for (const [name, { reconnect }] of Object.entries(libraries)) {
    check(`${name} in a page keeps its connection by heartbeats, and comes back when it breaks`, async () => {
      const topic = fresh('open');
      const page = await browser.newPage();
      await page.goto(`${pages.origin}/${name}`);
      await page.evaluate(
        ({ url, heartbeat, reconnect }) => {
          window.seen = { opens: 0, pongs: 0, data: [] };
          const socket = new ReconnectingWebSocket(url);
          let timer;
          socket.onopen = () => {
            seen.opens += 1;
          };
          socket.onmessage = ({ data }) => {
            if (data !== 'pong') return seen.data.push(data);
            clearTimeout(timer);
            seen.pongs += 1;
          };
          setInterval(() => {
            if (socket.readyState !== WebSocket.OPEN) return;
            socket.send('ping');
            timer = setTimeout(() => socket[reconnect](), heartbeat.within);
          }, heartbeat.every);
        },
        { url: address(topic, { port: proxy.port }), heartbeat: HEARTBEAT, reconnect },
      );
      const seen = () => page.evaluate(() => seen);
      const hears = async (value) => {
        await server.publish(topic, value);
        await until(async () => (await seen()).data.includes(`${value}`), `${value} arrives`);
      };
      await until(async () => (await seen()).opens === 1, 'it opens');
      await hears(1);
      await until(async () => (await seen()).pongs >= 2, 'heartbeats are answered', 3 * HEARTBEAT.every);
      assert.equal((await seen()).opens, 1);
      if (name === 'reconnecting-websocket') {
        // Nothing tells of the loss but the heartbeat.
        proxy.freeze();
      } else {
        // Its refresh would wait for the browser to give the closing handshake up.
        proxy.cut();
        proxy.mend();
      }
      await until(async () => (await seen()).opens >= 2, 'it is back', 4 * HEARTBEAT.every);
      await hears(2);
      await page.close();
    });
  }
});
