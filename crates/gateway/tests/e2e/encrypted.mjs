// Real clients over TLS: npm `centrifuge`, curl and a Chromium page, with certificates that openssl made.

import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';
import WebSocket from 'ws';
import { Clients, encodings, fresh, numbers, receivedCount } from './centrifuge.mjs';
import { launch, packageFolder } from './chromium.mjs';
import { DEADLINE, Server, next, told, until } from './harness.mjs';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-e2e-tls-'));
const file = (name) => path.join(folder, name);
const openssl = (...options) => execFileSync('openssl', options, { cwd: folder, stdio: 'pipe' });
const P256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** Issues a certificate for this machine into the files that the server reads. */
function issue() {
  openssl('req', ...P256, '-subj', '/CN=node', '-keyout', 'next.key', '-out', 'next.csr');
  fs.writeFileSync(file('names'), 'subjectAltName=IP:127.0.0.1,DNS:localhost\n');
  openssl(
    ...['x509', '-req', '-in', 'next.csr', '-days', '30', '-extfile', 'names'],
    ...['-CA', 'authority.crt', '-CAkey', 'authority.key', '-CAcreateserial', '-out', 'next.crt'],
  );
  fs.renameSync(file('next.key'), file('node.key'));
  fs.renameSync(file('next.crt'), file('node.crt'));
}

describe('over TLS', () => {
  let server;
  let ca;
  before(async () => {
    openssl('req', '-x509', ...P256, '-subj', '/CN=authority', '-days', '30', '-keyout', 'authority.key', '-out', 'authority.crt');
    issue();
    ca = fs.readFileSync(file('authority.crt'));
    server = await Server.start({
      server: { tls: { certificate_file: file('node.crt'), key_file: file('node.key'), reload_interval: '0s' } },
      client: { allowed_origins: ['https://127.0.0.1:*'] },
    });
  });
  after(async () => {
    await server?.stop();
    fs.rmSync(folder, { recursive: true });
  });
  const check = (name, body) => test(name, told(() => server, body));
  const https = () => `https://127.0.0.1:${server.port}`;
  const wss = () => `wss://127.0.0.1:${server.port}/connection/websocket`;

  /** What curl prints; it fails where the answer is an error. */
  const curl = async (...options) => {
    const { stdout } = await promisify(execFile)('curl', ['-sS', '--fail', '--cacert', file('authority.crt'), ...options]);
    return stdout;
  };
  const api = async (method, params, ...options) =>
    JSON.parse(
      await curl(...options, '-H', `x-api-key: ${server.apiKey}`, '-d', JSON.stringify(params), `${https()}/api/${method}`),
    );
  const publishNumbers = (channel, first, last) =>
    api('batch', { commands: numbers(first, last).map((data) => ({ publish: { channel, data } })) });

  for (const encoding of Object.keys(encodings)) {
    check(`npm centrifuge in ${encoding} receives in order and publishes`, async () => {
      const clients = new Clients(encoding, server);
      /** Knows our authority. The clients' own URL is for servers without TLS. */
      class Trusting extends WebSocket {
        constructor(url, protocols) {
          super(url.replace(/^ws:/, 'wss:'), protocols, { ca });
        }
      }
      const channel = fresh('open');
      const alice = await clients.connected('alice', { websocket: Trusting });
      const seen = await clients.subscribed(alice, channel);
      const bob = await clients.connected('bob', { websocket: Trusting });
      const bobs = await clients.subscribed(bob, channel);
      await publishNumbers(channel, 1, 300);
      await receivedCount(seen, 300);
      await bobs.subscription.publish(clients.pack('x'.repeat(30_000)));
      await receivedCount(seen, 301);
      assert.deepEqual(seen.data, [...numbers(1, 300), 'x'.repeat(30_000)]);

      const stranger = clients.make('alice', {
        websocket: class extends WebSocket {
          constructor(url, protocols) {
            super(url.replace(/^ws:/, 'wss:'), protocols);
          }
        },
      });
      const failed = next(stranger, 'error');
      stranger.connect();
      assert.equal((await failed).type, 'transport');
      clients.closeAll();
    });
  }

  check('curl calls the API and listens, in both versions of TLS', async () => {
    for (const version of [['--tlsv1.2', '--tls-max', '1.2'], ['--tlsv1.3']]) {
      const topic = fresh('open');
      const url = `${https()}/subscribe?topic=${topic}&as=sse&token=${server.token('alice')}`;
      const listener = spawn('curl', ['-sSN', '--cacert', file('authority.crt'), ...version, url]);
      let heard = '';
      listener.stdout.on('data', (text) => (heard += text));
      await until(
        async () => Object.keys((await api('presence', { channel: topic }, ...version)).result.presence).length === 1,
        'curl listens',
      );
      await api('publish', { channel: topic, data: 'over TLS' }, ...version);
      await until(() => heard.includes('over TLS'), 'curl hears it');
      const gone = once(listener, 'exit');
      listener.kill();
      await gone;
    }
    await assert.rejects(curl('--ciphers', 'DEFAULT@SECLEVEL=0', '--tlsv1.0', '--tls-max', '1.1', `${https()}/`));
    await assert.rejects(promisify(execFile)('curl', ['-sS', `http://127.0.0.1:${server.port}/`]));
  });

  check('a certificate is replaced under a live client', async () => {
    const shown = async () => {
      const socket = tls.connect({ port: server.port, host: '127.0.0.1', ca });
      await once(socket, 'secureConnect');
      const { fingerprint256 } = socket.getPeerCertificate();
      socket.destroy();
      return fingerprint256;
    };
    const socket = new WebSocket(wss(), { ca });
    await once(socket, 'open');
    const before = await shown();
    issue();
    server.process.kill('SIGHUP');
    await until(async () => (await shown()) !== before, 'the new certificate is shown');
    socket.send(JSON.stringify({ id: 1, connect: { token: server.token('alice') } }));
    const [reply] = await once(socket, 'message', { signal: AbortSignal.timeout(DEADLINE) });
    assert.equal(JSON.parse(reply).id, 1);
    socket.close();
    const [code] = await once(socket, 'close');
    assert.equal(code, 1005);
    const metrics = await server.metrics();
    assert.match(metrics, /^fanwire_tls_certificate_reloads_total\{result="complete"\} 1$/m);
    assert.match(metrics, /^fanwire_tls_certificate_expiry_timestamp_seconds \d{10}$/m);
  });

  check('a Chromium page receives by WebSocket and by EventSource', async () => {
    const browser = await launch();
    try {
      // The authority is not in the browser's store; all else about the connection is as ever.
      const page = await browser.newPage({ ignoreHTTPSErrors: true });
      // A page of the same origin, whatever it shows.
      await page.goto(`${https()}/`);
      const script = path.join(packageFolder('centrifuge'), 'dist/centrifuge.js');
      await page.addScriptTag({ content: fs.readFileSync(script, 'utf8') });
      const topic = fresh('open');
      await page.evaluate(
        ({ wss, token, topic }) => {
          window.seen = { socket: [], stream: [] };
          const client = new Centrifuge(wss, { token });
          const subscription = client.newSubscription(topic);
          subscription.on('publication', ({ data }) => seen.socket.push(data));
          subscription.subscribe();
          client.connect();
          const source = new EventSource(`/subscribe?topic=${topic}&token=${token}`);
          source.onmessage = ({ data }) => seen.stream.push(JSON.parse(data).data);
        },
        { wss: wss(), token: server.token('alice'), topic },
      );
      const present = async () => Object.keys((await api('presence', { channel: topic })).result.presence).length;
      await until(async () => (await present()) === 2, 'both listen', 60_000);
      await publishNumbers(topic, 1, 300);
      for (const way of ['socket', 'stream']) {
        await until(async () => (await page.evaluate((way) => seen[way].length, way)) >= 300, `all come by ${way}`);
        assert.deepEqual(await page.evaluate((way) => seen[way], way), numbers(1, 300));
      }
    } finally {
      await browser.close();
    }
  });

  check('a node that goes down ends every connection properly', async () => {
    const socket = new WebSocket(wss(), { ca });
    await once(socket, 'open');
    const closed = once(socket, 'close');
    assert.equal(await server.stop(), 0);
    assert.equal((await closed)[0], 3001);
  });
});
