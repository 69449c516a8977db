// The status of users on three nodes: npm `centrifuge` watches, tabs are closed, a node is killed, and a curl stands for
// a phone in a pocket.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { fresh } from './centrifuge.mjs';
import { Server, freePort, next, told, until } from './harness.mjs';

const LEASE = 3;
const BEAT = 3;

/** As in a browser. */
class Client extends Centrifuge {
  constructor(address, options) {
    super(address, { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 200, ...options });
  }
}

/** Redis, until this process ends. */
async function startRedis() {
  const port = await freePort();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-redis-'));
  const server = ['redis-server', '--bind', '127.0.0.1', '--port', `${port}`, '--dir', folder, '--save', ''];
  const redis = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...server], { stdio: 'ignore' });
  await until(async () => {
    const socket = net.connect(port, '127.0.0.1');
    const isOpen = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'close')]).catch(() => false);
    socket.destroy();
    return isOpen === true;
  }, 'redis-server answers');
  return { address: `127.0.0.1:${port}`, stop: () => redis.kill('SIGKILL') };
}

describe('the status of users', () => {
  let redis, nodes;
  const open = [];

  before(async () => {
    redis = await startRedis();
    const settings = {
      engine: { type: 'redis', redis: { address: redis.address, lease: `${LEASE}s`, answer_timeout: '1s' } },
      events: { offline_delay: '0s' },
      status: { heartbeat_ttl: `${BEAT}s` },
      topics: { namespaces: [{ name: 'online', status: true, allow_subscribe_for_client: true }] },
    };
    nodes = [];
    for (const name of ['a', 'b', 'c']) nodes.push(await Server.start({ ...settings, server: { name } }));
  });

  after(async () => {
    for (const node of nodes) await node.stop();
    redis.stop();
  });

  afterEach(() => open.splice(0).forEach((client) => client.disconnect()));

  const check = (name, body) => test(name, told(() => nodes[0], body));

  async function connected(node, user) {
    const client = new Client(node.websocket, { token: node.token(user) });
    open.push(client);
    const connecting = next(client, 'connected');
    client.connect();
    await connecting;
    return client;
  }

  /** Watches a user, and collects what is told of it, each with the time at which it came. */
  async function watch(client, user) {
    const subscription = client.newSubscription(`online:${user}`);
    const seen = { told: [], at: [] };
    subscription.on('publication', ({ data }) => {
      assert.equal(data.user, user);
      seen.told.push(data.online);
      seen.at.push(Date.now());
      seen.lastSeen = data.last_seen;
    });
    const subscribed = next(subscription, 'subscribed');
    subscription.subscribe();
    seen.data = (await subscribed).data;
    await until(() => seen.told.length > 0, 'the present status is told');
    return seen;
  }

  const status = async (node, ...users) => (await node.api('user_status', { users })).users;

  const hasTold = (seen, expected, deadline) =>
    until(() => seen.told.length >= expected.length, `${expected} is told`, deadline).then(() =>
      assert.deepEqual(seen.told, expected),
    );

  check('a friend is offline once its last tab is closed, on whichever node', async () => {
    const ann = fresh('ann');
    const seen = await watch(await connected(nodes[0], 'bob'), ann);
    assert.deepEqual(seen.data, { user: ann, online: false });
    const tabs = [await connected(nodes[1], ann), await connected(nodes[2], ann)];
    await hasTold(seen, [false, true]);
    await until(async () => (await status(nodes[0], ann))[ann].connections === 2, 'both tabs are counted');
    tabs[0].disconnect();
    await until(async () => (await status(nodes[0], ann))[ann].connections === 1, 'the tab is closed');
    assert.deepEqual(seen.told, [false, true]);
    const closed = Date.now();
    tabs[1].disconnect();
    await hasTold(seen, [false, true, false]);
    assert.ok(Math.abs(seen.lastSeen - closed) < 5000, `${seen.lastSeen} ${closed}`);
    const { online, connections, last_seen } = (await status(nodes[2], ann))[ann];
    assert.deepEqual([online, connections, last_seen], [false, 0, seen.lastSeen]);
    await connected(nodes[0], ann);
    await hasTold(seen, [false, true, false, true]);
  });

  check('the users of a killed node are offline within its lease and a second', async () => {
    const [gone, stays] = [fresh('gone'), fresh('stays')];
    const watcher = await connected(nodes[0], 'bob');
    const raw = [];
    for (const [node, user] of [[nodes[2], gone], [nodes[2], stays], [nodes[1], stays]]) {
      // It does not come back.
      raw.push(await rawClient(node, user));
    }
    const seen = [await watch(watcher, gone), await watch(watcher, stays)];
    await until(async () => (await status(nodes[0], stays))[stays].connections === 2, 'all are counted');
    const killed = Date.now();
    await nodes[2].stop('SIGKILL');
    await hasTold(seen[0], [true, false], (LEASE + 1) * 1000 + 500);
    const took = seen[0].at[1] - killed;
    console.log(`offline ${took} ms after the kill, with a lease of ${LEASE} s`);
    assert.ok(took <= (LEASE + 1) * 1000, `${took} ms`);
    assert.ok(seen[0].lastSeen <= killed + 1000, 'it was last seen while its node lived');
    await until(async () => (await status(nodes[1], stays))[stays].connections === 1, 'the other tab is left');
    assert.deepEqual(seen[1].told, [true]);
    await nodes[2].launch();
    raw.forEach((socket) => socket.close());
  });

  check('a heartbeat by curl keeps a user online', async () => {
    const ann = fresh('ann');
    const seen = await watch(await connected(nodes[1], 'bob'), ann);
    const curl = promisify(execFile);
    const beat = async (...more) => {
      const report = ['-s', '-o', '/dev/null', '-w', '%{http_code}', '-X', 'POST'];
      return (await curl('curl', [...report, ...more])).stdout;
    };
    const bearer = ['-H', `Authorization: Bearer ${nodes[0].token(ann)}`];
    assert.equal(await beat(...bearer, `${nodes[0].http}/heartbeat`), '204');
    await hasTold(seen, [false, true]);
    assert.equal(await beat(`${nodes[2].http}/heartbeat?token=${nodes[0].token(ann)}`), '204');
    const last = Date.now();
    assert.deepEqual((await status(nodes[0], ann))[ann].connections, 0);
    await hasTold(seen, [false, true, false]);
    assert.ok(seen.at[2] - last >= BEAT * 1000 - 200, `${seen.at[2] - last} ms`);
    assert.equal(await beat(`${nodes[0].http}/heartbeat`), '401');
  });

  check('a backend asks for a thousand users at once', async () => {
    const users = Array.from({ length: 1000 }, () => fresh('user'));
    await connected(nodes[0], users[17]);
    await connected(nodes[1], users[999]);
    await until(async () => {
      const all = await status(nodes[2], ...users);
      assert.equal(Object.keys(all).length, 1000);
      const online = Object.entries(all).filter(([, { online }]) => online);
      return online.map(([user]) => user).sort().join() === [users[17], users[999]].sort().join();
    }, 'the two are online');
    const asked = Date.now();
    await status(nodes[2], ...users);
    console.log(`1,000 users in ${Date.now() - asked} ms`);
    await assert.rejects(status(nodes[2], ...users, 'one more'), { code: 107 });
  });

  check('clients without a library are told too', async () => {
    const ann = fresh('ann');
    const stream = await fetch(`${nodes[0].http}/subscribe?topic=online:${ann}&as=sse&token=${nodes[0].token('bob')}`);
    assert.equal(stream.status, 200);
    let text = '';
    const read = (async () => {
      for await (const chunk of stream.body) text += Buffer.from(chunk).toString();
    })().catch(() => {});
    const data = () => [...text.matchAll(/^data: (.*"online".*)$/gm)].map(([, line]) => JSON.parse(line).data);
    await until(() => data().length === 1, 'the present status is told');
    assert.deepEqual(data(), [{ user: ann, online: false }]);
    const tab = await connected(nodes[1], ann);
    await until(() => data().length === 2, 'the change is told');
    tab.disconnect();
    await until(() => data().length === 3, 'the other is told');
    assert.deepEqual(data().map(({ online }) => online), [false, true, false]);
    await nodes[0].api('disconnect', { user: 'bob' });
    await read;
  });

  check('the example of the documentation runs', async () => {
    const page = fs.readFileSync(new URL('../../../../docs/status.md', import.meta.url), 'utf8');
    const [, program] = page.match(/```js\n([^]*?)```/);
    const ann = fresh('ann');
    const lines = [];
    const run = new Function('Centrifuge', 'URL_OF_FANWIRE', 'TOKEN', 'FRIENDS', 'show', `${program}\nreturn client;`);
    open.push(run(Client, nodes[0].websocket, nodes[0].token('bob'), [ann], (line) => lines.push(line)));
    await until(() => lines.length === 1, 'a line is shown');
    const tab = await connected(nodes[1], ann);
    await until(() => lines.length === 2, 'another is shown');
    tab.disconnect();
    await until(() => lines.length === 3, 'the last is shown');
    assert.deepEqual(lines.slice(0, 2), [`${ann} has not been here`, `${ann} is online`]);
    assert.match(lines[2], new RegExp(`^${ann} was here at `));
  });

  /** A client that does not come back. */
  async function rawClient(node, user) {
    const socket = new WebSocket(node.websocket);
    await new Promise((resolve) => socket.addEventListener('open', resolve, { once: true }));
    const answered = new Promise((resolve) => socket.addEventListener('message', resolve, { once: true }));
    socket.send(JSON.stringify({ id: 1, connect: { token: node.token(user) } }));
    assert.ok(JSON.parse((await answered).data).connect);
    return socket;
  }
});
