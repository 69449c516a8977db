// Clients that run in Node and in Chromium and tell what they see, for a suite in another language. Each line of
// standard input is a request to open or close one of them; answers and events go out as lines, all in JSON. The end
// of the input ends it.

import readline from 'node:readline';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { encodings } from '../centrifuge.mjs';
import { follow, listen } from './clients.mjs';
import { bareInPage, centrifugeInPage, eventSourceInPage, stop } from './pages.mjs';

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** Endpoints for the npm package `centrifuge`: the address of a WebSocket, or a list of transports. */
const websocket = ({ address }) => address;
const listed = (...transports) => ({ address, http }) =>
  transports.map((transport) => ({
    transport,
    endpoint: transport === 'websocket' ? address : `${http}/connection/${transport}`,
  }));

const stream = listed('http_stream');
const sse = listed('sse');
const any = listed('websocket', 'http_stream', 'sse');

const inNode = (encoding, address) => (place, tell) => {
  const { Client, unpack } = encodings[encoding];
  const options = { websocket: WebSocket, eventsource: EventSource, emulationEndpoint: `${place.http}/emulation` };
  return listen(Client, { unpack, ...options }, { ...place, address: address(place) }, tell);
};

const kinds = {
  json: inNode('json', websocket),
  protobuf: inNode('protobuf', websocket),
  'stream-json': inNode('json', stream),
  'stream-protobuf': inNode('protobuf', stream),
  'sse-json': inNode('json', sse),
  'any-json': inNode('json', any),
  'any-protobuf': inNode('protobuf', any),
  eventsource: (place, tell) => follow(EventSource, place, tell),
  'page-json': centrifugeInPage('json', websocket),
  'page-protobuf': centrifugeInPage('protobuf', websocket),
  'page-stream': centrifugeInPage('json', stream),
  'page-sse': centrifugeInPage('json', sse),
  'page-eventsource': eventSourceInPage,
  'page-reconnecting-websocket': bareInPage('reconnecting-websocket', false),
  'page-reconnectingwebsocket': bareInPage('reconnectingwebsocket', false),
  'envelope-reconnecting-websocket': bareInPage('reconnecting-websocket', true),
  'envelope-reconnectingwebsocket': bareInPage('reconnectingwebsocket', true),
};

/** The clients that are open, by their names. */
const clients = new Map();

const requests = {
  open: async ({ name, kind, ...place }) => {
    const listener = { isOpen: true };
    clients.set(name, listener);
    listener.client = await kinds[kind](place, (event) => listener.isOpen && say({ name, ...event }));
  },
  close: async ({ name }) => {
    const listener = clients.get(name);
    listener.isOpen = false;
    await listener.client.close();
    clients.delete(name);
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
await stop();
process.exit();
