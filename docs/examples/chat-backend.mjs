// The backend of a chat: it decides who connects, who enters a room, and what is written there. docs/hooks.md explains it.
//
//   SIGNATURE_SECRET=5f0c8d1e7b3a49c2a6e4f1d09b8c7a35 node chat-backend.mjs
//
// It needs Node 18 and no packages. What it keeps in memory, an application keeps in its database.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import http from 'node:http';

const PORT = Number(process.env.PORT ?? 8100);
const SIGNATURE_SECRET = process.env.SIGNATURE_SECRET;
/** Credentials end after so many seconds, and are then asked about again. */
const LIFETIME = Number(process.env.LIFETIME ?? 60);
const SESSION_SECRET = process.env.SESSION_SECRET ?? randomBytes(32);

const users = new Map([
  ['ann', { password: 'ann-1', name: 'Ann', role: 'moderator' }],
  ['bob', { password: 'bob-1', name: 'Bob', role: 'guest' }],
]);
const rooms = new Map([
  ['chat:lobby', new Set(['ann', 'bob'])],
  ['chat:staff', new Set(['ann'])],
]);
const signedOut = new Set();
const messages = [];
const typing = new Map();

const now = () => Math.floor(Date.now() / 1000);
const expiry = () => now() + LIFETIME;
const error = (code, message) => ({ error: { code, message } });
const hmac = (secret, text) => createHmac('sha256', secret).update(text).digest('hex');
const isSame = (given, expected) =>
  Buffer.byteLength(given) === expected.length && timingSafeEqual(Buffer.from(given), Buffer.from(expected));

/** The user of a session cookie, which is `sid=USER.SIGNATURE`. */
function userOf(cookie = '') {
  const [, user, signature] = /(?:^|; )sid=([^.;]+)\.([0-9a-f]+)/.exec(cookie) ?? [];
  return user && users.has(user) && !signedOut.has(user) && isSame(signature, hmac(SESSION_SECRET, user)) ? user : null;
}

/** True for a request that the gateway signed less than five minutes ago. */
function isSigned(header = '', body) {
  const fields = header.split(',').map((field) => field.split('='));
  const time = fields.find(([name]) => name === 't')?.[1] ?? '';
  const isRecent = Math.abs(now() - Number(time)) < 300;
  const expected = hmac(SIGNATURE_SECRET, Buffer.concat([Buffer.from(`${time}.`), body]));
  // There are two while the secret is replaced.
  return isRecent && fields.some(([name, value = '']) => name === 'v1' && isSame(value, expected));
}

const hooks = {
  connect(question, request) {
    const user = userOf(request.headers.cookie);
    // 4500 to 4999: the client does not come back by itself.
    if (!user) return { disconnect: { code: 4501, reason: 'sign in first' } };
    const { name, role } = users.get(user);
    const own = [...rooms].filter(([, members]) => members.has(user)).map(([room]) => room);
    const [info, data] = [{ name }, { rooms: own }];
    return { result: { user, expire_at: expiry(), info, data, channels: ['news:all'], meta: { role } } };
  },
  refresh: ({ user }) => ({ result: signedOut.has(user) ? { expired: true } : { expire_at: expiry() } }),
  subscribe({ user, channel }) {
    if (!rooms.get(channel)?.has(user)) return error(403, 'you are not in this room');
    const data = { count: messages.filter(({ room }) => room === channel).length };
    return { result: { expire_at: expiry(), data } };
  },
  sub_refresh({ user, channel }) {
    const isMember = rooms.get(channel)?.has(user);
    return { result: isMember ? { expire_at: expiry() } : { expired: true } };
  },
  publish({ user, channel, data, meta }) {
    if (!rooms.get(channel)?.has(user)) return error(403, 'you are not in this room');
    if (typeof data?.text !== 'string') return error(422, 'a message has a text');
    if (/buy now/i.test(data.text) && meta?.role !== 'moderator') return error(422, 'no advertising here');
    const message = { id: messages.length + 1, user, text: data.text.replaceAll(/damn/gi, '****') };
    messages.push({ room: channel, ...message });
    return { result: { data: message, tags: { kind: 'message' } } };
  },
  rpc({ user, method, data }) {
    switch (method) {
      case 'messages': {
        if (!rooms.get(data?.room)?.has(user)) return error(403, 'you are not in this room');
        return { result: { data: messages.filter(({ room }) => room === data.room) } };
      }
      case 'typing':
        return { result: { data: Object.fromEntries(typing) } };
      case 'leave':
        rooms.get(data?.room)?.delete(user);
        return { result: {} };
      default:
        return error(404, 'there is no such method');
    }
  },
  send({ user, data }) {
    if (data?.typing) typing.set(user, data.typing);
    return {};
  },
};

/** What the page of the chat calls. */
const pages = {
  login(_, { user, password }) {
    if (!users.has(user) || users.get(user).password !== password) return [401, {}];
    signedOut.delete(user);
    return [200, { 'set-cookie': `sid=${user}.${hmac(SESSION_SECRET, user)}; Path=/; HttpOnly; SameSite=Lax` }];
  },
  logout(request) {
    signedOut.add(userOf(request.headers.cookie));
    return [200, { 'set-cookie': 'sid=; Path=/; Max-Age=0' }];
  },
};

async function answer(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const [, kind, name] = request.url.split('/');
  if (request.method !== 'POST') return response.writeHead(405).end();
  if (kind === 'hooks' && Object.hasOwn(hooks, name)) {
    if (!isSigned(request.headers['fanwire-signature'], body)) return response.writeHead(403).end();
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify(hooks[name](JSON.parse(body), request)));
  }
  if (!Object.hasOwn(pages, kind)) return response.writeHead(404).end();
  const [status, headers] = pages[kind](request, body.length ? JSON.parse(body) : {});
  return response.writeHead(status, headers).end();
}

const server = http.createServer((request, response) => {
  answer(request, response).catch(({ message }) => {
    console.error(`${request.url}: ${message}`);
    response.writeHead(500).end();
  });
});
server.listen(PORT, '127.0.0.1', () => console.log(`http://127.0.0.1:${PORT}`));
