// Identity providers: an HTTP server of this suite publishes keys (JWKS), and npm `centrifuge` and npm `ws` bring tokens.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { Server, next, now, sign, told, until } from './harness.mjs';

/** A pair of keys with a name, as a provider publishes it. */
function keyPair(kid, kind = 'ec') {
  const options = { ec: { namedCurve: 'P-256' }, rsa: { modulusLength: 2048 }, ed25519: {} }[kind];
  const pair = generateKeyPairSync(kind, options);
  return { kid, ...pair, published: { ...pair.publicKey.export({ format: 'jwk' }), kid, use: 'sig' } };
}

const ALGORITHMS = { ec: 'ES256', rsa: 'RS256', ed25519: 'EdDSA' };

/** A token signed with a pair, which names it. */
function tokenOf(pair, claims, kid = pair.kid) {
  const alg = ALGORITHMS[pair.privateKey.asymmetricKeyType];
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg, kid })}.${part(claims)}`;
  const key = { key: pair.privateKey, dsaEncoding: 'ieee-p1363' };
  const signature = signBytes(alg === 'EdDSA' ? null : 'sha256', Buffer.from(signed), key);
  return `${signed}.${signature.toString('base64url')}`;
}

/** Publishes sets of keys by path. `answer`, where it is set, answers in its place. */
class Provider {
  static async start(tls) {
    const provider = new Provider();
    provider.sets = {};
    provider.asked = 0;
    const serve = (request, response) => {
      provider.asked += 1;
      provider.askedAt = Date.now();
      if (provider.answer) return provider.answer(request, response);
      const keys = provider.sets[request.url];
      response.writeHead(keys ? 200 : 404, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ keys: keys?.map((pair) => pair.published) }));
    };
    provider.server = tls ? https.createServer(tls, serve) : http.createServer(serve);
    provider.server.listen(0, '127.0.0.1');
    await once(provider.server, 'listening');
    provider.port = provider.server.address().port;
    provider.url = `${tls ? 'https' : 'http'}://127.0.0.1:${provider.port}`;
    return provider;
  }

  async down() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }

  async up() {
    this.server.listen(this.port, '127.0.0.1');
    await once(this.server, 'listening');
  }
}

/** The answer to one connect, or code and reason of the close. */
async function connect(server, token) {
  const socket = new WebSocket(server.websocket);
  const said = new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('open', () => socket.send(JSON.stringify({ id: 1, connect: { token } })));
    socket.on('close', (code, reason) => resolve(`${code} ${reason}`));
    socket.on('message', (frame) => {
      const reply = JSON.parse(frame.toString().split('\n')[0]);
      resolve(reply.error ? `${reply.error.code} ${reply.error.message}` : 'connected');
    });
  });
  try {
    return await said;
  } finally {
    socket.close();
  }
}

const INVALID = '3500 invalid token';
const LATER = '100 internal server error';

/** Waits until a token is answered like this. */
const answered = (server, token, answer) =>
  until(async () => (await connect(server, token)) === answer, `a token is answered with ${answer}`);

const settings = (token) => ({ client: { token: { hmac_secret: null, jwks_refresh_min: '500ms', ...token } } });

describe('an identity provider', () => {
  let provider;
  let server = { log: '' };
  const [a, b, c, stranger] = [keyPair('a'), keyPair('b', 'rsa'), keyPair('c', 'ed25519'), keyPair('a')];
  const start = async (token = {}) => {
    server = await Server.start(settings({ jwks_url: `${provider.url}/keys`, ...token }));
  };
  beforeEach(async () => {
    provider = await Provider.start();
    provider.sets['/keys'] = [a];
  });
  afterEach(async () => {
    await server.stop?.();
    assert.ok(!/eyJ/.test(server.log), 'no token is in the log');
    if (provider.server.listening) await provider.down();
  });
  const check = (name, body) => test(name, told(() => server, body));

  check('the keys that it publishes verify tokens, and no others do', async () => {
    provider.sets['/keys'] = [a, b, c];
    await start();
    for (const pair of [a, b, c]) {
      await answered(server, tokenOf(pair, { sub: 'ann' }), 'connected');
      assert.equal(await connect(server, tokenOf(pair, { sub: 'ann', exp: now() - 1 })), '109 token expired');
    }
    assert.equal(await connect(server, tokenOf(stranger, { sub: 'ann' })), INVALID);
    assert.equal(await connect(server, tokenOf(a, { sub: 'ann' }, 'b')), INVALID);
    assert.equal(await connect(server, tokenOf(a, { sub: 'ann' }, null)), INVALID);
    assert.equal(await connect(server, sign({ sub: 'ann' }, 'secret')), INVALID, 'a secret is not used beside them');
  });

  check('a key is rotated under live clients', async () => {
    await start({ jwks_ttl: '4s', jwks_stale_max: '1h' });
    const brought = [];
    let signer = a;
    const client = new Centrifuge(server.websocket, {
      websocket: WebSocket,
      minReconnectDelay: 100,
      maxReconnectDelay: 500,
      getToken: async () => {
        brought.push(signer.kid);
        return tokenOf(signer, { sub: 'ann', exp: now() + 3 });
      },
    });
    const closes = [];
    client.on('disconnected', ({ code }) => closes.push(code));
    client.connect();
    await next(client, 'connected');
    // The provider publishes the new key, signs with it, and removes the old one.
    provider.sets['/keys'] = [a, b];
    signer = b;
    await until(() => brought.filter((kid) => kid === 'b').length > 1, 'the new key is used twice');
    await until(() => client.state === 'connected', 'the client is connected');
    assert.equal(await connect(server, tokenOf(a, { sub: 'bob' })), 'connected', 'the old key is still good');
    provider.sets['/keys'] = [b];
    await answered(server, tokenOf(a, { sub: 'bob' }), INVALID);
    assert.equal(await connect(server, tokenOf(b, { sub: 'bob' })), 'connected');
    assert.deepEqual(closes, []);
    client.disconnect();
  });

  check('a client with a key that is not known yet waits for it, and others do not', async () => {
    await start({ jwks_timeout: '10s' });
    await answered(server, tokenOf(a, { sub: 'ann' }), 'connected');
    const uses = {
      'a connection': [(pair) => connect(server, tokenOf(pair, { sub: 'ann' })), 'connected'],
      'a publication': [
        async (pair) => {
          const url = `${server.http}/publish?topic=object:a&token=${tokenOf(pair, { sub: 'ann' })}`;
          return (await fetch(url, { method: 'POST', body: '{}' })).status;
        },
        200,
      ],
      'a stream': [
        async (pair) => {
          const stream = new AbortController();
          const url = `${server.http}/subscribe?as=sse&topic=plain:a&token=${tokenOf(pair, { sub: 'ann' })}`;
          const { status } = await fetch(url, { signal: stream.signal });
          stream.abort();
          return status;
        },
        200,
      ],
      'a subscription': [
        (pair) => second({ subscribe: { channel: 'token:a', token: tokenOf(pair, { sub: 'ann', channel: 'token:a' }) } }),
        'subscribe',
      ],
      'a refresh': [(pair) => second({ refresh: { token: tokenOf(pair, { sub: 'ann' }) } }), 'refresh'],
    };
    /** What the answer to one more command has, or is. */
    const second = async (command) => {
      const socket = new WebSocket(server.websocket);
      await once(socket, 'open');
      socket.send(JSON.stringify({ id: 1, connect: { token: tokenOf(a, { sub: 'ann' }) } }));
      await once(socket, 'message');
      socket.send(JSON.stringify({ id: 2, ...command }));
      const reply = JSON.parse((await once(socket, 'message'))[0]);
      socket.close();
      const [name] = Object.keys(command);
      return name in reply ? name : reply;
    };
    for (const [name, [use, expected]] of Object.entries(uses)) {
      await until(() => Date.now() - provider.askedAt > 600, 'the keys may be fetched again');
      const next = keyPair(name);
      const asked = new Promise((resolve) => (provider.answer = (_, response) => resolve(response)));
      const used = use(next);
      const response = await asked;
      assert.equal(await connect(server, tokenOf(a, { sub: 'bob' })), 'connected', `others while ${name} waits`);
      provider.answer = undefined;
      provider.sets['/keys'] = [a, next];
      response.end(JSON.stringify({ keys: [a, next].map((pair) => pair.published) }));
      assert.deepEqual(await used, expected, name);
    }
  });

  check('while it is down its keys serve, and unknown ones are refused with the reason in the log', async () => {
    await start();
    await answered(server, tokenOf(a, { sub: 'ann' }), 'connected');
    await provider.down();
    assert.equal(await connect(server, tokenOf(a, { sub: 'ann' })), 'connected');
    await until(async () => {
      assert.equal(await connect(server, tokenOf(b, { sub: 'ann' })), LATER);
      return server.log.includes('keys of the identity provider could not be fetched');
    }, 'the log has the reason');
    assert.match(server.log, /no connection: .*refused/);
    provider.sets['/keys'] = [a, b];
    await provider.up();
    await answered(server, tokenOf(b, { sub: 'ann' }), 'connected');
  });

  check('a node that starts without it is ready, and takes tokens once it is there', async () => {
    await provider.down();
    await start();
    assert.equal(await connect(server, tokenOf(a, { sub: 'ann' })), LATER);
    await provider.up();
    await answered(server, tokenOf(a, { sub: 'ann' }), 'connected');
  });

  check('invented names of keys cost a fetch in each interval, and honest clients nothing', async () => {
    await start({ jwks_refresh_min: '1s' });
    await answered(server, tokenOf(a, { sub: 'ann' }), 'connected');
    const [asked, begin] = [provider.asked, Date.now()];
    while (Date.now() - begin < 2500) {
      const invented = Array.from({ length: 20 }, () => tokenOf(stranger, { sub: 'eve' }, `${Math.random()}`));
      const answers = await Promise.all(invented.map((token) => connect(server, token)));
      assert.ok(answers.every((answer) => [LATER, INVALID].includes(answer)), `${answers}`);
      assert.equal(await connect(server, tokenOf(a, { sub: 'ann' })), 'connected');
    }
    assert.ok(provider.asked - asked <= 1 + (Date.now() - begin) / 1000, `${provider.asked - asked} fetches`);
  });

  check('nonsense, errors, redirects, endless and broken answers leave the old keys, and it recovers', async () => {
    await start({ jwks_timeout: '300ms' });
    await answered(server, tokenOf(a, { sub: 'ann' }), 'connected');
    provider.sets['/keys'] = [a, b];
    const answers = {
      'status 500': (_, response) => response.writeHead(500).end(),
      'status 302': (_, response) => response.writeHead(302, { location: '/keys' }).end(),
      'not a JSON object': (_, response) => response.end('<html>'),
      'larger than 262144 bytes': (_, response) => response.end('x'.repeat(10 << 20)),
      'breaks off': (_, response) => response.write('{"keys"', () => response.destroy()),
      'no answer within': () => {},
    };
    for (const [reason, answer] of Object.entries(answers)) {
      // A line of the log is written once in ten seconds, so each answer meets a new server.
      provider.answer = answer;
      await server.restart();
      await until(async () => {
        assert.equal(await connect(server, tokenOf(b, { sub: 'ann' })), LATER, reason);
        return server.log.includes(reason);
      }, `the log says "${reason}"`);
      provider.answer = undefined;
      await answered(server, tokenOf(b, { sub: 'ann' }), 'connected');
    }
  });

  check('each tenant has a set, found by the issuer', async () => {
    provider.sets = { '/acme/keys': [a], '/globex/keys': [b] };
    await start({
      jwks_url: `${provider.url}/{{tenant}}/keys`,
      issuer_regex: '^https://id[.]example/(?P<tenant>[^/]+)$',
    });
    const of = (pair, tenant) => tokenOf(pair, { sub: 'ann', iss: `https://id.example/${tenant}` });
    await answered(server, of(a, 'acme'), 'connected');
    await answered(server, of(b, 'globex'), 'connected');
    await answered(server, of(b, 'acme'), INVALID);
    await answered(server, of(a, 'globex'), INVALID);
    assert.equal(await connect(server, of(a, 'nobody')), LATER);
    assert.equal(await connect(server, tokenOf(a, { sub: 'ann', iss: 'https://other.example/acme' })), INVALID);
    const asked = provider.asked;
    for (const tenant of ['..', 'a%2fb', 'a b', 'x'.repeat(200)]) {
      assert.equal(await connect(server, of(a, tenant)), INVALID, tenant);
    }
    assert.equal(provider.asked, asked);
  });

  check('subscription tokens may have a provider of their own', async () => {
    server = await Server.start({
      client: { subscription_token: { enabled: true, jwks_url: `${provider.url}/keys` } },
    });
    const client = new Centrifuge(server.websocket, { websocket: WebSocket, token: server.token('ann') });
    const token = tokenOf(a, { sub: 'ann', channel: 'token:room' });
    const subscription = client.newSubscription('token:room', { token, minResubscribeDelay: 100 });
    subscription.subscribe();
    client.connect();
    await next(subscription, 'subscribed');
    client.disconnect();
  });

  check('its figures are metrics', async () => {
    await start();
    await answered(server, tokenOf(a, { sub: 'ann' }), 'connected');
    assert.match(await server.metrics(), /fanwire_jwks_fetches_total\{result="complete"\} 1\n/);
    assert.match(await server.metrics(), /fanwire_jwks_age_seconds \d/);
  });
});

describe('an identity provider over TLS', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-e2e-provider-'));
  const file = (name) => path.join(folder, name);
  const a = keyPair('a');
  let provider;
  before(async () => {
    const openssl = (...options) => execFileSync('openssl', options, { cwd: folder, stdio: 'pipe' });
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    openssl('req', '-x509', ...curve, '-subj', '/CN=authority', '-keyout', 'authority.key', '-out', 'authority.crt');
    openssl('req', ...curve, '-subj', '/CN=provider', '-keyout', 'key.pem', '-out', 'request.pem');
    fs.writeFileSync(file('names'), 'subjectAltName=IP:127.0.0.1\n');
    openssl(
      ...['x509', '-req', '-in', 'request.pem', '-extfile', 'names', '-out', 'certificate.pem'],
      ...['-CA', 'authority.crt', '-CAkey', 'authority.key', '-CAcreateserial'],
    );
    provider = await Provider.start({
      key: fs.readFileSync(file('key.pem')),
      cert: fs.readFileSync(file('certificate.pem')),
    });
    provider.sets['/keys'] = [a];
  });
  after(async () => {
    await provider.down();
    fs.rmSync(folder, { recursive: true });
  });

  test('its certificate has to be signed by an authority that is named', async () => {
    const jwks = { jwks_url: `${provider.url}/keys`, jwks_ca_file: file('authority.crt') };
    const trusting = await Server.start(settings(jwks));
    await answered(trusting, tokenOf(a, { sub: 'ann' }), 'connected');
    await trusting.stop();
    const stranger = await Server.start(settings({ jwks_url: jwks.jwks_url }));
    await until(() => /no TLS: invalid peer certificate/.test(stranger.log), 'the log says why');
    assert.equal(await connect(stranger, tokenOf(a, { sub: 'ann' })), LATER);
    await stranger.stop();
  });
});
