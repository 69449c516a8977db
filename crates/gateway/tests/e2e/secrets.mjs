// No token, secret or payload is in a log, at the level `debug` of everything: two nodes on one Redis do all that concerns
// tokens, keys, hooks and revocations, well and badly, and then their logs are searched.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { Server, freePort, now, sign, told, until } from './harness.mjs';

// Each is looked for by itself. Those that are in tokens are looked for in base64url, too, by `eyJ`.
const SECRETS = {
  'the secret of tokens': 'secret-of-tokens-5b1d9e77c04a',
  'the secret before it': 'secret-before-it-90aa41c7e2fd',
  'the key of the API': 'key-of-the-api-c3b7a5d0e61f',
  'the password of Redis': 'password-of-redis-8e2f6b0c9d14',
  'the secret of signatures': 'secret-of-signatures-7d40e9b15a',
  'a static header': 'static-header-61c8f2a9b7e0',
  'a cookie': 'cookie-4f7e1a90c2d8',
  'a header of the client': 'client-header-b2960d7fe134',
  'a wrong key of the API': 'wrong-key-e07d5c1b9a42',
  'the name of a revoked token': 'name-of-a-token-19b3d6f0ac57',
  'what a client says': 'client-says-f46a0e81d9c3',
  'what the backend says': 'backend-says-2ac95e7b04d1',
  'metadata': 'metadata-d81f3c6a07e9',
};
const secret = (name) => SECRETS[name];

const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });

/** A token of the identity provider. */
function provided(claims, kid = 'one') {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'ES256', kid })}.${part(claims)}`;
  const signature = signBytes('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return `${signed}.${signature.toString('base64url')}`;
}

/** The application's backend and an identity provider, on one port. */
class Backend {
  calls = 0;

  async start() {
    this.server = http.createServer((request, response) => {
      if (request.url === '/keys') {
        const keys = [{ ...publicKey.export({ format: 'jwk' }), kid: 'one', use: 'sig' }];
        return response.end(JSON.stringify({ keys }));
      }
      request.resume().on('end', () => {
        this.calls += 1;
        this.answer(request, response);
      });
    });
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    this.is = 'kind';
    return this;
  }

  answer(request, response) {
    const said = secret('what the backend says');
    const answers = {
      kind: () => {
        const result = { user: 'ann', data: { said }, meta: { meta: secret('metadata') } };
        response.end(JSON.stringify({ result: request.url === '/connect' ? result : { data: { said } } }));
      },
      refusing: () => response.end(JSON.stringify({ error: { code: 1000, message: said } })),
      closing: () => response.end(JSON.stringify({ disconnect: { code: 4501, reason: 'go' } })),
      wrong: () => response.end(JSON.stringify({ result: { user: 7, data: said, b64data: said, expire_at: said } })),
      nonsense: () => response.end(`<html>${said}`),
      broken: () => response.writeHead(500).end(said),
      elsewhere: () => response.writeHead(302, { location: `/${said}`, 'set-cookie': said }).end(said),
      gone: () => request.socket.destroy(),
    };
    answers[this.is]();
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

class Redis {
  async start() {
    this.port = await freePort();
    const program = ['redis-server', '--port', `${this.port}`, '--save', '', '--requirepass', secret('the password of Redis')];
    this.process = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...program], { stdio: 'ignore' });
    await until(() => accepts(this.port), 'Redis answers');
    return this;
  }
}

const accepts = (port) =>
  new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });

/** The replies to commands that one WebSocket sends, each after the reply to the one before; a close is the last. */
async function talk(server, commands, headers = {}) {
  const socket = new WebSocket(server.websocket, { headers });
  const heard = [];
  let wake = () => {};
  socket.on('message', (frame) => {
    heard.push(...frame.toString().split('\n').map((line) => JSON.parse(line)).filter((reply) => reply.id));
    wake();
  });
  socket.on('close', (code) => {
    heard.push({ close: code });
    wake();
  });
  socket.on('error', () => {});
  await once(socket, 'open');
  for (const [index, command] of commands.entries()) {
    socket.send(typeof command === 'string' ? command : JSON.stringify({ id: index + 1, ...command }));
    while (heard.length <= index && !heard.some((reply) => reply.close)) {
      await new Promise((resolve) => (wake = resolve));
    }
  }
  socket.terminate();
  return heard;
}

describe('logs at the level debug', () => {
  const nodes = [];
  let backend, redis;
  const says = { said: secret('what a client says') };
  const cookie = { cookie: `sid=${secret('a cookie')}`, 'x-key': secret('a header of the client') };
  before(async () => {
    [backend, redis] = await Promise.all([new Backend().start(), new Redis().start()]);
    const hook = (name) => ({
      name,
      url: `${backend.url}/${name}`,
      signature_secret: secret('the secret of signatures'),
      static_headers: { authorization: `Bearer ${secret('a static header')}` },
      http_headers: ['x-key'],
      cookies: ['sid'],
      include_connection_meta: true,
      breaker: false,
    });
    for (const name of ['a', 'b']) {
      nodes.push(
        await Server.start({
          server: { name },
          log: { level: 'debug' },
          engine: {
            type: 'redis',
            redis: { address: `127.0.0.1:${redis.port}`, password: secret('the password of Redis'), lease: '3s', answer_timeout: '1500ms' },
          },
          api: { keys: [secret('the key of the API')] },
          client: {
            token: {
              hmac_secret: secret('the secret of tokens'),
              hmac_previous_secret: secret('the secret before it'),
              revocable: true,
            },
            subscription_token: { enabled: true, jwks_url: `${backend.url}/keys`, jwks_refresh_min: '200ms' },
            hooks: { connect: 'connect', send: 'send' },
          },
          rpc: { hook: 'rpc' },
          hooks: ['connect', 'send', 'rpc', 'subscribe', 'publish'].map(hook),
          topics: {
            namespaces: [
              { name: 'asked', subscribe_hook: 'subscribe', publish_hook: 'publish' },
              { name: 'open', allow_subscribe_for_client: true, allow_publish_for_client: true },
              { name: 'token' },
            ],
          },
        }),
      );
    }
  });
  after(async () => {
    for (const node of nodes) await node.stop();
    redis.process.kill();
    backend.stop();
  });
  const check = (name, body) => test(name, told(() => nodes[0] ?? { log: '' }, body));

  const token = (claims = {}) => nodes[0].token('ann', { info: says, meta: { meta: secret('metadata') }, ...claims });
  const kept = () => nodes.map((node) => node.log).join('');

  check('everything is done that concerns tokens', async () => {
    const [a, b] = nodes;
    const forged = sign({ sub: 'ann', info: says }, 'another secret');
    for (const wrong of [
      forged,
      token({ exp: now() - 1 }),
      token({ exp: 'never' }),
      token({ channel: 'open:a' }),
      token({ meta: { long: secret('metadata').repeat(400) } }),
      token().slice(0, -1),
      `${token()}.${token()}`,
      `${token()}${'x'.repeat(20_000)}`,
      provided({ sub: 'ann' }),
    ]) {
      const [reply] = await talk(a, [{ connect: { token: wrong } }]);
      assert.ok(reply.close || reply.error, JSON.stringify(reply));
      // A longer one is refused as a head that is too long.
      if (wrong.length > 10_000) continue;
      const publish = { method: 'POST', body: JSON.stringify(says) };
      for (const [url, options] of [
        [`${a.http}/subscribe?as=sse&topic=open:a&token=${wrong}`, {}],
        [`${a.http}/subscribe?as=ndjson&topic=open:a`, { headers: { authorization: `Bearer ${wrong}` } }],
        [`${a.http}/publish?topic=open:a&token=${wrong}`, publish],
      ]) {
        assert.ok((await fetch(url, options)).status >= 400, url);
      }
    }
    const good = await talk(a, [
      { connect: { token: token({ exp: now() + 100 }) } },
      { refresh: { token: token({ exp: now() + 200 }) } },
      { subscribe: { channel: 'token:a', token: provided({ sub: 'ann', channel: 'token:a', info: says }) } },
      { subscribe: { channel: 'token:b', token: provided({ sub: 'ann', channel: 'token:a' }, 'unknown') } },
      { sub_refresh: { channel: 'token:a', token: provided({ sub: 'ann', channel: 'token:a' }) } },
      { subscribe: { channel: 'open:a' } },
      { publish: { channel: 'open:a', data: says } },
      { refresh: { token: forged } },
    ]);
    assert.ok(good[0].connect && good[1].refresh && good[2].subscribe && good[4].sub_refresh && good[6].publish, JSON.stringify(good));
    assert.equal(good.at(-1).close, 3500);
    const bad = [
      `{"id":1,"connect":{"token":"${token()}"`,
      `{"id":1,"connect":{"token":"${token()}"},"connect":7}`,
      `{"id":1,"subscribe":{"channel":"open:a","token":"${token()}"}}`,
      `{"id":1,"connect":{"token":7,"data":"${secret('what a client says')}"}}`,
      token(),
    ];
    for (const text of bad) {
      const replies = await talk(b, [text]);
      assert.ok(replies.at(-1).close || replies.at(-1).error, JSON.stringify(replies));
    }
    assert.equal((await fetch(`${b.http}/publish?topic=open:a&token=${token()}`, { method: 'POST', body: JSON.stringify(says) })).status, 200);
    const stream = new AbortController();
    const headers = { authorization: `Bearer ${token()}` };
    assert.equal((await fetch(`${b.http}/subscribe?as=sse&topic=open:a`, { headers, signal: stream.signal })).status, 200);
    stream.abort();
  });

  check('everything is done that concerns hooks', async () => {
    for (const is of ['kind', 'refusing', 'closing', 'wrong', 'nonsense', 'broken', 'elsewhere', 'gone']) {
      const calls = backend.calls;
      const commands = [
        { connect: { data: says, name: secret('what a client says') } },
        { rpc: { method: secret('what a client says'), data: says } },
        { subscribe: { channel: 'asked:a', data: says } },
        { publish: { channel: 'asked:a', data: says } },
      ];
      backend.is = is;
      for (const first of [0, 1]) {
        // Also a client that a token has connected.
        const connect = first === 0 ? commands[0] : { connect: { token: token() } };
        await talk(nodes[0], [connect, ...commands.slice(1)], cookie);
      }
      const send = [JSON.stringify({ send: { data: says } })];
      await talk(nodes[0], [{ connect: { token: token() } }, `${send}\n{"id":2,"rpc":{}}`], cookie);
      const publish = `${nodes[0].http}/publish?topic=asked:a&token=${token()}`;
      await fetch(publish, { method: 'POST', body: JSON.stringify(says), headers: cookie });
      assert.ok(backend.calls > calls, is);
    }
    backend.is = 'kind';
  });

  check('everything is done that concerns the API', async () => {
    const [a, b] = nodes;
    const nameless = token({ iat: now() });
    assert.equal(typeof (await a.api('revoke_token', { token: nameless })).connections_closed, 'number');
    assert.deepEqual(await talk(b, [{ connect: { token: nameless } }]), [{ close: 3500 }]);
    const jti = secret('the name of a revoked token');
    const sitting = new WebSocket(b.websocket);
    await once(sitting, 'open');
    sitting.send(JSON.stringify({ id: 1, connect: { token: token({ jti }) } }));
    await once(sitting, 'message');
    const closed = once(sitting, 'close');
    assert.deepEqual(await a.api('revoke_token', { jti }), { connections_closed: 1 });
    assert.equal((await closed)[0], 3500);
    assert.deepEqual(await talk(a, [{ connect: { token: token({ jti }) } }]), [{ close: 3500 }]);
    await a.api('block_user', { user: 'bob' });
    await talk(b, [{ connect: { token: b.token('bob', { info: says }) } }]);
    await a.api('unblock_user', { user: 'bob' });
    await a.api('publish', { channel: 'open:a', data: says });
    for (const [path, key, body] of [
      ['publish', secret('a wrong key of the API'), '{}'],
      ['revoke_token', secret('the key of the API'), `{"token":"${token()}"`],
      ['revoke_token', secret('the key of the API'), `{"token":"${token()}","expire_at":"never"}`],
      ['revoke_token', secret('the key of the API'), `{"token":"x.${token()}"}`],
      ['nothing', secret('the key of the API'), JSON.stringify(says)],
    ]) {
      const headers = { 'x-api-key': key, 'content-type': 'application/json' };
      await (await fetch(`${a.http}/api/${path}`, { method: 'POST', headers, body })).text();
    }
    await fetch(`${a.http}/api/publish?api_key=${secret('a wrong key of the API')}`, { method: 'POST', body: '{}' });
    await fetch(`${a.http}/api/publish`, { method: 'POST', body: '{}', headers: { authorization: `apikey ${secret('a wrong key of the API')}` } });
  });

  check('Redis is lost and found, and nodes end', async () => {
    redis.process.kill('SIGKILL');
    await until(() => kept().includes('Redis'), 'the log speaks of Redis');
    const [reply] = await talk(nodes[0], [{ connect: { token: token() } }]);
    assert.ok(reply.connect, JSON.stringify(reply));
    await assert.rejects(nodes[0].api('revoke_token', { token: token() }));
    for (const node of nodes) await node.stop();
  });

  check('none of it is in the logs, which are at that level', () => {
    const log = kept();
    for (const line of ['token refused', 'fetched the keys', 'closing']) {
      assert.ok(log.includes(line), `the log has lines about it: ${line}`);
    }
    assert.match(log, /"level":"DEBUG"/);
    const found = (text) => log.split('\n').filter((line) => line.includes(text));
    for (const [name, text] of Object.entries({ ...SECRETS, 'a token': 'eyJ' })) {
      assert.deepEqual(found(text).slice(0, 3), [], name);
      if (name !== 'a token') assert.deepEqual(found(Buffer.from(text).toString('base64').slice(0, 12)).slice(0, 3), [], name);
    }
  });
});
