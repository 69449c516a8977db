// Hooks: a backend in Python (aiohttp), as users write one, decides what npm `centrifuge` may do.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { Server, freePort, next, told, until } from './harness.mjs';

const FOLDER = path.dirname(fileURLToPath(import.meta.url));
const PYTHON = path.resolve(FOLDER, '../../../../.tools/venv/bin/python');

class Backend {
  static async start() {
    const backend = new Backend();
    backend.port = await freePort();
    await backend.launch();
    return backend;
  }

  async launch() {
    const program = [PYTHON, path.join(FOLDER, 'backends/chat_aiohttp.py'), `${this.port}`];
    this.process = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...program], { stdio: 'inherit' });
    const answers = () => fetch(`http://127.0.0.1:${this.port}/`).then(() => true, () => false);
    await until(answers, 'the backend answers');
  }

  /** `SIGSTOP` lets it hang, `SIGCONT` go on, `SIGKILL` end. */
  async signal(signal) {
    const ended = signal === 'SIGKILL' && once(this.process, 'exit');
    this.process.kill(signal);
    await ended;
  }
}

const settings = (port) => {
  const hook = (name) => ({ name, url: `http://127.0.0.1:${port}/${name}`, timeout: '4s' });
  const connect = { ...hook('connect'), cookies: ['session'] };
  return {
    client: { hooks: { connect: 'connect', refresh: 'refresh' } },
    hooks: [connect, ...['refresh', 'subscribe', 'publish', 'rpc'].map(hook)],
    rpc: { hook: 'rpc', namespaces: [{ name: 'off' }] },
    topics: {
      namespaces: [
        { name: 'room', subscribe_hook: 'subscribe', publish_hook: 'publish', presence: true },
        { name: 'free', allow_subscribe_for_client: true, allow_publish_for_subscriber: true },
      ],
    },
  };
};

describe('hooks', () => {
  let backend;
  let server = { log: '' };
  const clients = [];
  before(async () => {
    backend = await Backend.start();
    server = await Server.start(settings(backend.port));
  });
  after(async () => {
    for (const client of clients) client.disconnect();
    await server.stop?.();
    await backend.signal('SIGKILL');
  });
  const check = (name, body) => test(name, told(() => server, body));
  const client = (data, options = {}) => {
    const made = new Centrifuge(server.websocket, { websocket: WebSocket, data, ...options });
    clients.push(made);
    return made;
  };
  const connected = async (name) => {
    const made = client({ name });
    made.connect();
    await next(made, 'connected');
    return made;
  };
  const subscribed = async (made, channel, options) => {
    const subscription = made.newSubscription(channel, options);
    subscription.subscribe();
    const context = await next(subscription, 'subscribed');
    return { subscription, context };
  };
  /** A client that needs no backend: the time of 100 of its publications from sending to arrival, as a line. */
  const paced = async (bystander) => {
    const subscription = bystander.getSubscription('free:pace') ?? bystander.newSubscription('free:pace');
    subscription.subscribe();
    await subscription.ready();
    const times = [];
    for (let round = 0; round < 100; round++) {
      const began = performance.now();
      const arrives = next(subscription, 'publication');
      await bystander.publish('free:pace', round);
      assert.equal((await arrives).data, round);
      times.push(performance.now() - began);
    }
    times.sort((left, right) => left - right);
    return `p50 ${times[50].toFixed(2)} ms, p99 ${times[99].toFixed(2)} ms`;
  };
  const failing = (promise) => promise.then(() => assert.fail('it succeeded'), (error) => error);

  check('the backend says who a client is, and what it is told', async () => {
    const ann = client({ name: 'ann' });
    const joined = new Promise((resolve) => ann.on('subscribed', resolve));
    ann.connect();
    const context = await next(ann, 'connected');
    assert.deepEqual(context.data, { rooms: ['room:lobby', 'room:staff'], cookies: [] });
    assert.equal((await joined).channel, 'room:lobby');
    const { presence } = await server.api('presence', { channel: 'room:lobby' });
    const [info] = Object.values(presence);
    assert.deepEqual([info.user, info.conn_info], ['ann', { name: 'Ann' }]);
    ann.disconnect();
  });

  check('a client that the backend does not know is sent away with its words', async () => {
    const nobody = client({});
    nobody.connect();
    const { code, reason } = await next(nobody, 'disconnected');
    assert.deepEqual([code, reason], [4501, 'sign in first']);
  });

  check('the backend sees the cookie that the hook lists', async () => {
    class WithCookies extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { headers: { cookie: 'theme=dark; session=s-bob' } });
      }
    }
    const bob = client(undefined, { websocket: WithCookies });
    bob.connect();
    assert.deepEqual((await next(bob, 'connected')).data, { rooms: ['room:lobby'], cookies: ['session'] });
    bob.disconnect();
  });

  check('a token wins over the hook', async () => {
    const eve = client(undefined, { token: server.token('eve') });
    eve.connect();
    assert.equal((await next(eve, 'connected')).data, undefined);
    eve.disconnect();
  });

  check('the backend says who may enter a room', async () => {
    const [ann, bob] = [await connected('ann'), await connected('bob')];
    const { context } = await subscribed(ann, 'room:staff', { data: { at: 7 } });
    assert.deepEqual(context.data, { topic: 'cats' });
    const { presence } = await server.api('presence', { channel: 'room:staff' });
    assert.deepEqual(Object.values(presence)[0].chan_info, { since: { at: 7 } });
    const refused = bob.newSubscription('room:staff');
    refused.subscribe();
    const { code, reason } = await next(refused, 'unsubscribed');
    assert.deepEqual([code, reason], [403, 'bob is not in this room']);
    for (const made of [ann, bob]) made.disconnect();
  });

  check('the backend keeps, changes and refuses what is written', async () => {
    const [ann, cat] = [await connected('ann'), await connected('ann')];
    const { subscription } = await subscribed(cat, 'room:staff');
    const seen = [];
    subscription.on('publication', (publication) => seen.push(publication));
    for (const text of ['one', 'damn it', 'three']) await ann.publish('room:staff', { text });
    await until(() => seen.length === 3, 'all three arrive');
    assert.deepEqual(seen.map(({ data }) => data.text), ['one', 'd*** it', 'three']);
    assert.deepEqual(seen.map(({ data }) => data.id), [1, 2, 3]);
    assert.deepEqual(seen[0].tags, { kind: 'message' });
    assert.equal(seen[0].info.user, 'ann');
    const error = await failing(ann.publish('room:staff', { text: 'spam' }));
    assert.deepEqual([error.code, error.message], [1001, 'no spam, please']);
    const gone = next(ann, 'disconnected');
    await failing(ann.publish('room:staff', { text: 'leave' }));
    assert.equal((await gone).code, 4502);
    cat.disconnect();
  });

  check('many publications of one client keep their order', async () => {
    const ann = await connected('ann');
    const { subscription } = await subscribed(ann, 'room:staff');
    const seen = [];
    subscription.on('publication', ({ data }) => seen.push(data.text));
    const texts = Array.from({ length: 200 }, (_, index) => `${index}`);
    await Promise.all(texts.map((text) => ann.publish('room:staff', { text })));
    await until(() => seen.length === texts.length, 'all arrive');
    assert.deepEqual(seen, texts);
    ann.disconnect();
  });

  check('methods are answered by the backend', async () => {
    const ann = await connected('ann');
    const { data } = await ann.rpc('count', { of: 'all' });
    assert.deepEqual(data.asked, { of: 'all' });
    assert.ok(data.count >= 203);
    const unknown = await failing(ann.rpc('other', {}));
    assert.deepEqual([unknown.code, unknown.message], [404, 'there is no such method']);
    assert.equal((await failing(ann.rpc('off:count', {}))).code, 108);
    assert.equal((await failing(ann.rpc('none:count', {}))).code, 104);
    ann.disconnect();
  });

  check('the backend prolongs a connection, and ends it', async () => {
    const short = await connected('short');
    const { code } = await next(short, 'connecting');
    assert.equal(code, 3005);
    short.disconnect();
    assert.match(await server.metrics(), /fanwire_hook_calls_total\{event="refresh",hook="refresh",result="ok"\} 2/);
  });

  check('a backend that hangs fails its calls alone, and goes on without a restart', async (t) => {
    const ann = await connected('ann');
    t.diagnostic(`beside a backend that is well: ${await paced(ann)}`);
    await backend.signal('SIGSTOP');
    let answered = 0;
    const counted = (promise) => failing(promise).finally(() => (answered += 1));
    const hanging = counted(ann.publish('room:staff', { text: 'one' }));
    const calling = counted(ann.rpc('count', {}));
    t.diagnostic(`beside one that is stopped: ${await paced(ann)}`);
    assert.equal(answered, 0, 'while the backend hangs');
    for (const error of [await hanging, await calling]) {
      assert.deepEqual([error.code, error.temporary], [100, true]);
    }
    const late = client({ name: 'ann' }, { minReconnectDelay: 100, maxReconnectDelay: 300 });
    late.connect();
    assert.equal((await next(late, 'error')).error.code, 100);
    await backend.signal('SIGCONT');
    await next(late, 'connected');
    await ann.publish('room:staff', { text: 'two' });
    assert.match(server.log, /a hook has no usable answer.*no answer within the timeout/);
    for (const made of [ann, late]) made.disconnect();
  });

  check('a backend that is killed and comes back is used again', async (t) => {
    const ann = await connected('ann');
    await backend.signal('SIGKILL');
    assert.equal((await failing(ann.rpc('count', {}))).code, 100);
    t.diagnostic(`beside one that is gone: ${await paced(ann)}`);
    await backend.launch();
    await until(() => ann.rpc('count', {}).then(() => true, () => false), 'the backend is asked again');
    ann.disconnect();
  });
});
