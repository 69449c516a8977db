// Clients that run in Node and in Chromium and tell what they see, for a suite in another language. Each line of
// standard input is a request to open or close one of them; answers and events go out as lines, all in JSON. The end
// of the input ends it.

import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { encodings } from '../centrifuge.mjs';
import { launch, packageFolder, servePages } from '../chromium.mjs';

const HTML = 'text/html; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** One client of the npm package that subscribes to topics and tells of everything. Pages get it as text, so it uses
    nothing but its arguments. */
function listen(Client, { unpack, ...options }, { address, token, topics }, tell) {
  const pauses = { minReconnectDelay: 20, maxReconnectDelay: 200 };
  const client = new Client(address, { token, timeout: 10_000, ...pauses, ...options });
  client.on('connecting', ({ code }) => tell({ event: 'connecting', code }));
  client.on('connected', ({ client }) => tell({ event: 'connected', client }));
  client.on('disconnected', ({ code }) => tell({ event: 'disconnected', code }));
  client.on('error', () => {});
  for (const topic of topics) {
    const subscription = client.newSubscription(topic, { minResubscribeDelay: 20, maxResubscribeDelay: 200 });
    const told = (event, more) => tell({ event, topic, ...more });
    subscription.on('subscribed', ({ recovered, wasRecovering }) => told('subscribed', { recovered, wasRecovering }));
    subscription.on('unsubscribed', ({ code }) => told('unsubscribed', { code }));
    subscription.on('publication', ({ data, offset = 0 }) => told('publication', { data: unpack(data), offset }));
    subscription.on('join', ({ info }) => told('join', { client: info.client }));
    subscription.on('leave', ({ info }) => told('leave', { client: info.client }));
    subscription.on('error', () => {});
    subscription.subscribe();
  }
  client.connect();
  return client;
}

/** The address by which the package connects: a WebSocket's, or a list of one other transport. */
const addressOf = ({ address, http }, transport) =>
  transport ? [{ transport, endpoint: `${http}/connection/${transport}` }] : address;

const inNode = (encoding, transport) => (place, tell) => {
  const { Client, unpack } = encodings[encoding];
  const options = { websocket: WebSocket, eventsource: EventSource, emulationEndpoint: `${place.http}/emulation` };
  const client = listen(Client, { unpack, ...options }, { ...place, address: addressOf(place, transport) }, tell);
  return () => client.disconnect();
};

function inEventSource({ source: address }, tell) {
  const source = new EventSource(address);
  source.addEventListener('open', () => tell({ event: 'connected' }));
  source.addEventListener('error', () => tell({ event: 'connecting' }));
  source.addEventListener('disconnect', ({ data }) => tell({ event: 'goodbye', ...JSON.parse(data) }));
  source.addEventListener('subscribed', ({ data }) => {
    for (const { topic, recovered } of JSON.parse(data).subscribed) {
      tell({ event: 'subscribed', topic, recovered, wasRecovering: recovered !== undefined });
    }
  });
  source.addEventListener('message', ({ data }) => {
    const { topic, data: payload, offset = 0 } = JSON.parse(data);
    tell({ event: 'publication', topic, data: payload, offset });
  });
  return () => source.close();
}

/** Chromium, and the pages it shows, once somebody wants them. */
let chromium;

async function startChromium() {
  const script = (build) => fs.readFileSync(path.join(packageFolder('centrifuge'), 'dist', build), 'utf8');
  const page = (build) => [HTML, `<!doctype html><title>listener</title><script src="/${build}"></script>`];
  const pages = await servePages({
    '/json': page('centrifuge.js'),
    '/protobuf': page('centrifuge.protobuf.js'),
    '/centrifuge.js': [SCRIPT, script('centrifuge.js')],
    '/centrifuge.protobuf.js': [SCRIPT, script('centrifuge.protobuf.js')],
  });
  return { pages, browser: await launch() };
}

const inPage = (encoding, transport) => async (place, tell) => {
  chromium ??= startChromium();
  const { pages, browser } = await chromium;
  const page = await browser.newPage();
  await page.exposeFunction('tell', tell);
  await page.goto(`${pages.origin}/${encoding}`);
  await page.evaluate(
    ({ listen, encoding, place }) => {
      const text = (data) => (encoding === 'protobuf' ? JSON.parse(new TextDecoder().decode(data)) : data);
      const options = { unpack: text, emulationEndpoint: `${place.http}/emulation` };
      window.client = new Function(`return ${listen}`)()(Centrifuge, options, place, tell);
    },
    { listen: `${listen}`, encoding, place: { ...place, address: addressOf(place, transport) } },
  );
  return () => page.close();
};

const kinds = {
  json: inNode('json'),
  protobuf: inNode('protobuf'),
  'stream-json': inNode('json', 'http_stream'),
  'stream-protobuf': inNode('protobuf', 'http_stream'),
  'sse-json': inNode('json', 'sse'),
  eventsource: inEventSource,
  'page-json': inPage('json'),
  'page-protobuf': inPage('protobuf'),
  'page-stream': inPage('json', 'http_stream'),
  'page-sse': inPage('json', 'sse'),
};

/** How to close each open listener, by its name. */
const open = new Map();

const requests = {
  open: async ({ name, kind, ...place }) => {
    open.set(name, await kinds[kind](place, (event) => say({ name, ...event })));
  },
  close: async ({ name }) => {
    await open.get(name)();
    open.delete(name);
  },
};

async function answer({ id, request, ...parameters }) {
  try {
    await requests[request](parameters);
    say({ id });
  } catch (error) {
    say({ id, error: `${error.stack}` });
  }
}

const answers = new Set();
for await (const line of readline.createInterface({ input: process.stdin })) {
  const answered = answer(JSON.parse(line)).finally(() => answers.delete(answered));
  answers.add(answered);
}
await Promise.all(answers);
if (chromium) await (await chromium).browser.close();
process.exit();
