// Compressed connections of Node's `ws` and of Chromium, which offer them by themselves: the same messages, fewer bytes.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { Clients, encodings, fresh, receivedCount } from './centrifuge.mjs';
import { launch, packageFolder, servePages } from './chromium.mjs';
import { Server, told, until } from './harness.mjs';

const compressing = (settings = {}) =>
  Server.start({ websocket: { deflate: { enabled: true, min_bytes: '200B' } }, ...settings });

/** Two kilobytes that compress well. */
const LONG = { text: 'grün, €, 😀 and again '.repeat(80) };

const metric = async (server, name) => {
  const line = (await server.metrics()).split('\n').find((line) => line.startsWith(`${name} `));
  return Number(line.split(' ')[1]);
};

class Compressed extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { perMessageDeflate: true });
    Compressed.last = this;
  }
}

class WithoutCompression extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { perMessageDeflate: false });
    WithoutCompression.last = this;
  }
}

describe("npm centrifuge over Node's ws", () => {
  let server;
  before(async () => (server = await compressing()));
  after(() => server?.stop());
  const check = (name, body) => test(name, told(() => server, body));

  for (const encoding of Object.keys(encodings)) {
    check(`messages both ways in ${encoding}`, async () => {
      const channel = fresh('open');
      const clients = new Clients(encoding, server);
      const sender = await clients.connected('ann', { websocket: Compressed });
      const receiver = await clients.connected('bob', { websocket: Compressed });
      const plain = await clients.connected('eve', { websocket: WithoutCompression });
      assert.equal(await metric(server, 'fanwire_connections_compressed'), 2);
      assert.match(Compressed.last.extensions, /permessage-deflate/);
      assert.equal(WithoutCompression.last.extensions, '');
      const seen = [];
      for (const client of [sender, receiver, plain]) seen.push(await clients.subscribed(client, channel));
      const sockets = [Compressed.last, WithoutCompression.last];
      const before = sockets.map(bytesRead);

      await seen[0].subscription.publish(clients.pack(LONG));
      await server.api('publish', { channel, ...(encoding === 'json' ? { data: LONG } : packed(LONG)) });
      for (const one of seen) {
        await receivedCount(one, 2);
        assert.deepEqual(one.data, [LONG, LONG]);
      }
      const [few, many] = sockets.map((socket, place) => bytesRead(socket) - before[place]);
      assert.ok(many > 4000 && few < many / 5, `${few} of ${many} bytes`);
      const { publications } = await seen[1].subscription.history({ limit: 10 });
      assert.deepEqual(publications.map(({ data }) => clients.unpack(data)), [LONG, LONG]);
      clients.closeAll();
      await until(async () => (await metric(server, 'fanwire_connections_compressed')) === 0, 'all have gone');
    });
  }
});

const bytesRead = (socket) => socket._socket.bytesRead;

/** Bytes of an application's own choice, as the API takes them. */
const packed = (value) => ({ b64data: Buffer.from(JSON.stringify(value)).toString('base64') });

describe('Chromium', () => {
  let pages;
  let server;
  let browser;
  before(async () => {
    const script = fs.readFileSync(path.join(packageFolder('centrifuge'), 'dist', 'centrifuge.js'), 'utf8');
    pages = await servePages({
      '/': ['text/html; charset=utf-8', '<!doctype html><title>test</title><script src="/centrifuge.js"></script>'],
      '/centrifuge.js': ['text/javascript; charset=utf-8', script],
    });
    server = await compressing({ client: { allowed_origins: [pages.origin] } });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
    pages?.stop();
  });

  test(
    'a page publishes and receives two kilobytes',
    told(
      () => server,
      async () => {
        const channel = fresh('open');
        const page = await browser.newPage();
        await page.goto(pages.origin);
        await page.evaluate(
          async ({ url, token, channel }) => {
            window.seen = [];
            window.client = new Centrifuge(url, { token });
            window.room = client.newSubscription(channel);
            room.on('publication', ({ data }) => seen.push(data));
            room.subscribe();
            client.connect();
            await room.ready(20_000);
          },
          { url: server.websocket, token: server.token('ann'), channel },
        );
        assert.equal(await metric(server, 'fanwire_connections_compressed'), 1);
        const received = await metric(server, 'fanwire_received_bytes_total');
        await page.evaluate((data) => room.publish(data), LONG);
        const bytes = (await metric(server, 'fanwire_received_bytes_total')) - received;
        assert.ok(bytes < 400, `the page compressed what it sent to ${bytes} bytes`);
        await server.publish(channel, LONG);
        await until(() => page.evaluate(() => seen.length === 2), 'both publications are there');
        assert.deepEqual(await page.evaluate(() => seen), [LONG, LONG]);
        assert.ok((await metric(server, 'fanwire_compression_output_bytes_total')) < 1000);
        await page.close();
      },
    ),
  );
});
