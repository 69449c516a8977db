// The page of docs/examples in a browser that lacks what old browsers lack.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'acorn';
import { Front } from './chat/front.mjs';
import { launch, packageFolder } from './chromium.mjs';
import { Server, told, until } from './harness.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../..');
const example = (name) => fs.readFileSync(path.join(ROOT, 'docs/examples', name), 'utf8');
const SCRIPT = example('old-browsers.js');
const JSON3 = fs.readFileSync(path.join(packageFolder('json3'), 'lib/json3.min.js'), 'utf8');
const FILES = {
  '/': ['text/html', example('old-browsers.html')],
  '/old-browsers.js': ['text/javascript', SCRIPT],
  '/json3.min.js': ['text/javascript', JSON3],
};
const TOPIC = 'chat:lobby';

/** Takes from a page what came after ECMAScript 3 and its browsers. */
const age = (lacking) => {
  const names = 'WebSocket EventSource fetch JSON Promise URL URLSearchParams AbortController localStorage';
  for (const name of [...names.split(' '), ...lacking]) delete window[name];
  for (const [owner, later] of [
    [Array, 'isArray from of'],
    [Array.prototype, 'every filter find forEach includes indexOf map reduce some'],
    [Date, 'now'],
    [Document.prototype, 'getElementsByClassName querySelector querySelectorAll'],
    [Element.prototype, 'append prepend remove'],
    [EventTarget.prototype, 'addEventListener removeEventListener'],
    [Function.prototype, 'bind'],
    [Node.prototype, 'textContent'],
    [Object, 'create defineProperty keys'],
    [String.prototype, 'includes startsWith trim'],
  ]) {
    for (const name of later.split(' ')) delete owner[name];
  }
};

test('the scripts of the page are ECMAScript 3', () => {
  const read = (script) => parse(script, { ecmaVersion: 3, allowReserved: 'never' });
  for (const script of [SCRIPT, JSON3]) read(script);
  for (const later of ['let a', 'a.default', '({ a: 1, })', '({ get a() {} })', '[1].map((x) => x)']) {
    assert.throws(() => read(later), SyntaxError, later);
  }
});

describe('the page for old browsers', () => {
  let server;
  let browser;
  let front;
  let pages;
  before(async () => {
    server = await Server.startDev({ FANWIRE_SUBSCRIBE__JSONP: 'true' });
    browser = await launch();
  });
  beforeEach(async () => {
    pages = [];
    front = await Front.start(server.port, answersOf(FILES));
  });
  afterEach(async () => {
    for (const page of pages) await page.close();
    front.stop();
    assert.deepEqual(
      pages.flatMap((page) => page.errors),
      [],
    );
  });
  after(async () => {
    await browser.close();
    await server.stop();
  });
  const check = (name, body) =>
    test(
      name,
      told(() => server, body),
    );

  const answersOf = (files) =>
    Object.fromEntries(
      Object.entries(files).map(([name, [type, text]]) => [
        name,
        (request, response) => response.writeHead(200, { 'content-type': `${type}; charset=utf-8` }).end(text),
      ]),
    );

  /** Opens the page in a browser without these either. */
  const come = async (...lacking) => {
    const page = await browser.newPage({ viewport: { width: 640, height: 480 } });
    pages.push(page);
    page.errors = [];
    page.on('pageerror', (error) => page.errors.push(String(error)));
    await page.addInitScript(age, lacking);
    await page.goto(`http://127.0.0.1:${front.port}/`);
    return page;
  };
  const isConnected = (page, means) =>
    page.locator('#status', { hasText: `Connected by ${means}` }).waitFor();
  const say = async (page, text) => {
    await page.fill('#text', text);
    await page.press('#text', 'Enter');
  };
  /** The messages, in the order in which they came: the page shows the newest first. */
  const shows = async (page, expected) => {
    let texts;
    await until(async () => {
      // What reads all rows at once needs what the page lacks.
      texts = (await page.innerText('#messages')).split('\n').filter(Boolean).reverse();
      return JSON.stringify(texts) === JSON.stringify(expected);
    }, `the page shows ${JSON.stringify(expected)}`).catch((error) => {
      throw new Error(`${error.message}; it shows ${JSON.stringify(texts)}`);
    });
  };
  const present = async () => (await server.api('presence_stats', { channel: TOPIC })).num_clients;
  const photograph = async (page, name) => {
    const folder = process.env.SCREENSHOTS;
    if (folder) await page.screenshot({ path: path.join(folder, `old-browser-${name}.png`) });
  };

  /** People of two such pages, and a backend, talk. The pages poll through `way`. */
  const talk = async (means, lacking, way = front) => {
    const ada = await come(...lacking);
    const bob = await come(...lacking);
    for (const page of [ada, bob]) await isConnected(page, means);
    await until(async () => (await present()) >= 2, 'both are present');
    const said = [];
    const all = async (text) => {
      said.push(text);
      for (const page of [ada, bob]) await shows(page, said);
    };
    const hostile = '<b onclick="alert(1)">"quoted" \\ 你好 👋 = & % +';
    await say(ada, 'Hello Bob');
    await all('Hello Bob');
    await say(bob, hostile);
    await all(hostile);
    await server.publish(TOPIC, { text: 'from a backend' });
    await all('from a backend');
    await server.publish(TOPIC, [1, null, { a: 'b' }]);
    await all('[1,null,{"a":"b"}]');
    for (let count = 0; count < 20; count += 1) {
      await server.publish(TOPIC, { text: `burst ${count}` });
      said.push(`burst ${count}`);
    }
    for (const page of [ada, bob]) await shows(page, said);
    await photograph(bob, means);

    // Polls are not answered for a while.
    way.answers['/subscribe'] = (request, response) => response.destroy();
    way.server.closeAllConnections();
    for (const page of [ada, bob]) await page.locator('#status', { hasText: 'Connecting' }).waitFor();
    await server.publish(TOPIC, { text: 'while you were away' });
    delete way.answers['/subscribe'];
    await all('while you were away');
    for (const page of [ada, bob]) await isConnected(page, means);
  };

  /** Changes a line of the script. */
  const change = (line, value) => {
    assert.ok(SCRIPT.includes(line), line);
    const changed = SCRIPT.replace(line, `${line.split('=')[0]}= "${value}";`);
    Object.assign(front.answers, answersOf({ '/old-browsers.js': ['text/javascript', changed] }));
  };

  for (const [means, lacking] of [
    ['XMLHttpRequest', []],
    ['scripts', ['XMLHttpRequest']],
  ]) {
    check(`it talks by ${means}`, () => talk(means, lacking));

    check(`it talks by ${means} with a server of another address`, async () => {
      const way = await Front.start(server.port);
      change('var SERVER = "";', `http://127.0.0.1:${way.port}`);
      await talk(means, lacking, way);
      assert.ok(way.paths.filter((name) => name === '/publish').length >= 2, `${way.paths}`);
      way.stop();
    });
  }

  check('after a restart of the server it says that something may be missing, and goes on', async () => {
    const ada = await come();
    await isConnected(ada, 'XMLHttpRequest');
    await server.restart();
    await shows(ada, ['(Something may be missing here.)']);
    await isConnected(ada, 'XMLHttpRequest');
    await say(ada, 'back');
    await shows(ada, ['(Something may be missing here.)', 'back']);
  });

  check('it tells why it is refused', async () => {
    change('var TOPIC = "chat:lobby";', '$private');
    const ada = await come();
    await ada.locator('#status', { hasText: 'Refused:' }).waitFor();
  });
});
