// Every command and snippet of README.md works as it stands, but for the port.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, packageFolder, servePages } from './chromium.mjs';
import { Server, told, until } from './harness.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../..');
const README = fs.readFileSync(path.join(ROOT, 'README.md'), 'utf8');

const blocks = (language) =>
  [...README.matchAll(/^```(\w+)\n(.*?)^```$/gms)].filter(([, of]) => of === language).map(([, , text]) => text);

describe('README.md', () => {
  let server;
  before(async () => {
    // The first command, but for compiling and the ports.
    server = await Server.startDev();
  });
  after(() => server.stop());
  const check = (name, body) => test(name, told(() => server, body));
  const here = (text) => text.replaceAll('127.0.0.1:8000', `127.0.0.1:${server.port}`);

  const commands = blocks('sh').flatMap((block) => block.trim().split('\n'));
  const verbs = commands.filter((command) => command.startsWith('cargo '));
  const others = commands.filter((command) => !command.startsWith('cargo '));

  test('the commands of cargo are those that the other tests run', () => {
    assert.deepEqual(verbs, ['cargo run --release -- serve --dev', 'cargo xtask test']);
    assert.ok(others.length >= 1);
  });

  check('the server says what it opened, where the page is, and a curl line that works', async () => {
    const line = await until(() => server.log.match(/^.*?(curl .*)$/m)?.[1], 'the start prints a curl line');
    assert.match(server.log, new RegExp(`http://127\\.0\\.0\\.1:${server.port}/`));
    const printed = execFileSync('sh', ['-c', line], { encoding: 'utf8', env: { ...process.env, NO_PROXY: '*' } });
    assert.ok(JSON.parse(printed).result, printed);
    const page = await fetch(`${server.http}/`);
    assert.equal(page.status, 200);
    assert.match(page.headers.get('content-type'), /^text\/html/);
  });

  check('what is published by the commands reaches the snippets in a browser', async () => {
    const [events, socket, centrifuge] = blocks('js');
    const importMap = JSON.stringify({ imports: { centrifuge: '/centrifuge/index.mjs' } });
    const build = path.join(packageFolder('centrifuge'), 'build/index.mjs');
    const pages = await servePages({
      '/': [
        'text/html; charset=utf-8',
        `<!doctype html><title>README</title><script type="importmap">${importMap}</script>
         <script>${here(events)}</script><script>${here(socket)}</script><script type="module">${here(centrifuge)}
         window.room = room;</script>`,
      ],
      '/centrifuge/index.mjs': ['text/javascript', fs.readFileSync(build, 'utf8')],
    });
    const browser = await launch();
    try {
      const page = await browser.newPage();
      const heard = [];
      page.on('console', async (message) => {
        const [from, value] = await Promise.all(message.args().map((argument) => argument.jsonValue()));
        heard.push([from, value]);
      });
      await page.goto(pages.origin);
      await until(
        () =>
          page.evaluate(
            () =>
              window.room?.state === 'subscribed' &&
              events.readyState === EventSource.OPEN &&
              socket.readyState === WebSocket.OPEN,
          ),
        'all snippets listen',
      );
      for (const command of others) {
        const printed = execFileSync('sh', ['-c', here(command)], {
          encoding: 'utf8',
          env: { ...process.env, NO_PROXY: '*' },
        });
        assert.ok(JSON.parse(printed).result, printed);
      }
      const of = (wanted, words) =>
        heard.find(([from, value]) => from === wanted && JSON.stringify(value).includes(words))?.[1];
      const all = ['EventSource', 'WebSocket', 'centrifuge-js'];
      await until(() => all.every((from) => of(from, 'backend')), 'all snippets print the message');
      assert.equal(of('EventSource', 'backend').topic, 'chat:lobby');
      assert.deepEqual(of('EventSource', 'backend').data, { text: 'Hello from a backend' });
      assert.equal(of('WebSocket', 'backend'), '{"text":"Hello from a backend"}');
      assert.deepEqual(of('centrifuge-js', 'backend'), { text: 'Hello from a backend' });
      const { publications } = await server.api('history', { channel: 'chat:lobby', limit: -1 });
      assert.ok(publications.some(({ data }) => data.text === 'Hello from a page'), 'the page has published');
      assert.ok(!of('WebSocket', 'from a page'), 'what it publishes does not come back');
    } finally {
      await browser.close();
      pages.stop();
    }
  });

  test('every file that it links to exists', () => {
    for (const [, target] of README.matchAll(/\]\((?!http)([^)]+)\)/g)) {
      assert.ok(fs.existsSync(path.join(ROOT, target)), target);
    }
  });
});
