// Real clients over HTTP/2: curl, Node's own, npm `centrifuge`, and a Chromium page with more streams than HTTP/1.1 gives it.

import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import WebSocket from 'ws';
import { Clients, encodings, fresh, numbers, receivedCount } from './centrifuge.mjs';
import { launch, packageFolder } from './chromium.mjs';
import { DEADLINE, Server, told, until } from './harness.mjs';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-e2e-http2-'));
const file = (name) => path.join(folder, name);

/** Counts connections on their way to a server, and may leave them without a word. */
class Wire {
  static async start(target) {
    const wire = new Wire();
    wire.pairs = [];
    wire.server = net.createServer((near) => {
      const far = net.connect(target, '127.0.0.1');
      wire.pairs.push([near, far]);
      near.on('error', () => {}).on('close', () => wire.isCut || far.destroy());
      far.on('error', () => {}).on('close', () => near.destroy());
      near.pipe(far).pipe(near);
    });
    wire.server.listen(0, '127.0.0.1');
    await once(wire.server, 'listening');
    wire.port = wire.server.address().port;
    return wire;
  }

  /** Loses all bytes from here on, in both directions. */
  cut() {
    this.isCut = true;
    for (const [near, far] of this.pairs) {
      near.unpipe(far);
      far.unpipe(near);
      far.pause();
    }
  }

  stop() {
    this.server.close();
    this.pairs.flat().forEach((socket) => socket.destroy());
  }
}

describe('over HTTP/2', () => {
  let server;
  let ca;
  before(async () => {
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=node'],
        ...['-days', '30', '-keyout', 'node.key', '-out', 'node.crt'],
        ...['-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'],
      ],
      { cwd: folder, stdio: 'pipe' },
    );
    ca = fs.readFileSync(file('node.crt'));
    server = await Server.start({
      server: { tls: { certificate_file: file('node.crt'), key_file: file('node.key'), http2: true }, write_timeout: '3s' },
      client: { allowed_origins: ['https://127.0.0.1:*'], ping_interval: '5s', pong_timeout: '4s' },
    });
  });
  after(async () => {
    await server?.stop();
    fs.rmSync(folder, { recursive: true });
  });
  const check = (name, body) => test(name, told(() => server, body));
  const https = (port = server.port) => `https://127.0.0.1:${port}`;

  const curl = async (...options) => {
    const { stdout } = await promisify(execFile)('curl', ['-sS', '--http2', '--cacert', file('node.crt'), ...options]);
    return stdout;
  };
  const api = async (method, params) => {
    const answer = await curl('--fail', '-H', `x-api-key: ${server.apiKey}`, '-d', JSON.stringify(params), `${https()}/api/${method}`);
    return JSON.parse(answer);
  };
  const publishNumbers = (channel, first, last) =>
    api('batch', { commands: numbers(first, last).map((data) => ({ publish: { channel, data } })) });
  const members = async (channel) => Object.keys((await api('presence', { channel })).result.presence).length;

  /** A connection of Node's own client. */
  const connect = async (port) => {
    const session = http2.connect(https(port), { ca });
    session.on('error', () => {});
    await once(session, 'remoteSettings', { signal: AbortSignal.timeout(DEADLINE) });
    return session;
  };
  /** Asks for something on a connection, and collects what comes. */
  const ask = (session, headers, body) => {
    const stream = session.request({ ...headers }, { endStream: body === undefined });
    const seen = { stream, text: '' };
    stream.setEncoding('utf8');
    stream.on('data', (text) => (seen.text += text)).on('error', (error) => (seen.error = error));
    seen.head = once(stream, 'response', { signal: AbortSignal.timeout(DEADLINE) }).then(([head]) => (seen.headers = head));
    seen.head.catch(() => {});
    seen.end = once(stream, 'close', { signal: AbortSignal.timeout(DEADLINE) });
    seen.end.catch(() => {});
    if (body !== undefined) stream.end(body);
    return seen;
  };
  const listen = (session, topic) => ask(session, { ':path': `/subscribe?topic=${topic}&as=sse&token=${server.token('alice')}` });
  const received = (seen) =>
    [...seen.text.matchAll(/^data: (\{"topic".*)\n\n/gm)].map(([, event]) => JSON.parse(event).data);

  check('curl calls the API, listens and probes', async () => {
    const version = await curl('-o', '/dev/null', '-w', '%{http_version} %{http_code}', `${https()}/probe`);
    assert.equal(version, '2 200');
    const topic = fresh('open');
    const url = `${https()}/subscribe?topic=${topic}&as=sse&token=${server.token('alice')}`;
    const listener = spawn('curl', ['-sSN', '--http2', '--cacert', file('node.crt'), url]);
    let heard = '';
    listener.stdout.on('data', (text) => (heard += text));
    await until(async () => (await members(topic)) === 1, 'curl listens');
    await api('publish', { channel: topic, data: 'over HTTP/2' });
    await until(() => heard.includes('over HTTP/2'), 'curl hears it');
    const gone = once(listener, 'exit');
    listener.kill();
    await gone;
    await until(async () => (await members(topic)) === 0, 'its presence ends');
    assert.match(await curl('-I', `${https()}/probe`), /^HTTP\/2 200 \r\n/);
  });

  check('a hundred streams share a connection, and one that is not read holds up no other', async () => {
    const session = await connect();
    const topic = fresh('open');
    const streams = numbers(1, 99).map(() => listen(session, topic));
    const slow = listen(session, topic);
    await Promise.all([...streams, slow].map(({ head }) => head));
    assert.equal(slow.headers[':status'], 200);
    assert.equal(slow.headers['content-type'], 'text/event-stream; charset=utf-8');
    slow.stream.pause();
    await until(async () => (await members(topic)) === 100, 'all listen');
    // More in all than a stream takes unread.
    const text = 'x'.repeat(300);
    for (let batch = 0; batch < 5; batch += 1) {
      await api('batch', { commands: numbers(1, 60).map((n) => ({ publish: { channel: topic, data: [batch, n, text] } })) });
    }
    const expected = [0, 1, 2, 3, 4].flatMap((batch) => numbers(1, 60).map((n) => [batch, n, text]));
    for (const seen of streams) {
      await until(() => received(seen).length >= 300, 'a stream gets everything', 60_000);
      assert.deepEqual(received(seen), expected);
    }
    slow.stream.resume();
    await until(() => received(slow).length >= 300, 'the slow one gets the rest');
    assert.deepEqual(received(slow), expected);
    session.close();
    session.destroy();
    await until(async () => (await members(topic)) === 0, 'presence ends with the connection');
  });

  check('requests are refused as in HTTP/1.1, and others on the connection go on', async () => {
    const session = await connect();
    const topic = fresh('open');
    const stays = listen(session, topic);
    await stays.head;
    const status = async (headers, body) => {
      const seen = ask(session, headers, body);
      await seen.head;
      await seen.end;
      return [seen.headers[':status'], seen.text];
    };
    assert.deepEqual((await status({ ':path': '/nothing' }))[0], 404);
    assert.deepEqual((await status({ ':path': '/api/publish', ':method': 'POST' }, '{}'))[0], 401);
    const [refused, why] = await status({ ':path': `/subscribe?topic=${topic}` });
    assert.equal(refused, 401, why);
    assert.equal((await status({ ':path': '/emulation', ':method': 'POST' }, 'x'.repeat(100_000)))[0], 413);
    assert.equal((await status({ ':path': '/probe', ':method': 'DELETE' }))[0], 405);
    assert.equal((await status({ ':path': '/probe', ':authority': 'one.example', host: 'another.example' }))[0], 400);
    assert.equal((await status({ ':path': '/connection/websocket' }))[0], 426);
    assert.equal((await status({ ':path': '/probe', cookie: 'x'.repeat(40_000) }))[0], 431);
    const plain = ask(session, { ':method': 'CONNECT', ':authority': 'a.example:443' });
    await plain.head;
    assert.equal(plain.headers[':status'], 400);
    for (const path of ['/probe', '/connection/uni_sse']) {
      const [refused, why] = await status({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': path }, '');
      assert.equal(refused, 400, why);
    }
    await api('publish', { channel: topic, data: 'still here' });
    await until(() => stays.text.includes('still here'), 'the stream goes on');
    session.destroy();
  });

  check('polls share a connection and go on with their session', async () => {
    const session = await connect();
    const topic = fresh('open');
    const poll = (more) => ask(session, { ':path': `/subscribe?topic=${topic}&as=poll&token=${server.token('alice')}${more}` });
    const answer = async (seen) => {
      await seen.end;
      assert.equal(seen.headers[':status'], 200, seen.text);
      return JSON.parse(seen.text);
    };
    let { cursor, session: key } = await answer(poll('&wait=1'));
    for (const number of numbers(1, 3)) {
      const waiting = poll(`&wait=15&cursor=${cursor}&session=${key}`);
      assert.equal(await members(topic), 1);
      await api('publish', { channel: topic, data: number });
      const { messages, ...next } = await answer(waiting);
      assert.deepEqual(messages.map(({ data }) => data), [number]);
      ({ cursor, session: key } = next);
    }
    session.destroy();
  });

  check('an answer that is not taken is given up, and what comes behind it is answered', async () => {
    const session = http2.connect(https(), { ca, settings: { initialWindowSize: 0 } });
    await once(session, 'remoteSettings');
    const untaken = ask(session, { ':path': '/nothing' });
    await untaken.head;
    await untaken.end;
    assert.equal(untaken.stream.rstCode, http2.constants.NGHTTP2_CANCEL);
    assert.match(await server.metrics(), /^fanwire_http_connections_dropped_total\{port="client",reason="write_timeout"\} 1$/m);
    const empty = ask(session, { ':path': '/probe', ':method': 'HEAD' });
    await empty.head;
    assert.equal(empty.headers[':status'], 200);
    session.destroy();
  });

  /** A WebSocket over a stream of HTTP/2 (RFC 8441), with the frames of npm `ws`. */
  const overHttp2 = (session) =>
    class extends WebSocket {
      constructor(url, protocols) {
        super(null, undefined, {});
        this._isServer = false;
        const { pathname, search } = new URL(url);
        const headers = { ':method': 'CONNECT', ':protocol': 'websocket', ':path': `${pathname}${search}`, 'sec-websocket-version': 13 };
        if (protocols?.length) headers['sec-websocket-protocol'] = [protocols].flat().join(', ');
        const stream = session.request(headers, { endStream: false });
        stream.on('response', (head) => {
          if (head[':status'] !== 200) return this.emit('error', new Error(`status ${head[':status']}`));
          this._protocol = head['sec-websocket-protocol'] ?? '';
          this._readyState = WebSocket.CONNECTING;
          this.setSocket(stream, Buffer.alloc(0), { maxPayload: 1 << 24, skipUTF8Validation: false, allowSynchronousEvents: true });
        });
        stream.on('error', () => {});
      }
    };

  for (const encoding of Object.keys(encodings)) {
    check(`npm centrifuge in ${encoding} receives in order and publishes by WebSocket`, async () => {
      const session = await connect();
      assert.equal(session.remoteSettings.enableConnectProtocol, true);
      const clients = new Clients(encoding, server);
      const channel = fresh('open');
      const alice = await clients.connected('alice', { websocket: overHttp2(session) });
      const seen = await clients.subscribed(alice, channel);
      const bob = await clients.connected('bob', { websocket: overHttp2(session) });
      const bobs = await clients.subscribed(bob, channel);
      await publishNumbers(channel, 1, 300);
      await receivedCount(seen, 300);
      await bobs.subscription.publish(clients.pack('x'.repeat(30_000)));
      await receivedCount(seen, 301);
      assert.deepEqual(seen.data, [...numbers(1, 300), 'x'.repeat(30_000)]);
      assert.equal(await members(channel), 2);
      clients.closeAll();
      await until(async () => (await members(channel)) === 0, 'both leave');
      session.destroy();
    });
  }

  check('clients of a connection that vanishes without a word are noticed, and a stream that is given up', async () => {
    const wire = await Wire.start(server.port);
    try {
      const session = await connect(wire.port);
      const topic = fresh('open');
      const streams = numbers(1, 3).map(() => listen(session, topic));
      await Promise.all(streams.map(({ head }) => head));
      await until(async () => (await members(topic)) === 3, 'three listen');
      streams[0].stream.close(http2.constants.NGHTTP2_CANCEL);
      await until(async () => (await members(topic)) === 2, 'one has left');
      await api('publish', { channel: topic, data: 'to two' });
      await until(() => streams.slice(1).every(({ text }) => text.includes('to two')), 'the others go on');
      wire.cut();
      // An interval of pings, and the time for the answer.
      await until(async () => (await members(topic)) === 0, 'the others are missed');
      session.destroy();
    } finally {
      wire.stop();
    }
  });

  check('a Chromium page has ten streams and its WebSocket on one connection', async () => {
    const browser = await launch();
    const wire = await Wire.start(server.port);
    try {
      const page = await browser.newPage({ ignoreHTTPSErrors: true });
      await page.goto(`${https(wire.port)}/`);
      const script = path.join(packageFolder('centrifuge'), 'dist/centrifuge.js');
      await page.addScriptTag({ content: fs.readFileSync(script, 'utf8') });
      const topic = fresh('open');
      await page.evaluate(
        ({ origin, token, topic }) => {
          window.seen = {};
          for (let index = 0; index < 10; index += 1) {
            const source = new EventSource(`/subscribe?topic=${topic}&token=${token}`);
            const data = (seen[`EventSource ${index}`] = []);
            source.onmessage = (event) => data.push(JSON.parse(event.data).data);
          }
          for (const transport of ['websocket', 'http_stream', 'sse']) {
            const endpoint = `${transport === 'websocket' ? origin.replace('https', 'wss') : origin}/connection/${transport}`;
            const client = new Centrifuge([{ transport, endpoint }], { token, emulationEndpoint: `${origin}/emulation` });
            const subscription = client.newSubscription(topic);
            const data = (seen[transport] = []);
            subscription.on('publication', (publication) => data.push(publication.data));
            subscription.subscribe();
            client.connect();
          }
        },
        { origin: https(wire.port), token: server.token('alice'), topic },
      );
      await until(async () => (await members(topic)) === 13, 'all listen', 60_000);
      await publishNumbers(topic, 1, 300);
      const counts = () => page.evaluate(() => Object.values(seen).map((data) => data.length));
      await until(async () => (await counts()).every((count) => count >= 300), 'all get everything');
      for (const data of Object.values(await page.evaluate(() => seen))) assert.deepEqual(data, numbers(1, 300));
      const protocol = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
      assert.equal(protocol, 'h2');
      assert.equal(wire.pairs.filter(([near]) => !near.destroyed).length, 1);
    } finally {
      await browser.close();
      wire.stop();
    }
  });

  check('a node that goes down ends every stream properly', async () => {
    const session = await connect();
    const told = once(session, 'goaway', { signal: AbortSignal.timeout(DEADLINE) });
    const stream = listen(session, fresh('open'));
    await stream.head;
    const idle = await connect();
    const closed = Promise.all([once(session, 'close'), once(idle, 'close')]);
    assert.equal(await server.stop(), 0);
    await Promise.all([told, closed, stream.end]);
    assert.match(stream.text, /event: disconnect\ndata: \{"code":3001/);
    assert.equal(stream.error, undefined);
  });
});
