// npm `ws` speaking the protocol by hand: tokens of every algorithm, and tokens that are wrong in every way.

import assert from 'node:assert/strict';
import { generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { Server, now, sign, told } from './harness.mjs';

const HMAC = { secret: 'tokens-suite-secret', previous: 'tokens-suite-previous-secret' };
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ed25519 = generateKeyPairSync('ed25519');
const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 });
const pem = ({ publicKey }) => publicKey.export({ type: 'spki', format: 'pem' });

/** A token signed with a private key. */
function signWithKey(claims, algorithm, { privateKey }) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: algorithm, typ: 'JWT' })}.${part(claims)}`;
  const hash = algorithm === 'EdDSA' ? null : `sha${algorithm.slice(2)}`;
  const signature = signBytes(hash, Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return `${signed}.${signature.toString('base64url')}`;
}

/** Sends one connect and gives the reply, or code and reason of the close. */
function connect(server, token, refresh) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(server.websocket);
    const timer = setTimeout(() => reject(new Error('no answer to connect')), 20_000);
    const done = (result) => {
      clearTimeout(timer);
      resolve(result);
      socket.close();
    };
    socket.on('error', reject);
    socket.on('open', () => socket.send(JSON.stringify({ id: 1, connect: { token } })));
    socket.on('close', (code, reason) => done({ close: code, reason: reason.toString() }));
    socket.on('message', (frame) => {
      for (const reply of frame.toString().split('\n').map((line) => JSON.parse(line))) {
        if (reply.id === 1 && reply.connect && refresh) {
          socket.send(JSON.stringify({ id: 2, refresh: { token: refresh } }));
        } else if (reply.id) {
          done(reply);
        }
      }
    });
  });
}

describe('tokens', () => {
  let server;
  before(async () => {
    server = await Server.start({
      client: {
        token: {
          hmac_secret: HMAC.secret,
          hmac_previous_secret: HMAC.previous,
          rsa_public_key: pem(rsa),
          ecdsa_public_key: pem(p256),
          ed25519_public_key: pem(ed25519),
          audience: 'fanwire',
          issuer: 'https://issuer.example.com',
        },
      },
    });
  });
  after(() => server.stop());
  const check = (name, body) => test(name, told(() => server, body));
  const claims = (more = {}) => ({ sub: 'alice', aud: 'fanwire', iss: 'https://issuer.example.com', ...more });

  check('every algorithm that has a key is taken', async () => {
    const tokens = {
      HS256: sign(claims(), HMAC.secret, 'HS256'),
      HS384: sign(claims(), HMAC.secret, 'HS384'),
      HS512: sign(claims(), HMAC.secret, 'HS512'),
      'HS256 with the previous secret': sign(claims(), HMAC.previous),
      RS256: signWithKey(claims(), 'RS256', rsa),
      RS384: signWithKey(claims(), 'RS384', rsa),
      RS512: signWithKey(claims(), 'RS512', rsa),
      ES256: signWithKey(claims(), 'ES256', p256),
      EdDSA: signWithKey(claims(), 'EdDSA', ed25519),
      'one audience of several': sign(claims({ aud: ['other', 'fanwire'] }), HMAC.secret),
      'an expiry': sign(claims({ exp: now() + 100 }), HMAC.secret),
    };
    for (const [name, token] of Object.entries(tokens)) {
      const reply = await connect(server, token);
      assert.ok(reply.connect?.client, `${name}: ${JSON.stringify(reply)}`);
    }
  });

  check('a wrong token closes with 3500 and its reason', async () => {
    const fine = sign(claims(), HMAC.secret);
    const [head, body, signature] = fine.split('.');
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const tokens = {
      'no token at all': 'hello',
      'two parts': `${head}.${body}`,
      'four parts': `${fine}.x`,
      'not base64': `${head}.!!!.${signature}`,
      'changed claims': `${head}.${part(claims({ sub: 'mallory' }))}.${signature}`,
      'cut signature': fine.slice(0, -5),
      'no signature': `${head}.${body}.`,
      'algorithm none': `${part({ alg: 'none', typ: 'JWT' })}.${body}.`,
      'algorithm None': `${part({ alg: 'None', typ: 'JWT' })}.${body}.`,
      'unknown algorithm': `${part({ alg: 'XX256', typ: 'JWT' })}.${body}.${signature}`,
      'wrong secret': sign(claims(), 'wrong'),
      'key of a stranger': signWithKey(claims(), 'RS256', stranger),
      'public key used as a secret': sign(claims(), pem(rsa)),
      'wrong audience': sign(claims({ aud: 'other' }), HMAC.secret),
      'no audience': sign(claims({ aud: undefined }), HMAC.secret),
      'wrong issuer': sign(claims({ iss: 'other' }), HMAC.secret),
      'claims of wrong types': sign(claims({ sub: { not: 'text' } }), HMAC.secret),
      'claims that are no object': sign(['alice'], HMAC.secret),
      'a subscription token': sign(claims({ channel: 'open:x' }), HMAC.secret),
      'a megabyte would not fit, sixty kilobytes do': 'x'.repeat(60_000),
    };
    for (const [name, token] of Object.entries(tokens)) {
      const reply = await connect(server, token);
      assert.deepEqual(reply, { close: 3500, reason: 'invalid token' }, name);
    }
  });

  check('a token outside its time is answered with error 109', async () => {
    for (const [name, token] of Object.entries({
      expired: sign(claims({ exp: now() - 10 }), HMAC.secret),
      'not valid yet': sign(claims({ nbf: now() + 100 }), HMAC.secret),
    })) {
      const reply = await connect(server, token);
      assert.equal(reply.error?.code, 109, `${name}: ${JSON.stringify(reply)}`);
      assert.equal(reply.error.message, 'token expired');
    }
  });

  check('expire_at decides when the connection ends, whatever exp says', async () => {
    const of = async (more) => (await connect(server, sign(claims(more), HMAC.secret))).connect;
    const never = await of({ exp: now() + 100, expire_at: 0 });
    assert.deepEqual([never.expires, never.ttl], [undefined, undefined]);
    const later = await of({ exp: now() + 100, expire_at: now() + 1000 });
    assert.equal(later.expires, true);
    assert.ok(later.ttl > 900 && later.ttl <= 1000);
    const year = await of({ exp: now() + 100 * 365 * 86400 });
    assert.ok(year.ttl <= 366 * 86400);
  });

  check('refresh takes a new token and refuses every other', async () => {
    const first = sign(claims({ exp: now() + 100 }), HMAC.secret);
    const refreshed = (more, secret = HMAC.secret) => connect(server, first, sign(claims(more), secret));
    const fine = await refreshed({ exp: now() + 500 });
    assert.equal(fine.refresh.expires, true);
    assert.ok(fine.refresh.ttl > 400 && fine.refresh.ttl <= 500);
    assert.deepEqual((await refreshed({})).refresh, {});
    assert.equal((await refreshed({ exp: now() - 10 })).close, 3005);
    assert.equal((await refreshed({ sub: 'bob', exp: now() + 500 })).close, 3500);
    assert.equal((await refreshed({ exp: now() + 500 }, 'wrong')).close, 3500);
    assert.equal((await refreshed({ exp: now() + 500, channels: ['open:x'] })).close, 3010);
  });
});
