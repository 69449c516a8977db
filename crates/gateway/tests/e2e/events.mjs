// npm `eventsource` on the SSE route: what a browser's own EventSource does without any library.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { EventSource } from 'eventsource';
import { fresh, numbers, publishNumbers } from './centrifuge.mjs';
import { Server, next, now, sign, told, until } from './harness.mjs';

describe('EventSource', () => {
  let server;
  let sources = [];
  before(async () => {
    server = await Server.start({ client: { allowed_origins: ['https://app.example.com'] } });
  });
  afterEach(() => {
    for (const source of sources) source.close();
    sources = [];
  });
  after(() => server.stop());
  const check = (name, body) => test(name, told(() => server, body));

  const address = (topics, { token, subscriptionTokens = [] } = {}) => {
    const query = new URLSearchParams(topics.map((topic) => ['topic', topic]));
    if (token !== undefined) query.append('token', token);
    for (const one of subscriptionTokens) query.append('subscription_token', one);
    return `${server.http}/subscribe?${query}`;
  };

  const opened = async (topics, tokens) => {
    const source = new EventSource(address(topics, tokens));
    sources.push(source);
    const seen = { source, messages: [], errors: [] };
    source.addEventListener('message', ({ data }) => seen.messages.push(JSON.parse(data)));
    source.addEventListener('error', (error) => seen.errors.push(error));
    await until(() => source.readyState === EventSource.OPEN || seen.errors.length, 'the stream opens or fails');
    assert.deepEqual(seen.errors, []);
    return seen;
  };

  /** The answer of a request that is refused before its stream begins. */
  const refused = async (topics, tokens, headers = {}) => {
    const answer = await fetch(address(topics, tokens), { headers });
    assert.match(answer.headers.get('content-type'), /^application\/json/);
    const { error } = await answer.json();
    assert.ok(error.message.length > 0);
    return [answer.status, error.code];
  };

  const count = (seen, wanted) => until(() => seen.messages.length >= wanted, `${wanted} messages arrive`);

  check('publications of several topics arrive in order, each with its topic', async () => {
    const [a, b] = [fresh('open'), fresh('plain')];
    const seen = await opened([a, b], { token: server.token('alice') });
    await publishNumbers(server, a, 1, 300);
    await publishNumbers(server, b, 1, 300);
    await count(seen, 600);
    const of = (wanted) => seen.messages.filter(({ topic }) => topic === wanted);
    assert.deepEqual(of(a).map(({ data }) => data), numbers(1, 300));
    assert.deepEqual(of(a).map(({ offset }) => offset), numbers(1, 300));
    assert.deepEqual(of(b).map(({ data }) => data), numbers(1, 300));
    assert.ok(of(b).every((message) => !('offset' in message)));
  });

  check('values of every shape arrive as they were published', async () => {
    const topic = fresh('open');
    const seen = await opened([topic], { token: server.token('alice') });
    const values = [{ a: [1, 2, { b: null }] }, 'two\nlines\r\nand "quotes"', 0, '', false, null, 'ünïcödé 👋'];
    for (const value of values) await server.publish(topic, value);
    await count(seen, values.length);
    assert.deepEqual(seen.messages.map(({ data }) => data), values);
  });

  check('tags are told', async () => {
    const topic = fresh('open');
    const seen = await opened([topic], { token: server.token('alice') });
    await server.publish(topic, 1, { tags: { color: 'red' } });
    await count(seen, 1);
    assert.deepEqual(seen.messages[0].tags, { color: 'red' });
  });

  check('the answer has the headers of an event stream that nobody may keep or buffer', async () => {
    const controller = new AbortController();
    const answer = await fetch(address([fresh('open')], { token: server.token('alice') }), {
      headers: { accept: 'text/event-stream' },
      signal: controller.signal,
    });
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type'), /^text\/event-stream/);
    assert.match(answer.headers.get('cache-control'), /no-(cache|store)/);
    assert.equal(answer.headers.get('x-accel-buffering'), 'no');
    controller.abort();
  });

  check('a listener is present while it listens, and gone after', async () => {
    const topic = fresh('open');
    const { source } = await opened([topic], { token: server.token('alice') });
    const users = async () => Object.values((await server.api('presence', { channel: topic })).presence);
    const present = await until(async () => ((await users()).length ? users() : null), 'alice is present');
    assert.deepEqual(present.map(({ user }) => user), ['alice']);
    source.close();
    await until(async () => (await users()).length === 0, 'alice is gone');
  });

  check('subscription tokens open their topics', async () => {
    const [a, b] = [fresh('token'), fresh('token')];
    const subscriptionTokens = [server.subscriptionToken('alice', a), server.subscriptionToken('alice', b)];
    const seen = await opened([a, b], { token: server.token('alice'), subscriptionTokens });
    await server.publish(a, 1);
    await server.publish(b, 2);
    await count(seen, 2);
    assert.deepEqual(seen.messages.map(({ topic, data }) => [topic, data]), [[a, 1], [b, 2]]);
  });

  check('what is wrong is answered before the stream, with a status and a code', async () => {
    const token = server.token('alice');
    const cases = [
      [400, 107, [], { token }],
      [401, 101, ['plain:x'], {}],
      [401, 101, ['plain:x'], { token: 'not a token' }],
      [401, 101, ['plain:x'], { token: sign({ sub: 'alice' }, 'wrong secret') }],
      [401, 109, ['plain:x'], { token: server.token('alice', { exp: now() - 10 }) }],
      [403, 103, ['token:x'], { token }],
      [403, 103, ['plain:x', 'token:x'], { token }],
      [401, 101, ['token:x'], { token, subscriptionTokens: [server.subscriptionToken('bob', 'token:x')] }],
      [403, 103, ['$open:x'], { token }],
      [404, 102, ['nowhere:x'], { token }],
      [400, 107, ['plain:' + 'x'.repeat(300)], { token }],
      [400, 107, [''], { token }],
    ];
    for (const [status, code, topics, tokens] of cases) {
      const given = await refused(topics, tokens);
      assert.deepEqual(given, [status, code], `${topics} ${JSON.stringify(tokens)}`);
    }
  });

  check('more topics than a client may have are refused', async () => {
    const topics = numbers(1, 129).map((number) => `plain:${number}`);
    const [status, code] = await refused(topics, { token: server.token('alice') });
    assert.equal(code, 106);
    assert.ok(status >= 400 && status < 500);
  });

  check('pages of allowed origins may listen, others may not', async () => {
    const token = server.token('alice');
    const ask = async (origin) => {
      const controller = new AbortController();
      const answer = await fetch(address([fresh('plain')], { token }), {
        headers: { origin, accept: 'text/event-stream' },
        signal: controller.signal,
      });
      const given = [answer.status, answer.headers.get('access-control-allow-origin')];
      controller.abort();
      return given;
    };
    assert.deepEqual(await ask('https://app.example.com'), [200, 'https://app.example.com']);
    const [status, allowed] = await ask('https://evil.example.com');
    assert.equal(allowed, null);
    assert.equal(status, 403);
  });

  check('the API disconnects a listener, which is told', async () => {
    const topic = fresh('open');
    const { source } = await opened([topic], { token: server.token('sse-leaver') });
    const told = next(emitterOf(source), 'disconnect');
    await server.api('disconnect', { user: 'sse-leaver' });
    const { code, reason, reconnect } = JSON.parse((await told).data);
    assert.deepEqual([code, reason, reconnect], [3503, 'force disconnect', false]);
  });

  check('EventSource goes on where it left off, in every topic', async () => {
    const topics = [fresh('open'), fresh('wish'), fresh('open')];
    const seen = await opened(topics, { token: server.token('sse-returner') });
    const resumed = [];
    seen.source.addEventListener('subscribed', ({ data }) => resumed.push(JSON.parse(data)));
    for (let round = 0; round < 3; round++) {
      for (const topic of topics) await publishNumbers(server, topic, 20 * round + 1, 20 * round + 10);
      await count(seen, 3 * (20 * round + 10));
      // The stream ends with a code after which clients come back. Meanwhile others publish.
      const away = next(emitterOf(seen.source), 'error');
      await server.api('disconnect', { user: 'sse-returner', disconnect: { code: 4001, reason: 'move' } });
      await away;
      for (const topic of topics) await publishNumbers(server, topic, 20 * round + 11, 20 * round + 20);
      await count(seen, 3 * (20 * round + 20));
    }
    for (const topic of topics) {
      const data = seen.messages.filter((message) => message.topic === topic).map(({ data }) => data);
      assert.deepEqual(data, numbers(1, 60));
    }
    assert.ok(resumed.length >= 3);
    for (const { subscribed } of resumed) assert.ok(subscribed.every(({ recovered }) => recovered === true));
  });

  check('EventSource is told when it has missed something', async () => {
    const topics = [fresh('short'), fresh('plain')];
    const seen = await opened(topics, { token: server.token('sse-loser') });
    await server.publish(topics[0], 1);
    await count(seen, 1);
    const subscribed = next(emitterOf(seen.source), 'subscribed');
    const away = next(emitterOf(seen.source), 'error');
    await server.api('disconnect', { user: 'sse-loser', disconnect: { code: 4001, reason: 'move' } });
    await away;
    // The topic keeps three.
    await publishNumbers(server, topics[0], 2, 9);
    const { subscribed: told } = JSON.parse((await subscribed).data);
    assert.deepEqual(Object.fromEntries(told.map(({ topic, recovered }) => [topic, recovered])), {
      [topics[0]]: false,
      [topics[1]]: false,
    });
  });

  check('EventSource comes back by itself after a restart of the server', async () => {
    const topic = fresh('open');
    const seen = await opened([topic], { token: server.token('alice') });
    await server.restart();
    const present = async () => Object.keys((await server.api('presence', { channel: topic })).presence).length;
    await until(async () => (await present()) === 1, 'the listener is back', 60_000);
    await server.publish(topic, 'again');
    await count(seen, 1);
    assert.equal(seen.messages[0].data, 'again');
  });
});

/** An EventTarget as `next` wants it. */
const emitterOf = (target) => ({
  once: (event, listener) => target.addEventListener(event, listener, { once: true }),
  removeListener: (event, listener) => target.removeEventListener(event, listener),
});
