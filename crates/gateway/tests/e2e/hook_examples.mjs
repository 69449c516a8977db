// The backends of docs/examples decide what npm `centrifuge` may do, and fail in every way while it looks on.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { DEADLINE, Server, freePort, next, now, told, until } from './harness.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../..');
const example = (name) => path.join(ROOT, 'docs/examples', name);
/** As long as a busy machine may take to answer; a bystander that was held up by a hook would wait for it. */
const TIMEOUT = 4000;
const EXAMPLE = fs.readFileSync(example('hooks.toml'), 'utf8');
const SETTINGS = EXAMPLE.replaceAll('signature_secret', `timeout = "${TIMEOUT}ms"\nsignature_secret`);
const [, SIGNATURE_SECRET] = /signature_secret = "(.+)"/.exec(SETTINGS);
const [, API_KEY] = /keys = \["(.+)"\]/.exec(SETTINGS);
const PROGRAMS = {
  Node: [process.execPath, example('chat-backend.mjs')],
  Python: [path.join(ROOT, '.tools/venv/bin/python'), example('chat_backend.py')],
};
const PASSWORDS = { ann: 'ann-1', bob: 'bob-1' };
const START_DEADLINE = 60_000;

/** An example as its own process. */
class Backend {
  static async start(program, lifetime) {
    const backend = new Backend();
    Object.assign(backend, { program, lifetime, port: await freePort() });
    await backend.launch();
    return backend;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async launch() {
    const env = { ...process.env, SIGNATURE_SECRET, SESSION_SECRET: 'sessions', PORT: this.port, LIFETIME: this.lifetime };
    const stdio = ['ignore', 'ignore', 'inherit'];
    this.process = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...this.program], { stdio, env });
    await until(() => fetch(this.url).then(() => true, () => false), 'the backend answers', START_DEADLINE);
  }

  pause() {
    this.process.kill('SIGSTOP');
  }

  resume() {
    this.process.kill('SIGCONT');
  }

  async kill() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await ended;
  }

  post(to, body, headers = {}) {
    return fetch(`${this.url}${to}`, { method: 'POST', body: JSON.stringify(body), headers });
  }

  /** Returns the cookie of a session. */
  async login(user) {
    const answer = await this.post('/login', { user, password: PASSWORDS[user] });
    assert.equal(answer.status, 200);
    return answer.headers.get('set-cookie').split(';')[0];
  }
}

/** A client as a page makes it: its requests have the page's cookie. */
function page(server, cookie = '') {
  class WithCookie extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { headers: { cookie: `theme=dark; ${cookie}` } });
    }
  }
  return new Centrifuge(server.websocket, {
    websocket: WithCookie,
    timeout: DEADLINE,
    minReconnectDelay: 100,
    maxReconnectDelay: 500,
  });
}

const start = (backend) =>
  Server.startToml(SETTINGS.replaceAll('127.0.0.1:8100', `127.0.0.1:${backend.port}`), { api: { keys: [API_KEY] } });

const failing = (promise) => promise.then(() => assert.fail('it succeeded'), (error) => error);
const words = ({ code, message }) => `${code} ${message}`;

function subscription(client, channel) {
  const made = client.newSubscription(channel, { minResubscribeDelay: 100, maxResubscribeDelay: 500 });
  made.subscribe();
  return made;
}

for (const [language, program] of Object.entries(PROGRAMS)) {
  describe(`the example in ${language}`, () => {
    let backend;
    let server = { log: '' };
    let clients = [];
    before(async () => {
      backend = await Backend.start(program, 2);
      server = await start(backend);
    });
    afterEach(() => {
      for (const client of clients) client.disconnect();
      clients = [];
    });
    after(async () => {
      await server.stop?.();
      await backend.kill();
    });
    const check = (name, body) => test(name, told(() => server, body));
    const open = async (user) => {
      const client = page(server, user && (await backend.login(user)));
      clients.push(client);
      return client;
    };
    const connected = async (user) => {
      const client = await open(user);
      client.connect();
      await next(client, 'connected');
      return client;
    };

    check('who signed in connects, and is told of the rooms', async () => {
      const ann = await open('ann');
      const news = next(ann, 'publication');
      ann.connect();
      assert.deepEqual((await next(ann, 'connected')).data, { rooms: ['chat:lobby', 'chat:staff'] });
      await server.publish('news:all', 'hello');
      const { channel, data } = await news;
      assert.deepEqual([channel, data], ['news:all', 'hello']);
    });

    check('who did not is sent away', async () => {
      for (const cookie of ['', 'sid=ann', `sid=ann.${'0'.repeat(64)}`, 'sid=eve.00']) {
        const client = page(server, cookie);
        client.connect();
        const { code, reason } = await next(client, 'disconnected');
        assert.deepEqual([code, reason], [4501, 'sign in first'], cookie);
      }
      assert.equal((await backend.post('/login', { user: 'ann', password: 'guess' })).status, 401);
    });

    check('members enter a room, others do not', async () => {
      const [ann, bob] = [await connected('ann'), await connected('bob')];
      assert.deepEqual((await next(subscription(ann, 'chat:staff'), 'subscribed')).data, { count: 0 });
      const { code, reason } = await next(subscription(bob, 'chat:staff'), 'unsubscribed');
      assert.deepEqual([code, reason], [403, 'you are not in this room']);
      const { presence } = await server.api('presence', { channel: 'chat:staff' });
      assert.deepEqual(Object.values(presence).map((info) => [info.user, info.conn_info]), [['ann', { name: 'Ann' }]]);
    });

    check('what is written is moderated, kept, and delivered in order', async () => {
      const [ann, bob] = [await connected('ann'), await connected('bob')];
      const lobby = subscription(ann, 'chat:lobby');
      await next(lobby, 'subscribed');
      const seen = [];
      lobby.on('publication', (publication) => seen.push(publication));
      const texts = Array.from({ length: 30 }, (_, index) => `${index}`);
      await Promise.all([...texts, 'Damn!'].map((text) => bob.publish('chat:lobby', { text })));
      await until(() => seen.length === 31, 'everything arrives');
      assert.deepEqual(seen.map(({ data }) => data.text), [...texts, '****!']);
      assert.deepEqual(seen.map(({ data }) => data.id), texts.map((text) => Number(text) + 1).concat(31));
      assert.ok(seen.every(({ tags, info }) => tags.kind === 'message' && info.user === 'bob'));
      const refused = async (client, room, data) => words(await failing(client.publish(room, data)));
      assert.equal(await refused(bob, 'chat:lobby', { text: 'Buy now!' }), '422 no advertising here');
      assert.equal(await refused(bob, 'chat:lobby', 'a word'), '422 a message has a text');
      assert.equal(await refused(bob, 'chat:staff', { text: 'hello' }), '403 you are not in this room');
      await ann.publish('chat:lobby', { text: 'Buy now, says the moderator' });
      const { data } = await bob.rpc('messages', { room: 'chat:lobby' });
      assert.deepEqual(data.map(({ text }) => text), [...texts, '****!', 'Buy now, says the moderator']);
    });

    check('methods are answered, and messages without a topic arrive', async () => {
      const [ann, bob] = [await connected('ann'), await connected('bob')];
      await bob.send({ typing: 'chat:lobby' });
      await until(async () => (await ann.rpc('typing', {})).data.bob === 'chat:lobby', 'the backend knows who types');
      assert.equal(words(await failing(ann.rpc('fly', {}))), '404 there is no such method');
      assert.equal(words(await failing(bob.rpc('messages', { room: 'chat:staff' }))), '403 you are not in this room');
      assert.deepEqual([ann.state, bob.state], ['connected', 'connected']);
    });

    check('credentials are prolonged until the backend says otherwise', async () => {
      const [ann, bob] = [await connected('ann'), await connected('bob')];
      const lobby = subscription(bob, 'chat:lobby');
      await next(lobby, 'subscribed');
      const ends = [];
      for (const client of [ann, bob]) client.on('connecting', ({ code }) => ends.push(code));
      lobby.on('subscribing', ({ code }) => ends.push(code));
      const asked = async (event) => {
        const metrics = await server.metrics();
        return Number(new RegExp(`calls_total\\{event="${event}".*result="ok"\\} (\\d+)`).exec(metrics)?.[1] ?? 0);
      };
      const before = [await asked('refresh'), await asked('sub_refresh')];
      await until(
        async () => (await asked('refresh')) >= before[0] + 4 && (await asked('sub_refresh')) >= before[1] + 2,
        'each has been prolonged',
      );
      assert.deepEqual(ends, []);
      const left = next(lobby, 'unsubscribed');
      await bob.rpc('leave', { room: 'chat:lobby' });
      // The subscription expires, the client asks for it again, and is refused.
      assert.equal((await left).code, 403);
      assert.deepEqual(ends, [2501]);
      const gone = next(ann, 'disconnected');
      await backend.post('/logout', {}, { cookie: await backend.login('ann') });
      assert.equal((await gone).code, 4501);
      assert.deepEqual(ends, [2501, 3005]);
    });

    check('only what the gateway signed, and that lately, is answered', async () => {
      const question = { user: 'ann', method: 'typing' };
      const sign = (time, secret = SIGNATURE_SECRET, body = question) => {
        const digest = createHmac('sha256', secret).update(`${time}.${JSON.stringify(body)}`).digest('hex');
        return `t=${time},v1=${digest}`;
      };
      const good = sign(now());
      for (const [signature, status] of [
        [good, 200],
        [good.replace(',', `,v1=${'0'.repeat(64)},`), 200],
        [sign(now() - 200), 200],
        [sign(now() - 400), 403],
        [sign(now() + 400), 403],
        [sign(now(), 'another secret'), 403],
        [sign(now(), SIGNATURE_SECRET, { ...question, user: 'bob' }), 403],
        [good.slice(0, -1), 403],
        ['t=,v1', 403],
        ['', 403],
      ]) {
        const answer = await backend.post('/hooks/rpc', question, { 'fanwire-signature': signature });
        assert.equal(answer.status, status, signature);
      }
    });

    check('nothing of the session is in the log', () => {
      assert.doesNotMatch(server.log, /sid=|ann\.[0-9a-f]{8}/);
    });
  });
}

/** Stands in the backend's place and answers each request like this. */
class Impostor {
  static async start(port, answer) {
    const impostor = new Impostor();
    impostor.asked = 0;
    impostor.server = http.createServer((request, response) => {
      impostor.asked += 1;
      request.resume();
      answer(response);
    });
    impostor.server.listen(port, '127.0.0.1');
    await once(impostor.server, 'listening');
    return impostor;
  }

  async stop() {
    this.server.close();
    this.server.closeAllConnections();
    await once(this.server, 'close');
  }
}

describe('a backend that fails', () => {
  let backend;
  let server = { log: '' };
  let impostor;
  let clients = [];
  let bob;
  beforeEach(async () => {
    backend = await Backend.start(PROGRAMS.Node, 600);
    server = await start(backend);
    bob = await connected('bob');
  });
  afterEach(async () => {
    for (const client of clients) client.disconnect();
    clients = [];
    await server.stop?.();
    await backend.kill();
    await impostor?.stop();
    impostor = undefined;
  });
  const check = (name, body) => test(name, told(() => server, body));
  const connected = async (user) => {
    const client = page(server, await backend.login(user));
    clients.push(client);
    client.connect();
    await next(client, 'connected');
    return client;
  };
  const replaced = async (answer) => {
    await backend.kill();
    impostor = await Impostor.start(backend.port, answer);
  };
  const back = async () => {
    await impostor?.stop();
    impostor = undefined;
    await backend.launch();
  };
  /** Calls of the backend under way. */
  const underWay = async () => {
    const figures = [...(await server.metrics()).matchAll(/fanwire_hook_calls_under_way\{.*\} (\d+)/g)];
    return figures.reduce((sum, [, figure]) => sum + Number(figure), 0);
  };

  const LARGE = Buffer.from(`{"result":{"data":"${'x'.repeat(10 << 20)}"}}`);
  const HTML = '<!doctype html><title>Maintenance</title>';
  const elsewhere = { requests: 0 };
  const ways = {
    'is killed': { begin: () => backend.kill(), reason: /no connection/ },
    'is killed while it is asked': {
      begin: () => backend.pause(),
      meanwhile: async () => {
        await until(async () => (await underWay()) >= 4, 'it is asked');
        await backend.kill();
      },
      reason: /no response|breaks off/,
    },
    hangs: { begin: () => backend.pause(), end: () => backend.resume(), reason: /no answer within the timeout/ },
    'answers 500': { answer: (response) => response.writeHead(500).end('{"result":{}}'), reason: /status 500/ },
    'answers HTML': { answer: (response) => response.end(HTML), reason: /this is not JSON/ },
    'answers 10 MB': {
      answer: (response) => response.end(LARGE),
      reason: /larger than 262144 bytes/,
    },
    redirects: {
      answer: (response) => response.writeHead(307, { location: `http://127.0.0.1:${elsewhere.port}/` }).end(),
      reason: /status 307/,
    },
    'closes in the middle': {
      answer: (response) => {
        response.writeHead(200, { 'content-length': 100 });
        response.write('{"result":', () => response.destroy());
      },
      reason: /breaks off/,
    },
  };

  for (const [way, { begin, meanwhile, end = back, answer, reason }] of Object.entries(ways)) {
    check(`${way}: clients are told, others go on, and it is asked again once it is well`, async () => {
      const other = http.createServer((_, response) => {
        elsewhere.requests += 1;
        response.end('{"result":{}}');
      });
      other.listen(0, '127.0.0.1');
      await once(other, 'listening');
      elsewhere.port = other.address().port;
      const [ann, cookie] = [await connected('ann'), await backend.login('ann')];
      const lobby = subscription(ann, 'chat:lobby');
      await next(lobby, 'subscribed');
      const { pid } = server;
      await (answer ? replaced(answer) : begin());

      // Topics that no hook decides on.
      let isOver = false;
      const trips = [];
      const others = (async () => {
        for (let number = 0; !isOver || trips.length < 10; number++) {
          const began = Date.now();
          const arrives = next(bob, 'publication');
          await server.publish('news:all', number);
          assert.equal((await arrives).data, number);
          trips.push(Date.now() - began);
        }
      })();

      const failures = [
        failing(ann.publish('chat:lobby', { text: 'lost' })),
        failing(ann.rpc('typing', {})),
      ];
      const staff = subscription(ann, 'chat:staff');
      const late = page(server, cookie);
      clients.push(late);
      late.connect();
      failures.push(next(staff, 'error').then(({ error }) => error));
      failures.push(next(late, 'error').then(({ error }) => error));
      await ann.send({ typing: 'chat:lobby' });
      await meanwhile?.();
      for (const { code, message, temporary } of await Promise.all(failures)) {
        assert.deepEqual({ code, message, temporary }, { code: 100, message: 'internal server error', temporary: true });
      }
      isOver = true;
      await others;
      const slowest = Math.max(...trips);
      assert.ok(slowest < TIMEOUT, `others waited ${slowest} ms`);
      assert.match(server.log, reason);
      assert.deepEqual([ann.state, late.state, staff.state], ['connected', 'connecting', 'subscribing']);

      const comeBack = [next(late, 'connected'), next(staff, 'subscribed')];
      await end();
      await Promise.all(comeBack);
      const arrives = next(lobby, 'publication');
      await ann.publish('chat:lobby', { text: 'hello again' });
      assert.equal((await arrives).data.text, 'hello again');
      await ann.rpc('typing', {});
      assert.deepEqual([server.pid, server.process.exitCode, elsewhere.requests], [pid, null, 0]);
      other.close();
      console.log(`${way}: ${trips.length} publications to others meanwhile, the slowest after ${slowest} ms`);
    });
  }

  check('again and again is asked no more, and then tried again', async () => {
    const ann = await connected('ann');
    await replaced((response) => response.writeHead(500).end());
    const call = () => ann.rpc('typing', {});
    for (let number = 0; number < 20; number++) assert.equal((await failing(call())).code, 100);
    const { asked } = impostor;
    assert.equal(asked, 20);
    for (let number = 0; number < 20; number++) assert.equal((await failing(call())).code, 100);
    assert.equal(impostor.asked, asked);
    assert.match(await server.metrics(), /fanwire_hook_breaker_open\{hook="rpc"\} 1/);
    await back();
    await until(() => call().then(() => true, () => false), 'it is asked again');
    assert.equal(ann.state, 'connected');
  });

  check('keeps nobody out whose credentials have ended: they live on for a minute', async () => {
    await backend.kill();
    backend.lifetime = 1;
    await backend.launch();
    const ann = await connected('ann');
    await backend.kill();
    const failed = /fanwire_hook_calls_total\{event="refresh",hook="refresh",result="failed"\} 1/;
    await until(async () => failed.test(await server.metrics()), 'it is asked in vain');
    await server.publish('news:all', 'hello');
    await until(() => ann.state === 'connected', 'it is still connected');
    backend.lifetime = 600;
    await backend.launch();
    await ann.rpc('typing', {});
  });
});
