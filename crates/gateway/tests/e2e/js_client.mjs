// npm `centrifuge` on each of its transports, against the built binary: everything an application does on a
// connection that holds. Lost connections are in js_recovery.mjs.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Clients, fresh, numbers, publishNumbers, receivedCount, variants } from './centrifuge.mjs';
import { Server, next, now, sign, told, until } from './harness.mjs';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

for (const [transport, encoding] of variants) {
  describe(`centrifuge-js, ${transport}, ${encoding}`, () => {
    let server;
    let clients;
    before(async () => {
      server = await Server.start();
      clients = new Clients(encoding, server, transport);
    });
    afterEach(() => clients.closeAll());
    after(() => server.stop());
    const check = (name, body) => test(name, told(() => server, body));

    check('a connection has an id of its own', async () => {
      const [one, two] = [await clients.connected('alice'), await clients.connected('alice')];
      assert.match(one.id, UUID);
      assert.match(two.id, UUID);
      assert.notEqual(one.id, two.id);
    });

    check('a thousand publications arrive in order', async () => {
      const channel = fresh('open');
      const client = await clients.connected('alice');
      const seen = await clients.subscribed(client, channel);
      await publishNumbers(server, channel, 1, 1000);
      await receivedCount(seen, 1000);
      assert.deepEqual(seen.data, numbers(1, 1000));
      assert.deepEqual(seen.offsets, numbers(1, 1000));
    });

    check('publications of several clients arrive at all of them in one order', async () => {
      const channel = fresh('open');
      const everyone = [];
      for (const user of ['alice', 'bob', 'carol']) {
        const client = await clients.connected(user);
        everyone.push(await clients.subscribed(client, channel));
      }
      await Promise.all(
        everyone.map(async (own, index) => {
          for (const number of numbers(1, 100)) await own.subscription.publish(clients.pack([index, number]));
        }),
      );
      for (const seen of everyone) await receivedCount(seen, 300);
      assert.deepEqual(everyone[1].data, everyone[0].data);
      assert.deepEqual(everyone[2].data, everyone[0].data);
      for (const index of [0, 1, 2]) {
        const own = everyone[0].data.filter(([from]) => from === index).map(([, number]) => number);
        assert.deepEqual(own, numbers(1, 100), `publications of client ${index}`);
      }
    });

    check('without echo the other tab gets what one publishes, and it itself only in another life', async () => {
      const channel = fresh('unechoed');
      const [here, there] = [await clients.connected('alice'), await clients.connected('alice')];
      const [mine, other] = [await clients.subscribed(here, channel), await clients.subscribed(there, channel)];
      await mine.subscription.publish(clients.pack('mine'));
      await other.subscription.publish(clients.pack('yours'));
      await server.api('publish', { channel, data: 'to one', exclude: there.id });
      await receivedCount(mine, 2);
      await receivedCount(other, 1);
      // What is published last comes last, if anything else came at all.
      await server.api('publish', { channel, data: 'to all' });
      await receivedCount(mine, 3);
      await receivedCount(other, 2);
      assert.deepEqual(mine.data, ['yours', 'to one', 'to all']);
      assert.deepEqual(other.data, ['mine', 'to all']);
      assert.equal(other.publications[0].info.client, here.id);

      await mine.subscription.publish(clients.pack('mine again'));
      await receivedCount(other, 3);
      const disconnected = next(here, 'disconnected');
      here.disconnect();
      await disconnected;
      here.connect();
      await receivedCount(mine, 4);
      assert.deepEqual(mine.data.slice(3), ['mine again']);
    });

    check('values of every shape arrive as they were published', async () => {
      const channel = fresh('open');
      const client = await clients.connected('alice');
      const seen = await clients.subscribed(client, channel);
      const values = [
        { nested: { list: [1, 2.5, -3e10], empty: {}, none: null } },
        'text with "quotes", \\ and a\nnew line, ünïcödé, 日本語, \u0000 and 👋',
        0,
        false,
        [],
        9007199254740991,
      ];
      for (const value of values) await seen.subscription.publish(clients.pack(value));
      await receivedCount(seen, values.length);
      assert.deepEqual(seen.data, values);
    });

    check('a publication tells who published it, its tags and its offset', async () => {
      const channel = fresh('open');
      const client = await clients.connected('alice', { claims: { info: { name: 'Alice' } } });
      const seen = await clients.subscribed(client, channel);
      await seen.subscription.publish(clients.pack(1));
      await server.publish(channel, 2, { tags: { color: 'red' } });
      await receivedCount(seen, 2);
      const [fromClient, fromBackend] = seen.publications;
      assert.equal(fromClient.info.user, 'alice');
      assert.equal(fromClient.info.client, client.id);
      assert.deepEqual(clients.unpack(fromClient.info.connInfo), { name: 'Alice' });
      assert.equal(fromBackend.info, undefined);
      assert.deepEqual({ ...fromBackend.tags }, { color: 'red' });
      assert.deepEqual(seen.offsets, [1, 2]);
    });

    check('a filter brings the publications with its tags, also those that were missed', async () => {
      const channel = fresh('tagged');
      const publish = (data, tags) => server.publish(channel, data, { tags });
      const client = await clients.connected('alice');
      const tagsFilter = {
        op: 'or',
        nodes: [
          { key: 'kind', cmp: 'in', vals: ['goal', 'card'] },
          { op: 'not', nodes: [{ key: 'minute', cmp: 'lt', val: '90' }] },
        ],
      };
      const everything = await clients.subscribed(client, channel);
      const other = await clients.connected('bob');
      const seen = await clients.subscribed(other, channel, { tagsFilter });
      const twin = await clients.subscribed(await clients.connected('carol'), channel, { tagsFilter });
      await publish(1, { kind: 'goal', minute: '5' });
      await publish(2, { kind: 'pass', minute: '6' });
      await publish(3, { kind: 'pass', minute: '90.5' });
      await publish(4, { kind: 'card', minute: '7' });
      await receivedCount(seen, 3);
      await receivedCount(everything, 4);
      other.disconnect();
      await publish(5, { kind: 'pass', minute: '8' });
      await publish(6, { kind: 'goal', minute: '9' });
      await publish(7, { kind: 'pass', minute: '10' });
      const again = next(seen.subscription, 'subscribed');
      other.connect();
      assert.equal((await again).recovered, true);
      await publish(8, { kind: 'pass', minute: '11' });
      await publish(9, { kind: 'goal', minute: '12' });
      await receivedCount(seen, 5);
      await receivedCount(twin, 5);
      assert.deepEqual(seen.data, [1, 3, 4, 6, 9]);
      assert.deepEqual(twin.data, [1, 3, 4, 6, 9]);
      assert.deepEqual(seen.offsets, [1, 3, 4, 6, 9]);
    });

    check('a filter that cannot be, or where they are off, is refused', async () => {
      const client = await clients.connected('alice');
      for (const [channel, tagsFilter, reason] of [
        [fresh('tagged'), { key: 'kind', cmp: 'like', val: 'x' }, /tf: cmp is unknown/],
        [fresh('open'), { key: 'kind', cmp: 'eq', val: 'x' }, /allow_tags_filter/],
      ]) {
        const refused = await clients.refusedSubscription(client, channel, { tagsFilter });
        assert.equal(refused.code, 107);
        assert.match(refused.reason, reason);
      }
    });

    check('topics without history deliver without offsets', async () => {
      const channel = fresh('plain');
      const client = await clients.connected('alice');
      const seen = await clients.subscribed(client, channel);
      assert.equal(seen.context.recoverable, false);
      assert.deepEqual(await server.publish(channel, 1), {});
      await receivedCount(seen, 1);
      assert.ok(!seen.offsets[0]);
    });

    check('presence lists every client with its user', async () => {
      const channel = fresh('open');
      const tabs = [
        await clients.connected('alice', { claims: { info: { tab: 1 } } }),
        await clients.connected('alice'),
        await clients.connected('bob'),
      ];
      const seen = [];
      for (const tab of tabs) seen.push(await clients.subscribed(tab, channel));
      const { clients: present } = await seen[0].subscription.presence();
      assert.deepEqual(Object.keys(present).sort(), tabs.map((tab) => tab.id).sort());
      assert.equal(present[tabs[0].id].user, 'alice');
      assert.deepEqual(clients.unpack(present[tabs[0].id].connInfo), { tab: 1 });
      assert.equal(present[tabs[2].id].user, 'bob');
      assert.deepEqual({ ...(await seen[0].subscription.presenceStats()) }, { numClients: 3, numUsers: 2 });

      tabs[2].disconnect();
      await until(async () => (await seen[0].subscription.presenceStats()).numClients === 2, 'bob is gone');
    });

    check('joins and leaves are told, the own join too', async () => {
      const channel = fresh('open');
      const alice = await clients.connected('alice');
      const seen = await clients.subscribed(alice, channel);
      await until(() => seen.joins.length === 1, 'alice sees her own join');
      assert.equal(seen.joins[0].client, alice.id);

      const bob = await clients.connected('bob');
      const bobs = await clients.subscribed(bob, channel);
      await until(() => seen.joins.length === 2, 'alice sees bob come');
      assert.deepEqual([seen.joins[1].user, seen.joins[1].client], ['bob', bob.id]);
      bobs.subscription.unsubscribe();
      await until(() => seen.leaves.length === 1, 'alice sees bob leave');
      assert.equal(seen.leaves[0].client, bob.id);
    });

    check('history pages forwards, backwards and from a position', async () => {
      const channel = fresh('open');
      const client = await clients.connected('alice');
      const { subscription } = await clients.subscribed(client, channel);
      await publishNumbers(server, channel, 1, 10);
      const page = async (options) => {
        const { publications, offset, epoch } = await subscription.history(options);
        assert.equal(offset, 10);
        assert.ok(epoch);
        return publications.map((publication) => clients.unpack(publication.data));
      };
      const { epoch } = await subscription.history({ limit: 0 });
      assert.deepEqual(await page({ limit: 0 }), []);
      assert.deepEqual(await page({ limit: 3 }), [1, 2, 3]);
      assert.deepEqual(await page({ limit: -1 }), numbers(1, 10));
      assert.deepEqual(await page({ limit: 3, since: { offset: 4, epoch } }), [5, 6, 7]);
      assert.deepEqual(await page({ limit: 3, reverse: true }), [10, 9, 8]);
      assert.deepEqual(await page({ limit: 3, reverse: true, since: { offset: 4, epoch } }), [3, 2, 1]);
      assert.deepEqual(await page({ limit: 3, since: { offset: 10, epoch } }), []);
      const wrongEpoch = subscription.history({ limit: 1, since: { offset: 1, epoch: 'other' } });
      await assert.rejects(wrongEpoch, { code: 112 });
      const beforeTheFirst = subscription.history({ limit: 1, reverse: true, since: { offset: 0, epoch } });
      await assert.rejects(beforeTheFirst, { code: 107 });
    });

    check('what is off or not permitted says so', async () => {
      const client = await clients.connected('alice');
      const plain = fresh('plain');
      await clients.subscribed(client, plain);
      await assert.rejects(client.publish(plain, clients.pack(1)), { code: 103 });
      await assert.rejects(client.presence(plain), { code: 108 });
      await assert.rejects(client.presenceStats(plain), { code: 108 });
      await assert.rejects(client.history(plain, { limit: 1 }), { code: 108 });
      const quiet = fresh('quiet');
      await clients.subscribed(client, quiet);
      await assert.rejects(client.presence(quiet), { code: 103 });
      await assert.rejects(client.presenceStats(quiet), { code: 103 });
      await assert.rejects(client.history(quiet, { limit: 1 }), { code: 103 });
      await assert.rejects(client.publish('nowhere:x', clients.pack(1)), { code: 102 });
      await assert.rejects(client.publish('object:x', clients.pack([1])), { code: 107 });
      await client.publish('object:x', clients.pack({ fine: true }));
      await assert.rejects(client.rpc('anything', clients.pack({})), { code: 108 });
    });

    check('subscriptions are refused with the code that says why', async () => {
      const client = await clients.connected('alice');
      const code = async (channel, options) => (await clients.refusedSubscription(client, channel, options)).code;
      assert.equal(await code('nowhere:x'), 102);
      assert.equal(await code(fresh('token')), 103);
      assert.equal(await code('$open:x'), 103);
      assert.equal(await code('open:' + 'x'.repeat(300)), 107);
      assert.equal(await code('open:ünïcödé'), 107);
      assert.equal(await code('listed:dialog#bob,carol'), 103);
      assert.equal(await code('listed:nobody'), 103);
      const wrongKey = { token: sign({ sub: 'alice', channel: 'token:x' }, 'wrong') };
      assert.equal(await code('token:x', wrongKey), 103);
      await clients.subscribed(client, 'listed:dialog#alice,bob');
      assert.equal(client.state, 'connected');
    });

    check('a subscription token opens its topic, with info and data for it', async () => {
      const channel = fresh('token');
      const client = await clients.connected('alice');
      const claims = { info: { role: 'admin' }, data: { greeting: 'hello' } };
      const token = server.subscriptionToken('alice', channel, claims);
      const seen = await clients.subscribed(client, channel, { token });
      assert.deepEqual(clients.unpack(seen.context.data), { greeting: 'hello' });
      const { clients: present } = await seen.subscription.presence();
      assert.deepEqual(clients.unpack(present[client.id].chanInfo), { role: 'admin' });
    });

    check('a subscription token of another user or topic closes the connection with 3500', async () => {
      for (const token of [
        server.subscriptionToken('bob', 'token:x'),
        server.subscriptionToken('alice', 'token:y'),
      ]) {
        const client = await clients.connected('alice');
        const disconnected = next(client, 'disconnected');
        clients.subscription(client, 'token:x', { token }).subscription.subscribe();
        assert.equal((await disconnected).code, 3500);
      }
    });

    check('an expired subscription token is replaced by a new one', async () => {
      const channel = fresh('token');
      const client = await clients.connected('alice');
      let asked = 0;
      const getToken = async () => {
        asked += 1;
        return server.subscriptionToken('alice', channel);
      };
      const token = server.subscriptionToken('alice', channel, { exp: now() - 10 });
      await clients.subscribed(client, channel, { token, getToken });
      assert.equal(asked, 1);
    });

    check('an expired connection token is replaced by a new one', async () => {
      let asked = 0;
      const getToken = async () => {
        asked += 1;
        return server.token('alice');
      };
      await clients.connected('alice', { claims: { exp: now() - 10 }, getToken });
      assert.equal(asked, 1);
    });

    check('connections are refused for good with the code that says why', async () => {
      const code = async (token) => (await clients.refused('x', { token })).code;
      assert.equal(await code('not a token'), 3500);
      assert.equal(await code(sign({ sub: 'alice' }, 'wrong secret')), 3500);
      assert.equal(await code(server.subscriptionToken('alice', 'open:x')), 3500);
      assert.equal((await clients.refused(null)).code, 3501);
      // Expired, and nobody to ask for a new one: the client itself gives up, as unauthorized.
      assert.equal(await code(server.token('alice', { exp: now() - 10 })), 1);
      const unknown = server.token('alice', { channels: ['nowhere:x'] });
      assert.equal(await code(unknown), 102);
    });

    check('bursts of subscribe and unsubscribe end as the last word says', async () => {
      const channel = fresh('open');
      const client = await clients.connected('alice');
      const errors = [];
      client.on('error', (context) => errors.push(context));
      client.on('connecting', (context) => errors.push(context));
      const seen = clients.subscription(client, channel);
      seen.subscription.on('error', (context) => errors.push(context));
      for (const _ of numbers(1, 100)) {
        seen.subscription.subscribe();
        seen.subscription.unsubscribe();
      }
      seen.subscription.subscribe();
      await seen.subscription.ready();
      assert.deepEqual(Object.keys((await seen.subscription.presence()).clients), [client.id]);
      await seen.subscription.publish(clients.pack('after'));
      await receivedCount(seen, 1);
      assert.deepEqual(seen.data, ['after']);

      seen.subscription.subscribe();
      for (const _ of numbers(1, 100)) {
        seen.subscription.unsubscribe();
        seen.subscription.subscribe();
      }
      seen.subscription.unsubscribe();
      const gone = async () => (await server.api('presence', { channel })).presence;
      await until(async () => Object.keys(await gone()).length === 0, 'nobody is present');
      assert.deepEqual(errors, []);
    });

    check('bursts of connect and disconnect leave nothing behind', async () => {
      const channel = fresh('open');
      const client = clients.make('alice');
      const seen = clients.subscription(client, channel);
      seen.subscription.subscribe();
      for (const _ of numbers(1, 30)) {
        client.connect();
        client.disconnect();
      }
      client.connect();
      await seen.subscription.ready(10_000);
      const present = async () => Object.keys((await server.api('presence', { channel })).presence).length;
      await until(async () => (await present()) === 1, 'only the last connection is present');
    });

    check('more subscriptions than a client may have are refused with 106', async () => {
      const client = await clients.connected('alice');
      const channels = numbers(1, 128).map(() => fresh('plain'));
      await Promise.all(channels.map((channel) => clients.subscribed(client, channel)));
      assert.equal((await clients.refusedSubscription(client, fresh('plain'))).code, 106);
    });

    check('wishes of a client are granted where the namespace allows them', async () => {
      const channel = fresh('wish');
      const alice = await clients.connected('alice');
      const wishes = { positioned: true, recoverable: true, joinLeave: true };
      const seen = await clients.subscribed(alice, channel, wishes);
      assert.equal(seen.context.positioned, true);
      assert.equal(seen.context.recoverable, true);
      assert.ok(seen.context.streamPosition.epoch);
      const bob = await clients.connected('bob');
      const bobs = await clients.subscribed(bob, channel);
      assert.equal(bobs.context.positioned, false);
      assert.equal(bobs.context.recoverable, false);
      await until(() => seen.joins.some((info) => info.client === bob.id), 'alice sees bob join');
      bobs.subscription.unsubscribe();
      await until(() => seen.leaves.some((info) => info.client === bob.id), 'alice sees bob leave');
      assert.deepEqual([bobs.joins, bobs.leaves], [[], []]);
    });

    check('cache topics greet with the newest publication only', async () => {
      const channel = fresh('cache');
      await publishNumbers(server, channel, 1, 5);
      const client = await clients.connected('alice');
      const seen = await clients.subscribed(client, channel);
      await receivedCount(seen, 1);
      assert.equal(seen.context.recovered, true);
      await server.publish(channel, 6);
      await receivedCount(seen, 2);
      assert.deepEqual(seen.data, [5, 6]);
    });

    check('a first subscribe recovers from a position that the application knows', async () => {
      const channel = fresh('open');
      await publishNumbers(server, channel, 1, 5);
      const { offset, epoch } = await server.api('history', { channel });
      assert.equal(offset, 5);
      const client = await clients.connected('alice');
      const seen = await clients.subscribed(client, channel, { since: { offset: 2, epoch } });
      await receivedCount(seen, 3);
      assert.deepEqual(seen.data, [3, 4, 5]);
      assert.deepEqual([seen.context.wasRecovering, seen.context.recovered], [true, true]);

      const other = await clients.connected('bob');
      const lost = await clients.subscribed(other, channel, { since: { offset: 2, epoch: 'other' } });
      assert.deepEqual([lost.context.wasRecovering, lost.context.recovered], [true, false]);
      assert.deepEqual({ ...lost.context.streamPosition }, { offset: 5, epoch });
      assert.deepEqual(lost.data, []);
    });

    check('the token subscribes its user to topics', async () => {
      const [first, second] = [fresh('open'), fresh('token')];
      const claims = { channels: [first], subs: { [second]: { data: { from: 'token' }, info: { role: 'reader' } } } };
      const client = clients.make('alice', { claims });
      const seen = { subscribed: {}, publications: [] };
      client.on('subscribed', (context) => (seen.subscribed[context.channel] = context));
      client.on('publication', ({ channel, data }) => seen.publications.push([channel, clients.unpack(data)]));
      const connected = next(client, 'connected');
      client.connect();
      const { client: id } = await connected;
      await until(() => Object.keys(seen.subscribed).length === 2, 'both subscriptions are told');
      assert.equal(seen.subscribed[first].recoverable, true);
      assert.deepEqual(clients.unpack(seen.subscribed[second].data), { from: 'token' });
      await server.publish(first, 1);
      await server.publish(second, 2);
      await until(() => seen.publications.length === 2, 'both publications arrive');
      assert.deepEqual(seen.publications.sort(), [[first, 1], [second, 2]].sort());
      const { presence } = await server.api('presence', { channel: second });
      assert.deepEqual(presence[id].chan_info, { role: 'reader' });
      // What the server subscribed, the client need not, and cannot twice.
      assert.equal((await clients.refusedSubscription(client, first)).code, 105);
    });

    check('the API subscribes and unsubscribes a user', async () => {
      const channel = fresh('open');
      const client = await clients.connected('api-user');
      const events = [];
      client.on('subscribed', ({ channel }) => events.push(['subscribed', channel]));
      client.on('publication', ({ channel, data }) => events.push(['publication', channel, clients.unpack(data)]));
      client.on('unsubscribed', ({ channel }) => events.push(['unsubscribed', channel]));
      await server.api('subscribe', { user: 'api-user', channel });
      await server.publish(channel, 'hello');
      await until(() => events.length === 2, 'the publication arrives');
      await server.api('unsubscribe', { user: 'api-user', channel });
      await until(() => events.length === 3, 'the end of the subscription is told');
      await server.publish(channel, 'nobody hears this');
      assert.deepEqual(events, [
        ['subscribed', channel],
        ['publication', channel, 'hello'],
        ['unsubscribed', channel],
      ]);
    });

    check('the API unsubscribes a client for good', async () => {
      const channel = fresh('open');
      const client = await clients.connected('unsubscribed-user');
      const { subscription } = await clients.subscribed(client, channel);
      const unsubscribed = next(subscription, 'unsubscribed');
      await server.api('unsubscribe', { user: 'unsubscribed-user', channel });
      const { code, reason } = await unsubscribed;
      assert.deepEqual([code, reason], [2000, 'server unsubscribe']);
      // And the same client may come again.
      const again = next(subscription, 'subscribed');
      subscription.subscribe();
      await again;
    });

    check('the API disconnects a user, for good or to come again', async () => {
      const [first, second] = [await clients.connected('leaver'), await clients.connected('leaver')];
      const gone = next(first, 'disconnected');
      await server.api('disconnect', { user: 'leaver', whitelist: [second.id] });
      const { code, reason } = await gone;
      assert.deepEqual([code, reason], [3503, 'force disconnect']);
      assert.equal(second.state, 'connected');

      const goneForGood = next(second, 'disconnected');
      await server.api('disconnect', { user: 'leaver', client: second.id, disconnect: { code: 4501, reason: 'banned' } });
      assert.deepEqual(((context) => [context.code, context.reason])(await goneForGood), [4501, 'banned']);

      const third = await clients.connected('leaver');
      const [connecting, connected] = [next(third, 'connecting'), next(third, 'connected')];
      await server.api('disconnect', { user: 'leaver', disconnect: { code: 4001, reason: 'move' } });
      assert.deepEqual(((context) => [context.code, context.reason])(await connecting), [4001, 'move']);
      await connected;
    });

    check('the API refreshes a connection, or lets it expire', async () => {
      let asked = 0;
      const getToken = async () => {
        asked += 1;
        return server.token('refreshed', { exp: now() + 3600 });
      };
      const client = await clients.connected('refreshed', { claims: { exp: now() + 3600 }, getToken });
      await server.api('refresh', { user: 'refreshed', expire_at: now() + 1800 });
      const [connecting, connected] = [next(client, 'connecting'), next(client, 'connected')];
      await server.api('refresh', { user: 'refreshed', expired: true });
      assert.equal((await connecting).code, 3005);
      await connected;
      assert.equal(asked, 0, 'the token itself is still good');
    });

    check('send has no one to take it: 3508', async () => {
      const client = await clients.connected('alice');
      const disconnected = next(client, 'disconnected');
      await client.send(clients.pack({ hello: true }));
      const { code, reason } = await disconnected;
      assert.deepEqual([code, reason], [3508, 'not available']);
    });

    const isEmulated = transport !== 'websocket';
    check('a message above the limit ends the connection, or is refused, and costs others nothing', async () => {
      const channel = fresh('open');
      const other = await clients.connected('bob');
      const others = await clients.subscribed(other, channel);
      const client = await clients.connected('alice', { timeout: 1_000 });
      const { subscription } = await clients.subscribed(client, channel);
      const published = subscription.publish(clients.pack('x'.repeat(70_000)));
      if (isEmulated) {
        const timeout = 1; // centrifuge-js waits for a reply, whatever the request's status was.
        await assert.rejects(published, { code: timeout });
        assert.equal(client.state, 'connected');
      } else {
        published.catch(() => {});
        const messageSizeLimit = 3; // What centrifuge-js makes of WebSocket's 1009.
        assert.equal((await next(client, 'disconnected')).code, messageSizeLimit);
      }
      await server.publish(channel, 'still here');
      await receivedCount(others, 1);
      assert.deepEqual(others.data, ['still here']);
    });
  });

  describe(`centrifuge-js, ${transport}, ${encoding}, with other settings`, () => {
    /** Runs `body` against a server of its own. */
    const with_ = (name, settings, body) =>
      test(name, async (t) => {
        const server = await Server.start(settings);
        const clients = new Clients(encoding, server, transport);
        try {
          await told(() => server, () => body(server, clients))(t);
        } finally {
          clients.closeAll();
          await server.stop();
        }
      });

    const quickExpiry = { client: { expired_close_delay: '1s', expired_subscription_close_delay: '1s' } };

    with_('a connection is refreshed before it expires, again and again', quickExpiry, async (server, clients) => {
      let asked = 0;
      const getToken = async () => {
        asked += 1;
        return server.token('alice', { exp: now() + 2 });
      };
      const client = await clients.connected('alice', { claims: { exp: now() + 2 }, getToken });
      const lost = [];
      client.on('connecting', (context) => lost.push(context));
      client.on('disconnected', (context) => lost.push(context));
      await until(() => asked >= 4, 'the token is asked for four times');
      assert.deepEqual(lost, []);
    });

    with_('a subscription is refreshed before it expires, again and again', quickExpiry, async (server, clients) => {
      const channel = fresh('token');
      let asked = 0;
      const getToken = async () => {
        asked += 1;
        return server.subscriptionToken('alice', channel, { exp: now() + 2 });
      };
      const client = await clients.connected('alice');
      const seen = await clients.subscribed(client, channel, { getToken });
      const lost = [];
      seen.subscription.on('subscribing', (context) => lost.push(context));
      seen.subscription.on('unsubscribed', (context) => lost.push(context));
      await until(() => asked >= 4, 'the token is asked for four times');
      assert.deepEqual(lost, []);
      await server.publish(channel, 'still subscribed');
      await receivedCount(seen, 1);
    });

    with_('a connection that nobody refreshes is closed', quickExpiry, async (server, clients) => {
      // The token is asked for in time but never comes.
      let hang = true;
      const getToken = () => (hang ? new Promise(() => {}) : Promise.resolve(server.token('alice')));
      const client = await clients.connected('alice', { claims: { exp: now() + 2 }, getToken });
      const connecting = await next(client, 'connecting');
      assert.deepEqual([connecting.code, connecting.reason], [3005, 'connection expired']);
      hang = false;
    });

    with_('a subscription that nobody refreshes ends, and comes back with a new token', quickExpiry, async (server, clients) => {
      const channel = fresh('token');
      let asked = 0;
      const getToken = () => {
        asked += 1;
        const fine = Promise.resolve(server.subscriptionToken('alice', channel, { exp: now() + (asked === 1 ? 2 : 3600) }));
        return asked === 2 ? new Promise(() => {}) : fine;
      };
      const client = await clients.connected('alice');
      const { subscription } = await clients.subscribed(client, channel, { getToken });
      const subscribing = await next(subscription, 'subscribing');
      assert.deepEqual([subscribing.code, subscribing.reason], [2501, 'subscription expired']);
      await next(subscription, 'subscribed');
    });

    const personal = { client: { personal_topic: { enabled: true, namespace: 'open' } } };
    with_('every user has a personal topic', personal, async (server, clients) => {
      const client = clients.make('alice');
      const [subscribed, publication] = [next(client, 'subscribed'), next(client, 'publication')];
      client.connect();
      assert.equal((await subscribed).channel, 'open:#alice');
      await server.publish('open:#alice', 'for you');
      const { channel, data } = await publication;
      assert.deepEqual([channel, clients.unpack(data)], ['open:#alice', 'for you']);
      const anonymous = await clients.connected('');
      assert.equal(anonymous.state, 'connected');
    });

    const single = { client: { personal_topic: { enabled: true, namespace: 'open', single_connection: true } } };
    with_('a user has one connection where the personal topic says so', single, async (server, clients) => {
      const older = await clients.connected('alice');
      const closed = next(older, 'disconnected');
      const newer = await clients.connected('alice');
      assert.equal((await closed).code, 3504);
      assert.equal(newer.state, 'connected');
    });

    with_('a user has as many connections as the limit says', { client: { user_connections_max: 2 } }, async (server, clients) => {
      await clients.connected('alice');
      const second = await clients.connected('alice');
      const refused = await clients.refused('alice');
      assert.deepEqual([refused.code, refused.reason], [3504, 'connection limit']);
      await clients.connected('bob');
      second.disconnect();
      await until(async () => {
        const client = clients.make('alice');
        client.connect();
        return client.ready(1000).then(() => true, () => false);
      }, 'a place is free again');
    });

    const anonymousAllowed = { client: { allow_anonymous_connect_without_token: true } };
    with_('clients without a token are anonymous where that is allowed', anonymousAllowed, async (server, clients) => {
      const client = await clients.connected(null);
      const code = async (channel) => (await clients.refusedSubscription(client, channel)).code;
      assert.equal(await code(fresh('open')), 103);
      await clients.subscribed(client, fresh('anonymous'));
    });

    with_('the built-in ping method answers', { client: { rpc_ping: { enabled: true, method: 'ping' } } }, async (server, clients) => {
      const client = await clients.connected('alice');
      await client.rpc('ping', clients.pack({}));
      await assert.rejects(client.rpc('other', clients.pack({})), { code: 104 });
    });

    with_('everything is allowed where the server is insecure', { client: { insecure: true } }, async (server, clients) => {
      const client = await clients.connected(null);
      const channel = fresh('token');
      const seen = await clients.subscribed(client, channel);
      await seen.subscription.publish(clients.pack(1));
      await receivedCount(seen, 1);
      assert.equal((await clients.refused('x', { token: 'not a token' })).code, 3500);
    });
  });
}
