// A headless Chromium for the suites that need a real browser, and a small server for their pages.

import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';

/** Debian's Chromium with a new profile, quiet on the network but for the page's own requests; `options` are Playwright's. */
export const launch = (options = {}) =>
  chromium.launch({
    ...options,
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });

const require = createRequire(import.meta.url);

/** The folder of an installed npm package. */
export const packageFolder = (name) => {
  let folder = path.dirname(require.resolve(name));
  while (!fs.existsSync(path.join(folder, 'package.json'))) folder = path.dirname(folder);
  return folder;
};

/** Serves `pages`, a map from path to [content type, text], on a port and so an origin of its own. */
export async function servePages(pages) {
  const server = http.createServer((request, response) => {
    const page = pages[request.url.split('?')[0]];
    if (!page) return response.writeHead(404).end();
    response.writeHead(200, { 'content-type': page[0] }).end(page[1]);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { origin: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
}
