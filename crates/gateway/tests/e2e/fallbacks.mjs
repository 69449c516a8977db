// npm `centrifuge` where WebSocket is not to be had: what its users do in quick succession works on each transport, and
// its own list of transports finds the one that opens.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Clients, fresh, numbers, publishNumbers, receivedCount, variants } from './centrifuge.mjs';
import { Front, refuse } from './chat/front.mjs';
import { Proxy, Server, next, now, told, until } from './harness.mjs';

const SETTINGS = { client: { rpc_ping: { enabled: true, method: 'ping' } } };

/** The time in milliseconds that a command waits for an earlier one that came another way. */
const WAIT_FOR_EARLIER = 100;

/** Nodes of cluster/fallbacks.py, behind a proxy. */
const NODES = process.env.NODES && JSON.parse(process.env.NODES);

for (const [transport, encoding] of variants) {
  describe(`in quick succession: ${transport}, ${encoding}`, () => {
    let server;
    let clients;
    before(async () => {
      server = NODES ? Server.running(NODES) : await Server.start(SETTINGS);
      clients = new Clients(encoding, server, transport);
    });
    afterEach(() => clients.closeAll());
    after(() => server.stop());
    const check = (name, body) => test(name, told(() => server, body));
    const present = async (channel) => Object.keys((await server.api('presence', { channel })).presence);

    check('connects and disconnects leave one session, then none', async () => {
      const channel = fresh('open');
      const client = clients.make('alice');
      const { subscription } = clients.subscription(client, channel);
      subscription.subscribe();
      for (const _ of numbers(1, 10)) {
        const connected = next(client, 'connected');
        client.connect();
        const { client: id, transport: used } = await connected;
        assert.equal(used, transport);
        await subscription.ready();
        await until(async () => (await present(channel)).length === 1, 'nobody but the client is present');
        assert.deepEqual(await present(channel), [id]);
        client.disconnect();
      }
      await until(async () => (await present(channel)).length === 0, 'the client is gone');
    });

    check('ten bursts of subscribe and unsubscribe: present once, then not at all', async () => {
      const channel = fresh('open');
      const client = await clients.connected('alice');
      const seen = clients.subscription(client, channel);
      for (const round of numbers(1, 10)) {
        for (const _ of numbers(1, 10)) {
          seen.subscription.subscribe();
          seen.subscription.unsubscribe();
        }
        seen.subscription.subscribe();
        await seen.subscription.ready();
        assert.deepEqual(await present(channel), [client.id], `round ${round}`);
        for (const _ of numbers(1, 10)) {
          seen.subscription.unsubscribe();
          seen.subscription.subscribe();
        }
        seen.subscription.unsubscribe();
        await until(async () => (await present(channel)).length === 0, `the client is gone, round ${round}`);
      }
      assert.equal(client.state, 'connected');
    });

    check('calls that are made before the connection is there are answered', async () => {
      const channel = fresh('open');
      const client = clients.make('alice');
      const seen = clients.subscription(client, channel);
      client.connect();
      seen.subscription.subscribe();
      await Promise.all([
        client.rpc('ping', clients.pack({})),
        seen.subscription.publish(clients.pack('first')),
        seen.subscription.presence().then(({ clients: found }) => assert.equal(Object.keys(found).length, 1)),
      ]);
      await receivedCount(seen, 1);
      assert.deepEqual(seen.data, ['first']);
    });

    check('a hundred subscriptions in one message are made, those with tokens too', async () => {
      const client = clients.make('alice');
      const all = numbers(1, 50).flatMap(() => [fresh('open'), fresh('token')]);
      const everything = all.map((channel) => {
        const token = server.subscriptionToken('alice', channel);
        const seen = clients.subscription(client, channel, channel.startsWith('token') ? { token } : {});
        seen.subscription.subscribe();
        return seen;
      });
      client.connect();
      await Promise.all(everything.map(({ subscription }) => subscription.ready()));
      for (const channel of all) await server.publish(channel, channel);
      for (const seen of everything) await receivedCount(seen, 1);
      assert.deepEqual(everything.map(({ data }) => data), all.map((channel) => [channel]));
    });

    check('tokens that run out are replaced, and nothing is interrupted', async () => {
      const channel = fresh('token');
      let asked = 0;
      const exp = () => now() + 2;
      const client = await clients.connected('alice', {
        claims: { exp: exp() },
        getToken: async () => {
          asked += 1;
          return server.token('alice', { exp: exp() });
        },
      });
      const seen = await clients.subscribed(client, channel, {
        getToken: async () => server.subscriptionToken('alice', channel, { exp: exp() }),
      });
      const lost = [];
      for (const event of ['connecting', 'disconnected']) client.on(event, (context) => lost.push(context));
      seen.subscription.on('subscribing', (context) => lost.push(context));
      await until(() => asked >= 3, 'the token is asked for three times');
      await server.publish(channel, 1);
      await receivedCount(seen, 1);
      assert.deepEqual(lost, []);
    });

    check('commands that are sent at once keep their order', async () => {
      const channel = fresh('open');
      const [alice, bob] = [await clients.connected('alice'), await clients.connected('bob')];
      const seen = await clients.subscribed(bob, channel);
      const own = await clients.subscribed(alice, channel);
      const [rounds, inFlight] = NODES ? [50, 8] : [10, 40];
      const took = [];
      for (const round of numbers(1, rounds)) {
        const first = (round - 1) * inFlight + 1;
        const began = performance.now();
        const sent = numbers(first, round * inFlight).map((number) => own.subscription.publish(clients.pack(number)));
        await Promise.all(sent);
        took.push(performance.now() - began);
      }
      await receivedCount(seen, rounds * inFlight);
      // Only where each command takes a way of its own can one be so late that the others are served without it.
      const isOrdered = (time) => !NODES || transport === 'websocket' || time < WAIT_FOR_EARLIER;
      assert.ok(took.some(isOrdered), `no round took less than ${WAIT_FOR_EARLIER} ms: ${took}`);
      for (const [index, time] of took.entries()) {
        const received = seen.data.slice(index * inFlight, (index + 1) * inFlight);
        if (!isOrdered(time)) received.sort((one, other) => one - other);
        assert.deepEqual(received, numbers(index * inFlight + 1, (index + 1) * inFlight));
      }
    });

    check('a device that goes offline comes back complete once it is online', async () => {
      const channel = fresh('open');
      const network = new EventTarget();
      const client = await clients.connected('alice', { networkEventTarget: network, minReconnectDelay: 10_000 });
      const seen = await clients.subscribed(client, channel);
      for (const round of numbers(1, 3)) {
        const connecting = next(client, 'connecting');
        network.dispatchEvent(new Event('offline'));
        await connecting;
        await until(async () => (await present(channel)).length === 0, 'the client is gone');
        await publishNumbers(server, channel, (round - 1) * 20 + 1, round * 20);
        const subscribed = next(seen.subscription, 'subscribed');
        network.dispatchEvent(new Event('online'));
        assert.equal((await subscribed).recovered, true);
        await receivedCount(seen, round * 20);
      }
      assert.deepEqual(seen.data, numbers(1, 60));
    });
  });
}

const LIST = ['websocket', 'http_stream', 'sse'];
// Where there are nodes, the proxy in front of them decides what opens: cluster/everywhere.py has that.
for (const encoding of NODES ? [] : ['json', 'protobuf']) {
  describe(`the list of transports, ${encoding}`, () => {
    let server;
    let proxy;
    let front;
    let clients;
    before(async () => {
      server = await Server.start(SETTINGS);
      proxy = await Proxy.start(server.port);
      front = await Front.start(proxy.port);
      clients = new Clients(encoding, server, LIST);
    });
    afterEach(() => {
      clients.closeAll();
      proxy.mend();
    });
    after(async () => {
      front?.stop();
      proxy?.stop();
      await server?.stop();
    });

    // The package speaks no Protobuf over SSE, and does not get there in that encoding.
    const found = encoding === 'json' ? LIST : LIST.slice(0, 2);
    for (const [index, expected] of found.entries()) {
      const blocked = LIST.slice(0, index);
      const name = blocked.length ? `${expected} opens without ${blocked.join(' and ')}` : `${expected} opens first`;
      test(name, told(() => server, async () => {
        front.answers = Object.fromEntries(blocked.map((transport) => [`/connection/${transport}`, refuse]));
        const channel = fresh('open');
        // The front lets no WebSocket through.
        const client = clients.make('alice', { port: blocked.length ? front.port : proxy.port });
        const connected = next(client, 'connected');
        client.connect();
        assert.equal((await connected).transport, expected);
        const seen = await clients.subscribed(client, channel);
        await client.rpc('ping', clients.pack({}));
        await seen.subscription.publish(clients.pack(1));
        await publishNumbers(server, channel, 2, 100);
        await receivedCount(seen, 100);
        assert.deepEqual(seen.data, numbers(1, 100));
        // It stays on this transport, and misses nothing.
        const connecting = next(client, 'connecting');
        proxy.cut();
        await connecting;
        proxy.mend();
        await publishNumbers(server, channel, 101, 200);
        await receivedCount(seen, 200);
        assert.deepEqual(seen.data, numbers(1, 200));
        assert.equal((await seen.subscription.presenceStats()).numClients, 1);
      }));
    }
  });
}
