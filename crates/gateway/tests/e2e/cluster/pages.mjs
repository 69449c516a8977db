// Clients that run in pages of Chromium, which is started when the first one is wanted.

import fs from 'node:fs';
import path from 'node:path';
import { launch, packageFolder, servePages } from '../chromium.mjs';
import { follow, listen, reconnecting } from './clients.mjs';

const HTML = 'text/html; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';

/** The script of each page, in the folder of an npm package. */
const scripts = {
  json: ['centrifuge', 'dist/centrifuge.js'],
  protobuf: ['centrifuge', 'dist/centrifuge.protobuf.js'],
  'reconnecting-websocket': ['reconnecting-websocket', 'dist/reconnecting-websocket-iife.min.js'],
  reconnectingwebsocket: ['reconnectingwebsocket', 'reconnecting-websocket.js'],
};

/** Chromium, and the server of its pages. */
let chromium;

/** Pages that no client uses at the moment, by name. A new one takes Chromium longer than everything else here. */
const free = new Map();

async function start() {
  const content = { '/plain': [HTML, '<!doctype html><title>listener</title>'] };
  for (const [name, [of, file]] of Object.entries(scripts)) {
    content[`/${name}`] = [HTML, `<!doctype html><title>listener</title><script src="/${name}.js"></script>`];
    content[`/${name}.js`] = [SCRIPT, fs.readFileSync(path.join(packageFolder(of), file), 'utf8')];
  }
  return { pages: await servePages(content), browser: await launch() };
}

async function newPage(name) {
  chromium ??= start();
  const { pages, browser } = await chromium;
  const page = await browser.newPage();
  const opened = { page, tell: () => {} };
  await page.exposeFunction('tell', (events) => events.forEach((event) => opened.tell(event)));
  await page.goto(`${pages.origin}/${name}`);
  return opened;
}

/** Runs a function of `clients.mjs` in a page. `setting`, which runs there too, returns its first arguments. */
const inPage = (name, client, setting) => async (place, tell) => {
  if (!free.has(name)) free.set(name, []);
  const opened = free.get(name).pop() ?? (await newPage(name));
  opened.tell = tell;
  await opened.page.evaluate(
    ({ client, setting, place }) => {
      // A call out of the page costs much more than a message, so what waits for one goes together.
      const waiting = [];
      let told = Promise.resolve();
      const tell = (event) => {
        if (waiting.push(event) > 1) return;
        told = told.then(() => window.tell(waiting.splice(0)));
      };
      const function_ = (text) => new Function(`return ${text}`)();
      const { close } = function_(client)(...function_(setting)(place), place, tell);
      window.close = () => {
        close();
        return told;
      };
    },
    { client: `${client}`, setting: `${setting}`, place },
  );
  return {
    close: async () => {
      await opened.page.evaluate(() => window.close());
      free.get(name).push(opened);
    },
  };
};

export const centrifugeInPage = (encoding, address) => {
  const run = inPage(encoding, listen, ({ http, encoding }) => {
    const unpack = (data) => (encoding === 'protobuf' ? JSON.parse(new TextDecoder().decode(data)) : data);
    return [Centrifuge, { unpack, emulationEndpoint: `${http}/emulation` }];
  });
  return (place, tell) => run({ ...place, encoding, address: address(place) }, tell);
};

export const eventSourceInPage = inPage('plain', follow, () => [EventSource]);

/** The libraries that open a bare WebSocket again: one asks for the address each time, the other has it in a property. */
const libraries = {
  'reconnecting-websocket': ({ isEnveloped }) => [
    (address) => {
      const delays = { minReconnectionDelay: 20, maxReconnectionDelay: 200 };
      const socket = new ReconnectingWebSocket(address, [], delays);
      return { socket, again: () => socket.reconnect() };
    },
    isEnveloped,
  ],
  reconnectingwebsocket: ({ isEnveloped }) => [
    (address) => {
      const delays = { reconnectInterval: 20, maxReconnectInterval: 200 };
      const socket = new ReconnectingWebSocket(address(), null, delays);
      socket.onconnecting = () => {
        socket.url = address();
      };
      return { socket, again: () => socket.refresh() };
    },
    isEnveloped,
  ],
};

export const bareInPage = (library, isEnveloped) => {
  const run = inPage(library, reconnecting, libraries[library]);
  return (place, tell) => run({ ...place, isEnveloped }, tell);
};

export async function stop() {
  if (chromium) await (await chromium).browser.close();
}
