// npm `centrifuge` on each of its transports, when connections are lost: cut by the network, gone silent, closed by a
// server that restarts. What was missed arrives in order and once, or the client is told that it cannot.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Clients, fresh, numbers, publishNumbers, receivedCount, variants } from './centrifuge.mjs';
import { Proxy, Server, next, told, until } from './harness.mjs';

for (const [transport, encoding] of variants) {
  describe(`centrifuge-js loses its connection, ${transport}, ${encoding}`, () => {
    let server;
    let proxy;
    let clients;
    before(async () => {
      server = await Server.start();
      clients = new Clients(encoding, server, transport);
      proxy = await Proxy.start(server.port);
    });
    afterEach(() => {
      clients.closeAll();
      proxy.mend();
    });
    after(async () => {
      proxy.stop();
      await server.stop();
    });
    const check = (name, body) => test(name, told(() => server, body));

    check('what was published meanwhile arrives in order and once', async () => {
      const channel = fresh('open');
      const client = await clients.connected('alice', { port: proxy.port });
      const seen = await clients.subscribed(client, channel);
      await publishNumbers(server, channel, 1, 10);
      await receivedCount(seen, 10);
      const connecting = next(client, 'connecting');
      proxy.cut();
      await connecting;
      await publishNumbers(server, channel, 11, 210);
      const resubscribed = next(seen.subscription, 'subscribed');
      proxy.mend();
      const context = await resubscribed;
      await receivedCount(seen, 210);
      await publishNumbers(server, channel, 211, 220);
      await receivedCount(seen, 220);
      assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
      assert.deepEqual(seen.data, numbers(1, 220));
      assert.deepEqual(seen.offsets, numbers(1, 220));
    });

    check('twenty clients are cut ten times under traffic and miss nothing', async () => {
      const channel = fresh('open');
      const everyone = [];
      for (const index of numbers(1, 20)) {
        const client = await clients.connected(`user${index}`, { port: proxy.port });
        everyone.push(await clients.subscribed(client, channel));
      }
      let published = 0;
      let cutting = true;
      const traffic = (async () => {
        while (cutting) {
          await server.publish(channel, published + 1);
          published += 1;
        }
      })();
      for (const _ of numbers(1, 10)) {
        const before = published;
        await until(() => published >= before + 20, 'traffic flows');
        proxy.cut();
        await until(() => published >= before + 40, 'traffic flows');
        proxy.mend();
        const back = () => everyone.every(({ subscription }) => subscription.state === 'subscribed');
        await until(back, 'everybody is back');
      }
      cutting = false;
      await traffic;
      for (const seen of everyone) {
        await receivedCount(seen, published);
        assert.deepEqual(seen.data, numbers(1, published));
        assert.ok(seen.subscribed.slice(1).every(({ recovered }) => recovered), 'every recovery is complete');
      }
    });

    check('subscriptions of the token recover too', async () => {
      const channel = fresh('open');
      const client = clients.make('alice', { port: proxy.port, claims: { channels: [channel] } });
      const data = [];
      const subscribed = [];
      client.on('publication', (publication) => data.push(clients.unpack(publication.data)));
      client.on('subscribed', (context) => subscribed.push(context));
      client.connect();
      await until(() => subscribed.length === 1, 'the subscription is told');
      await publishNumbers(server, channel, 1, 5);
      await until(() => data.length === 5, 'publications arrive');
      const connecting = next(client, 'connecting');
      proxy.cut();
      await connecting;
      await publishNumbers(server, channel, 6, 50);
      proxy.mend();
      await until(() => data.length >= 50, 'what was missed arrives');
      assert.deepEqual(data, numbers(1, 50));
      assert.deepEqual([subscribed[1].wasRecovering, subscribed[1].recovered], [true, true]);
    });

    check('a client that missed more than history keeps is told so', async () => {
      const channel = fresh('short');
      const client = await clients.connected('alice', { port: proxy.port });
      const seen = await clients.subscribed(client, channel);
      await publishNumbers(server, channel, 1, 3);
      await receivedCount(seen, 3);
      const connecting = next(client, 'connecting');
      proxy.cut();
      await connecting;
      await publishNumbers(server, channel, 4, 20);
      const resubscribed = next(seen.subscription, 'subscribed');
      proxy.mend();
      const context = await resubscribed;
      assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
      assert.equal(context.streamPosition.offset, 20);
      await server.publish(channel, 21);
      await receivedCount(seen, 4);
      assert.deepEqual(seen.data, [1, 2, 3, 21]);
    });

    check('a cache topic gives the newest publication to who comes back', async () => {
      const channel = fresh('cache');
      const client = await clients.connected('alice', { port: proxy.port });
      const seen = await clients.subscribed(client, channel);
      await server.publish(channel, 1);
      await receivedCount(seen, 1);
      const connecting = next(client, 'connecting');
      proxy.cut();
      await connecting;
      await publishNumbers(server, channel, 2, 20);
      const resubscribed = next(seen.subscription, 'subscribed');
      proxy.mend();
      assert.equal((await resubscribed).recovered, true);
      await receivedCount(seen, 2);
      assert.deepEqual(seen.data, [1, 20]);
    });

    check('a client that is cut leaves presence at once', async () => {
      const channel = fresh('open');
      const bob = await clients.subscribed(await clients.connected('bob'), channel);
      const alice = await clients.connected('alice', { port: proxy.port });
      await clients.subscribed(alice, channel);
      await until(() => bob.joins.length === 2, 'alice is there');
      proxy.cut();
      await until(() => bob.leaves.length === 1, 'alice left');
      assert.equal(bob.leaves[0].client, alice.id);
      assert.equal((await bob.subscription.presenceStats()).numClients, 1);
    });

    check('after a restart of the server new messages arrive and old positions are refused', async () => {
      const channel = fresh('open');
      const client = await clients.connected('alice');
      const seen = await clients.subscribed(client, channel);
      await publishNumbers(server, channel, 1, 10);
      await receivedCount(seen, 10);
      const connecting = next(client, 'connecting');
      await server.restart();
      const { code, reason } = await connecting;
      assert.deepEqual([code, reason], [3001, 'shutdown']);
      // The memory engine starts anew, under another epoch. A client may have come back to the old process
      // once more while that was leaving.
      const epoch = () => seen.subscribed.at(-1).streamPosition.epoch;
      await until(() => epoch() !== seen.subscribed[0].streamPosition.epoch, 'the client is back', 60_000);
      const context = seen.subscribed.at(-1);
      assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
      await publishNumbers(server, channel, 11, 20);
      await receivedCount(seen, 20);
      assert.deepEqual(seen.data, numbers(1, 20));
    });

    check('after the server was killed clients come back by themselves', async () => {
      const channel = fresh('open');
      const everyone = [];
      for (const index of numbers(1, 10)) {
        everyone.push(await clients.subscribed(await clients.connected(`user${index}`), channel));
      }
      await server.restart('SIGKILL');
      const back = () => everyone.every((seen) => seen.subscribed.length === 2);
      await until(back, 'everybody is back', 60_000);
      await server.publish(channel, 'new life');
      for (const seen of everyone) {
        await receivedCount(seen, 1);
        assert.deepEqual(seen.data, ['new life']);
      }
    });
  });

  test(`a connection gone silent is noticed on both sides, ${transport}, ${encoding}`, async (t) => {
    const server = await Server.start({ client: { ping_interval: '1s', pong_timeout: '900ms' } });
    const clients = new Clients(encoding, server, transport);
    const proxy = await Proxy.start(server.port);
    try {
      await told(() => server, async () => {
        const channel = fresh('open');
        const bob = await clients.subscribed(await clients.connected('bob'), channel);
        const client = await clients.connected('alice', { port: proxy.port, maxServerPingDelay: 1000 });
        const seen = await clients.subscribed(client, channel);
        await until(() => bob.joins.length === 2, 'alice is there');
        const connecting = next(client, 'connecting');
        proxy.freeze();
        // The server's side: at most one interval until the next ping, and the time to answer it.
        await until(() => bob.leaves.length === 1, 'the server gives alice up', 4_000);
        await publishNumbers(server, channel, 1, 5);
        const noPing = 2; // What centrifuge-js says when the server's pings stop.
        assert.equal((await connecting).code, noPing);
        await receivedCount(seen, 5);
        assert.deepEqual(seen.data, numbers(1, 5));
      })(t);
    } finally {
      clients.closeAll();
      proxy.stop();
      await server.stop();
    }
  });
}
