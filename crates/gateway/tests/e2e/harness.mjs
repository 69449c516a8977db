// Starts the built binary for a suite, and holds what several suites need: tokens, the HTTP API, a proxy that
// can cut connections, and waiting for conditions. Nothing here sleeps for a fixed time and hopes.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac, randomInt } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const FOLDER = path.dirname(fileURLToPath(import.meta.url));
const START_DEADLINE = 30_000;
const STOP_DEADLINE = 20_000;
/** How long a condition may take that normally holds at once; generous, for machines that do more than this. */
export const DEADLINE = 20_000;

export const binary =
  process.env.GATEWAY_BIN ?? path.resolve(FOLDER, '../../../../target/debug/fanwire');

/** The configuration that suites share; each may merge its own settings over it. */
export const sharedConfig = () => JSON.parse(fs.readFileSync(path.join(FOLDER, 'server.json'), 'utf8'));

/** A running server with its own ports and configuration file. */
export class Server {
  /** Starts with the shared configuration and `settings` merged over it, and waits until it is ready. */
  static async start(settings = {}) {
    const server = new Server();
    server.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-e2e-'));
    server.port = await freePort();
    server.internalPort = await freePort();
    server.config = merge(sharedConfig(), settings);
    server.config = merge(server.config, {
      server: { port: server.port },
      internal: { port: server.internalPort },
    });
    server.arguments = ['serve', '--config', path.join(server.folder, 'fanwire.json')];
    fs.writeFileSync(server.arguments[2], JSON.stringify(server.config, null, 2));
    await server.launch();
    return server;
  }

  /** Starts `fanwire serve --dev`: no configuration file, everything open on loopback. `variables` are settings. */
  static async startDev(variables = {}) {
    const server = new Server();
    server.variables = variables;
    server.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-e2e-'));
    server.port = await freePort();
    server.internalPort = await freePort();
    server.config = {};
    server.arguments = ['serve', '--dev', '--port', `${server.port}`, '--internal-port', `${server.internalPort}`];
    await server.launch();
    return server;
  }

  /** Starts with the text of a TOML file as it is, but for the ports. `config` is what `api` and `token` need of it. */
  static async startToml(text, config = {}) {
    const server = new Server();
    server.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-e2e-'));
    server.port = await freePort();
    server.internalPort = await freePort();
    server.variables = { FANWIRE_SERVER__PORT: `${server.port}`, FANWIRE_INTERNAL__PORT: `${server.internalPort}` };
    server.config = config;
    server.arguments = ['serve', '--config', path.join(server.folder, 'fanwire.toml')];
    fs.writeFileSync(server.arguments[2], text);
    await server.launch();
    return server;
  }

  /** Nodes that run already: clients reach them at `port`, which may be a proxy's, and the API of one at `apiPort`. */
  static running({ port, apiPort }) {
    const server = new Server();
    Object.assign(server, { port, apiPort, config: sharedConfig(), log: '', stop: async () => {} });
    return server;
  }

  get http() {
    return `http://127.0.0.1:${this.port}`;
  }

  get internal() {
    return `http://127.0.0.1:${this.internalPort}`;
  }

  get websocket() {
    return `ws://127.0.0.1:${this.port}/connection/websocket`;
  }

  get apiKey() {
    return this.config.api?.keys?.[0];
  }

  get tokenSecret() {
    return this.config.client.token.hmac_secret;
  }

  get pid() {
    return this.process.pid;
  }

  async launch() {
    this.log = this.log ?? '';
    // The kernel ends the server when this process dies in whatever way; setpriv becomes the server itself.
    this.process = spawn('setpriv', ['--pdeathsig', 'KILL', '--', binary, ...this.arguments], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...environment(), ...this.variables },
    });
    const keep = (chunk) => (this.log += chunk);
    this.process.stdout.on('data', keep);
    this.process.stderr.on('data', keep);
    running.add(this);
    await until(() => {
      assert.equal(this.process.exitCode, null, `the server ended at its start:\n${this.log}`);
      return fetch(`${this.internal}/readyz`).then((answer) => answer.ok, () => false);
    }, 'the server is ready', START_DEADLINE);
  }

  /** Ends the server as an orchestrator would, and gives its exit code. */
  async stop(signal = 'SIGTERM') {
    running.delete(this);
    if (this.process.exitCode !== null || this.process.signalCode !== null) return this.process.exitCode;
    const exited = once(this.process, 'exit');
    this.process.kill(signal);
    const kill = setTimeout(() => this.process.kill('SIGKILL'), STOP_DEADLINE);
    const [code] = await exited;
    clearTimeout(kill);
    return code;
  }

  /** The same ports and configuration again; the memory engine starts empty. */
  async restart(signal = 'SIGTERM') {
    await this.stop(signal);
    await this.launch();
  }

  /** Calls a method of the HTTP API and gives its result; an error reply is thrown as an ApiError. */
  async api(method, params = {}) {
    const headers = { 'content-type': 'application/json' };
    if (this.apiKey) headers['x-api-key'] = this.apiKey;
    const answer = await fetch(`http://127.0.0.1:${this.apiPort ?? this.port}/api/${method}`, {
      method: 'POST',
      headers,
      body: JSON.stringify(params),
    });
    const text = await answer.text();
    assert.equal(answer.status, 200, text);
    const reply = JSON.parse(text);
    if (reply.error) throw new ApiError(reply.error);
    return reply.result ?? reply;
  }

  publish(channel, data, more = {}) {
    return this.api('publish', { channel, data, ...more });
  }

  /** A connection token of the shared secret. */
  token(user, claims = {}) {
    return sign({ sub: user, ...claims }, this.tokenSecret);
  }

  subscriptionToken(user, channel, claims = {}) {
    return sign({ sub: user, channel, ...claims }, this.tokenSecret);
  }

  async metrics() {
    const answer = await fetch(`${this.internal}/metrics`);
    assert.equal(answer.status, 200);
    return answer.text();
  }
}

export class ApiError extends Error {
  constructor({ code, message }) {
    super(`${code} ${message}`);
    this.code = code;
  }
}

/** Without what would configure the server: every variable with its prefix does, `GATEWAY_BIN` too. */
export const environment = () =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('FANWIRE_')));

const running = new Set();

// A failed test is hard to read without what its server said.
process.on('exit', () => {
  if (!process.exitCode) return;
  for (const server of running) console.error(`--- log of the server with pid ${server.pid} ---\n${tail(server.log)}`);
});

/** Tells a failing test's server log; to be used as `test('...', told(server, async () => ...))`. */
export const told = (server, body) => async (t) => {
  const from = server().log.length;
  try {
    await body(t);
  } catch (error) {
    console.error(`--- server log during "${t.name}" ---\n${tail(server().log.slice(from))}`);
    throw error;
  }
};

const tail = (text) => text.split('\n').slice(-60).join('\n');

/** A JSON Web Token with HMAC. */
export function sign(claims, secret, algorithm = 'HS256') {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: algorithm, typ: 'JWT' })}.${part(claims)}`;
  const hash = `sha${algorithm.slice(2)}`;
  return `${signed}.${createHmac(hash, secret).update(signed).digest('base64url')}`;
}

export const now = () => Math.floor(Date.now() / 1000);

/** Waits until a condition, which may be asynchronous, holds; what it gives is given back. */
export async function until(condition, what, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  for (;;) {
    const result = await condition();
    if (result) return result;
    if (Date.now() > end) throw new Error(`within ${deadline} ms it did not happen that ${what}`);
    await delay(10);
  }
}

/** The next time an emitter emits an event, with a deadline. */
export function next(emitter, event, deadline = DEADLINE) {
  const happens = new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      emitter.removeListener(event, got);
      reject(new Error(`within ${deadline} ms there was no event "${event}"`));
    }, deadline);
    const got = (context) => {
      clearTimeout(timer);
      resolve(context);
    };
    emitter.once(event, got);
  });
  // A test that failed before it came to wait for the event has failed once, which is enough.
  happens.catch(() => {});
  return happens;
}

// Below what the kernel gives to outgoing connections, so that a server finds its port free again when it is restarted.
const SERVER_PORTS = { first: 20_000, end: 32_000 };
const givenPorts = new Set();

/** A port that nobody uses at this moment, and never the same twice. */
export async function freePort() {
  for (;;) {
    const port = randomInt(SERVER_PORTS.first, SERVER_PORTS.end);
    if (givenPorts.has(port)) continue;
    const probe = net.createServer().listen(port, '127.0.0.1');
    try {
      await once(probe, 'listening');
    } catch {
      continue;
    }
    givenPorts.add(port);
    probe.close();
    await once(probe, 'close');
    return port;
  }
}

/** Node never exits once a socket was reset while it was being shut down. */
const reset = (socket) => (socket.writableEnded ? socket.destroy() : socket.resetAndDestroy());

/** Stands between client and server, to do to a connection what networks do. */
export class Proxy {
  static async start(target) {
    const proxy = new Proxy();
    proxy.pairs = new Set();
    proxy.refusing = false;
    proxy.isMute = false;
    proxy.accepted = 0;
    proxy.listener = net.createServer((near) => proxy.join(near, target));
    proxy.listener.listen(0, '127.0.0.1');
    await once(proxy.listener, 'listening');
    proxy.port = proxy.listener.address().port;
    return proxy;
  }

  join(near, target) {
    if (this.refusing) return near.resetAndDestroy();
    this.accepted += 1;
    const far = net.connect(target, '127.0.0.1');
    const pair = { near, far };
    this.pairs.add(pair);
    near.pipe(far);
    if (this.isMute) far.resume();
    else far.pipe(near);
    const end = () => {
      this.pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) socket.on('error', end).on('close', end);
  }

  /** Resets every connection on both sides, and lets none in until `mend`. */
  cut() {
    this.refusing = true;
    for (const { near, far } of this.pairs) for (const socket of [near, far]) reset(socket);
  }

  mend() {
    this.refusing = this.isMute = false;
  }

  /** Forwards nothing to clients, and tells neither side, until `cut` and `mend`. */
  mute() {
    this.isMute = true;
    for (const { near, far } of this.pairs) {
      far.unpipe(near);
      far.resume();
    }
  }

  /** Forwards nothing any more and tells neither side. */
  freeze() {
    for (const { near, far } of this.pairs) {
      near.unpipe(far);
      far.unpipe(near);
      near.pause();
      far.pause();
    }
  }

  stop() {
    this.cut();
    this.listener.close();
  }
}

/** Values of `over` win; objects are merged, everything else is replaced. */
function merge(base, over) {
  const merged = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const both = isObject(value) && isObject(base[key]);
    merged[key] = both ? merge(base[key], value) : value;
  }
  return merged;
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
