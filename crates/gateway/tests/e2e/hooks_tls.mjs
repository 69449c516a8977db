// Hooks over mutual TLS: a backend in Python that asks for a certificate, and every way in which one is not good.

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { Server, binary, environment, freePort, next, told, until } from './harness.mjs';

const FOLDER = path.dirname(fileURLToPath(import.meta.url));
const PYTHON = path.resolve(FOLDER, '../../../../.tools/venv/bin/python');
const SECRETS = { header: 'Bearer a-token-of-this-test', signature: 'a-signature-secret-of-this-test-alone' };

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-e2e-hooks-tls-'));
const file = (name) => path.join(folder, name);
const openssl = (...options) => execFileSync('openssl', options, { cwd: folder, stdio: 'pipe' });
const P256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

const found = (name) => {
  openssl('req', '-x509', ...P256, '-subj', `/CN=${name}`, '-days', '30', '-keyout', `${name}.key`, '-out', `${name}.crt`);
};

/** Issues a certificate by an authority into the files of this name. */
const issue = (name, authority, days = 30) => {
  openssl('req', ...P256, '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', 'request');
  fs.writeFileSync(file('names'), 'subjectAltName=DNS:localhost\n');
  openssl(
    ...['x509', '-req', '-in', 'request', '-days', `${days}`, '-extfile', 'names'],
    ...['-CA', `${authority}.crt`, '-CAkey', `${authority}.key`, '-CAcreateserial', '-out', `${name}.crt`],
  );
};

class Backend {
  static async start(name) {
    const backend = new Backend();
    backend.port = await freePort();
    await backend.launch(name);
    return backend;
  }

  /** Starts with the certificate of this name. */
  async launch(name) {
    const program = [PYTHON, path.join(FOLDER, 'backends/mutual_tls.py'), `${this.port}`];
    const files = [file(`${name}.crt`), file(`${name}.key`), file('authority.crt')];
    this.process = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...program, ...files], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(this.process.stdout, 'data');
  }

  async stop() {
    const ended = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await ended;
  }
}

/** Hooks that fail, and the reason in the log. What the backend does not like comes by an alert of TLS. */
const FAILURES = {
  'wrong-ca': /no TLS: invalid peer certificate: UnknownIssuer/,
  'wrong-name': /no TLS: invalid peer certificate: .*[Nn]ot ?[Vv]alid ?[Ff]or ?[Nn]ame/,
  expired: /no TLS: invalid peer certificate: .*[Ee]xpired/,
  'no-certificate': /received fatal alert: CertificateRequired/,
  'other-certificate': /received fatal alert: UnknownC[Aa]/,
  'expired-certificate': /received fatal alert: CertificateExpired/,
};

describe('hooks over mutual TLS', () => {
  let server = { log: '' };
  const backends = {};
  let ann;
  before(async () => {
    for (const name of ['authority', 'other']) found(name);
    issue('backend', 'authority');
    issue('backend-of-old', 'authority', -1);
    issue('gateway', 'authority');
    issue('gateway-of-old', 'authority', -1);
    issue('gateway-of-others', 'other');
    backends.good = await Backend.start('backend');
    backends.expired = await Backend.start('backend-of-old');
    const hook = (name, { ca = 'authority', identity = 'gateway', port = backends.good.port, ...more } = {}) => ({
      name,
      url: `https://localhost:${port}/${name}`,
      timeout: '10s',
      ca_file: file(`${ca}.crt`),
      ...(identity && { certificate_file: file(`${identity}.crt`), key_file: file(`${identity}.key`) }),
      static_headers: { Authorization: SECRETS.header },
      signature_secret: SECRETS.signature,
      ...more,
    });
    const hooks = [
      hook('good'),
      hook('wrong-ca', { ca: 'other' }),
      hook('wrong-name', { server_name: 'elsewhere.example' }),
      hook('expired', { port: backends.expired.port }),
      hook('no-certificate', { identity: null }),
      hook('other-certificate', { identity: 'gateway-of-others' }),
      hook('expired-certificate', { identity: 'gateway-of-old' }),
    ];
    server = await Server.start({ hooks, rpc: { namespaces: hooks.map(({ name }) => ({ name, hook: name })) } });
    ann = new Centrifuge(server.websocket, { websocket: WebSocket, token: server.token('ann') });
    ann.connect();
    await next(ann, 'connected');
  });
  after(async () => {
    ann?.disconnect();
    await server.stop?.();
    for (const backend of Object.values(backends)) await backend.stop();
    fs.rmSync(folder, { recursive: true });
  });
  const check = (name, body) => test(name, told(() => server, body));

  check('a backend knows the gateway by its certificate', async () => {
    const { data } = await ann.rpc('good:who', {});
    assert.deepEqual(data, { method: 'good:who', name: 'gateway' });
  });

  for (const [name, why] of Object.entries(FAILURES)) {
    check(`${name} fails the call with error 100, and the log says why`, async () => {
      const error = await ann.rpc(`${name}:who`, { words: 'of-the-client' }).then(() => assert.fail('answered'), (error) => error);
      assert.deepEqual([error.code, error.temporary], [100, true]);
      const line = () => server.log.split('\n').find((line) => line.includes('no usable answer') && line.includes(`"${name}"`));
      assert.match(await until(line, 'the log has it'), why);
    });
  }

  check('check --connect tells the same, and sends nothing', () => {
    const run = spawnSync(binary, ['check', '--connect', server.arguments[2]], { env: environment(), encoding: 'utf8' });
    assert.equal(run.status, 1, run.stderr);
    assert.match(run.stdout, /hook +good: https:\/\/localhost:\d+\/good can be reached/);
    const errors = run.stderr.split('\n').filter((line) => line.startsWith('error: hooks.'));
    assert.equal(errors.length, Object.keys(FAILURES).length, run.stderr);
    for (const [index, why] of Object.values(FAILURES).entries()) assert.match(errors[index], why);
  });

  check('a backend with a new certificate is used without a restart of the gateway', async () => {
    await backends.expired.stop();
    await backends.expired.launch('backend');
    const { data } = await until(() => ann.rpc('expired:who', {}).catch(() => undefined), 'it answers');
    assert.equal(data.name, 'gateway');
  });

  check('the log has no secret, and nothing of a call', () => {
    for (const secret of [...Object.values(SECRETS), 'PRIVATE KEY', 'of-the-client']) {
      assert.ok(!server.log.includes(secret), secret);
    }
  });
});
