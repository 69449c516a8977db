// Answers of hooks that make no sense: each fails its call with the stated error, and the log names the field.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { Server, next, told, until } from './harness.mjs';

const FAILED = 100;

/** By name: the event, the answer, the code of the client's error if there is one, and what the log says of the field. */
const CASES = {
  // Of every event: what is no answer at all.
  'no-json': ['rpc', 'secret-words', FAILED, 'this is not JSON'],
  'no-object': ['rpc', '["secret-words"]', FAILED, 'this is not a JSON object'],
  'no-result': ['rpc', '{"result":"secret-words"}', FAILED, 'result: this is not a JSON object'],
  cut: ['rpc', '{"result":{"data":"secret-words', FAILED, 'this is not JSON'],
  'too-large': ['rpc', `{"result":{"data":"${'x'.repeat(256 << 10)}"}}`, FAILED, 'the response is larger than 262144 bytes'],
  'error-without-code': ['rpc', '{"error":{"message":"secret-words"}}', FAILED, 'error.code is 0'],
  'error-code-too-high': ['rpc', '{"error":{"code":65536}}', FAILED, 'error.code is 65536'],
  'error-of-words': ['rpc', '{"error":"secret-words"}', FAILED, 'error: this is not a JSON object'],
  'close-code-of-websockets': ['rpc', '{"disconnect":{"code":1000}}', FAILED, 'disconnect.code is 1000'],
  'no-base64': ['rpc', '{"result":{"b64data":"secret-words!"}}', FAILED, 'result.b64data is not Base64'],
  'unknown-fields': ['rpc', '{"more":1,"result":{"data":1,"other":{"a":[]}},"error":null}', undefined],
  'expire-at-words': ['subscribe', '{"result":{"expire_at":"secret-words"}}', FAILED, 'the field "expire_at" has a wrong type'],
  'override-without-value': ['subscribe', '{"result":{"override":{"presence":true}}}', FAILED, 'the field "override" has a wrong type'],
  'info-unfit': ['subscribe', '{"result":{"b64info":"ew=="}}', FAILED, 'info is not JSON'],
  'subscribe-data-unfit': ['subscribe', '{"result":{"b64data":"ew=="}}', FAILED, 'data is not JSON'],
  'expired-already': ['subscribe', '{"result":{"expire_at":1000}}', 110],
  'more-than-subscribe': ['subscribe', '{"result":{"channels":["a"],"user":7}}', undefined],
  'tags-in-a-list': ['publish', '{"result":{"tags":["secret-words"]}}', FAILED, 'the field "tags" has a wrong type'],
  'version-below-zero': ['publish', '{"result":{"version":-1}}', FAILED, 'the field "version" has a wrong type'],
  'data-unfit': ['publish', '{"result":{"b64data":"ew=="}}', FAILED, 'data is not JSON'],
  'long-key': ['publish', `{"result":{"idempotency_key":"${'k'.repeat(257)}"}}`, FAILED, 'idempotency_key or version_epoch is longer'],
  'skip-history-words': ['publish', '{"result":{"skip_history":"secret-words"}}', FAILED, 'the field "skip_history" has a wrong type'],
  'publish-nothing': ['publish', '{}', undefined],
};

/** The same for the one hook of connect, which has a gateway of its own each time, since a hook's log is limited. */
const CONNECTS = {
  'user of a number': ['{"result":{"user":12345}}', FAILED, 'the field "user" has a wrong type'],
  'channels in no list': ['{"result":{"channels":"secret-words"}}', FAILED, 'the field "channels" has a wrong type'],
  'subs without options': ['{"result":{"subs":{"a":7}}}', FAILED, 'the field "subs" has a wrong type'],
  'info unfit': ['{"result":{"b64info":"ew=="}}', FAILED, 'info is not JSON'],
  'meta too long': [`{"result":{"meta":{"a":"${'m'.repeat(5000)}"}}}`, FAILED, 'meta is longer than client.hooks.kept_bytes_max'],
  'a topic of no namespace': ['{"result":{"user":"ann","channels":["nowhere:a"]}}', 102],
  'a topic without a name': ['{"result":{"user":"ann","channels":[""]}}', FAILED, 'channel'],
};

describe('answers of hooks', () => {
  let server = { log: '' };
  let backend;
  let answer = '{"result":{"user":"ann"}}';
  const check = (name, body) => test(name, told(() => server, body));
  before(async () => {
    backend = http.createServer((request, response) => {
      const name = decodeURIComponent(request.url.slice(1));
      request.resume().on('end', () => response.end(CASES[name]?.[1] ?? answer));
    });
    backend.listen(0, '127.0.0.1');
    await once(backend, 'listening');
  });
  after(() => backend.close().closeAllConnections());

  const hook = (name, more) => ({ name, url: `http://127.0.0.1:${backend.address().port}/${name}`, timeout: '10s', ...more });
  const line = (from, hook) => () =>
    server.log.slice(from).split('\n').find((line) => line.includes('no usable answer') && line.includes(`"${hook}"`));
  /** Waits for what becomes of a connection or a subscription: its error, or nothing. */
  const outcomeOf = (emitter, good, bad) => {
    let outcome;
    emitter.on('error', ({ error }) => (outcome ??= { error }));
    emitter.on(bad, ({ code, reason }) => (outcome ??= { error: { code, message: reason } }));
    emitter.on(good, () => (outcome ??= {}));
    return async () => (await until(() => outcome, 'it is answered')).error;
  };
  const named = async (from, hook, why) => {
    const found = await until(line(from, hook), `the log tells of ${hook}`);
    assert.ok(found.replaceAll('\\"', '"').includes(why), `${why} is not in ${found}`);
  };

  describe('to commands', () => {
    let ann;
    before(async () => {
      const names = (event) => Object.keys(CASES).filter((name) => CASES[name][0] === event);
      server = await Server.start({
        hooks: Object.keys(CASES).map((name) => hook(name)),
        rpc: { namespaces: names('rpc').map((name) => ({ name, hook: name })) },
        topics: {
          namespaces: [
            ...names('subscribe').map((name) => ({ name, subscribe_hook: name })),
            ...names('publish').map((name) => ({ name, publish_hook: name, allow_subscribe_for_client: true })),
          ],
        },
      });
      ann = new Centrifuge(server.websocket, { websocket: WebSocket, token: server.token('ann') });
      ann.connect();
      await next(ann, 'connected');
    });
    after(async () => {
      ann?.disconnect();
      await server.stop?.();
    });
    const does = {
      rpc: (name) => ann.rpc(`${name}:m`, {}),
      publish: (name) => ann.publish(`${name}:a`, { text: 'of-the-client' }),
      subscribe: async (name) => {
        const subscription = ann.newSubscription(`${name}:a`);
        const outcome = outcomeOf(subscription, 'subscribed', 'unsubscribed');
        subscription.subscribe();
        const error = await outcome();
        ann.removeSubscription(subscription);
        if (error) throw error;
      },
    };
    for (const [name, [event, , code, why]] of Object.entries(CASES)) {
      check(`${event}: ${name}`, async () => {
        const from = server.log.length;
        const error = await does[event](name).then(() => undefined, (error) => error);
        assert.equal(error?.code, code, error?.message);
        if (code === FAILED) assert.equal(error.temporary ?? true, true);
        if (why) await named(from, name, why);
      });
    }
    check('nothing of an answer or a question is in the log', () => {
      for (const words of ['secret-words', 'of-the-client']) assert.ok(!server.log.includes(words), words);
      assert.equal(ann.state, 'connected');
    });
  });

  describe('to connect', () => {
    for (const [name, [body, code, why]] of Object.entries(CONNECTS)) {
      check(name, async () => {
        server = await Server.start({
          hooks: [hook('who', { include_connection_meta: true })],
          client: { hooks: { connect: 'who' } },
          rpc: { hook: 'who' },
        });
        const client = new Centrifuge(server.websocket, { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 50 });
        try {
          answer = body;
          const outcome = outcomeOf(client, 'connected', 'disconnected');
          client.connect();
          const error = await outcome();
          assert.equal(error?.code, code, error?.message);
          if (why) await named(0, 'who', why);
          // Once the backend is well the client is in, without a restart; it gave up where the error is not temporary.
          answer = '{"result":{"user":"ann"}}';
          if (code === FAILED) await until(() => client.state === 'connected', 'the client is in');
          assert.ok(!server.log.includes('secret-words'));
        } finally {
          client.disconnect();
          await server.stop();
        }
      });
    }
  });
});
