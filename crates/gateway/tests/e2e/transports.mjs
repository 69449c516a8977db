// Every example of docs/transports.md works as it stands, but for the port.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, packageFolder, servePages } from './chromium.mjs';
import { Proxy, Server, told, until } from './harness.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../..');
const PAGE = fs.readFileSync(path.join(ROOT, 'docs/transports.md'), 'utf8');
const PYTHON = path.join(ROOT, '.tools/venv/bin/python');
const COMMANDS = { sh: ['sh', '-c'], python: [PYTHON, '-u', '-c'] };

/** The text that the example before all sections publishes. */
const HELLO = 'Hello';
const MISSED = 'Missed';
/** What a page prints whose loop has ended. */
const OVER = 'Over';

/** Codes of the API's for clients that are to come back, and for those that are not. */
const RECONNECTS = 4000;
const FINAL = 4500;

/** Examples that come back by themselves and go on where they were. */
const goesOn = (text) => /cursor=|"cursor"|centrifuge"|from centrifuge|EventSource\(.*\/subscribe/.test(text);

/** Of those the ones that come back in a loop of their own. */
const loops = (text) => goesOn(text) && /^ *while /m.test(text);

/** The examples come back no earlier than this, in milliseconds, where the server ended them. */
const PAUSE_MIN = 1000;

/** The blocks of code below each heading. */
const sections = PAGE.split(/^## /m).map((section) => ({
  title: section.split('\n', 1)[0],
  blocks: [...section.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, text]) => ({ language, text })),
}));
const [publish] = sections[0].blocks;

describe('docs/transports.md', () => {
  let server;
  let proxy;
  let pages;
  let browser;
  before(async () => {
    server = await Server.startDev();
    proxy = await Proxy.start(server.port);
    const importMap = JSON.stringify({ imports: { centrifuge: '/centrifuge/index.mjs' } });
    const build = path.join(packageFolder('centrifuge'), 'build/index.mjs');
    pages = await servePages({
      '/': ['text/html', `<!doctype html><title>Page</title><script type="importmap">${importMap}</script>`],
      '/centrifuge/index.mjs': ['text/javascript', fs.readFileSync(build, 'utf8')],
    });
    browser = await launch();
  });
  after(async () => {
    await browser.close();
    pages.stop();
    proxy.stop();
    await server.stop();
  });

  const here = (text) => text.replaceAll('127.0.0.1:8000', `127.0.0.1:${proxy.port}`);

  /** Runs a program, and gives what it has printed so far, and the way to end it. */
  const run = ({ language, text }) => {
    // The program leads a group of processes, which are ended together.
    const [program, ...options] = COMMANDS[language];
    const child = spawn(program, [...options, here(text)], {
      detached: true,
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, NO_PROXY: '*' },
    });
    const running = { printed: '', ended: once(child, 'exit'), isOver: () => child.exitCode !== null };
    child.stdout.on('data', (chunk) => (running.printed += chunk));
    running.stop = async () => {
      if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid, 'SIGKILL');
      await running.ended;
    };
    return running;
  };

  /** The same for a module in a page of another origin. */
  const show = async ({ text }) => {
    const page = await browser.newPage();
    const running = { printed: '', stop: () => page.close() };
    page.on('console', (message) => (running.printed += `${message.text()}\n`));
    page.on('pageerror', (error) => (running.printed += `${error}\n`));
    await page.goto(pages.origin);
    await page.addScriptTag({ type: 'module', content: here(text) });
    return running;
  };

  /** Listens to the topic of the examples. */
  const listen = async () => {
    const end = new AbortController();
    const answer = await fetch(`${server.http}/subscribe?topic=chat:lobby&as=sse`, { signal: end.signal });
    const listener = { heard: '', stop: () => end.abort() };
    (async () => {
      for await (const text of answer.body.pipeThrough(new TextDecoderStream())) listener.heard += text;
    })().catch(() => {});
    return listener;
  };

  const greet = async () => {
    const greeting = run(publish);
    const [code] = await greeting.ended;
    assert.equal(code, 0);
    assert.ok('result' in JSON.parse(greeting.printed), greeting.printed);
  };

  /** Publishes something while the example's connections are cut. */
  const goOn = async (running, { text }) => {
    proxy.cut();
    await server.publish('chat:lobby', { text: MISSED });
    proxy.mend();
    await until(() => running.printed.includes(MISSED), `the example goes on where it was:\n${text}`);
    await greet();
    await until(() => running.printed.split(MISSED).at(-1).includes(HELLO), `the example listens on:\n${text}`);
    assert.equal(running.printed.split(MISSED).length, 2, running.printed);
  };

  /** The same for an example that does not go on where it was. */
  const comeBack = async (running, { text }) => {
    proxy.cut();
    proxy.mend();
    const before = running.printed.length;
    const hears = async () => {
      await greet();
      return running.printed.length > before;
    };
    await until(hears, `the example comes back:\n${text}`);
  };

  test('each transport has its examples', () => {
    const transports = sections.slice(1).filter(({ blocks }) => blocks.length > 0);
    assert.ok(transports.length >= 3);
    assert.ok(transports.flatMap(({ blocks }) => blocks).filter(({ text }) => goesOn(text)).length >= 11);
    for (const { title, blocks } of transports) {
      const languages = blocks.map(({ language }) => language);
      for (const language of ['sh', 'js', 'python']) assert.ok(languages.includes(language), `${title}: ${language}`);
    }
  });

  for (const { title, blocks } of sections.slice(1)) {
    for (const block of blocks) {
      test(
        `${title}: ${block.language}`,
        told(() => server, async () => {
          const isPublisher = block.text.includes('/publish?');
          const listener = isPublisher ? await listen() : undefined;
          const running = block.language === 'js' ? await show(block) : run(block);
          try {
            if (isPublisher) {
              await until(() => listener.heard.includes(HELLO), `the example publishes the message:\n${block.text}`);
            } else if (block.text.includes('chat:lobby')) {
              // Nothing tells from outside when the example listens.
              const heard = async () => {
                await greet();
                return running.printed.includes(HELLO);
              };
              await until(heard, `the example prints the message:\n${block.text}`);
              if (goesOn(block.text)) await goOn(running, block);
              else if (block.text.includes('async for socket in connect')) await comeBack(running, block);
            } else {
              await until(() => running.printed.trim(), `the example prints something:\n${block.text}`);
              assert.match(running.printed, /^(\{\}|200)\s*$/);
            }
          } finally {
            listener?.stop();
            await running.stop();
          }
        }),
      );
    }
  }

  // They wait most of the time, so they run side by side.
  describe('its loops', { concurrency: true }, () => {
    for (const { title, blocks } of sections.slice(1)) {
      for (const [index, { language, text }] of blocks.entries()) {
        if (!loops(text)) continue;
        test(
          `${title}: ${language} comes back after a pause, or not at all`,
          told(() => server, async () => {
            const topic = `chat:${title.replaceAll(' ', '-')}-${index}`;
            const told = text.replaceAll('chat:lobby', topic);
            const running =
              language === 'js' ? await show({ text: `${told}\nconsole.log("${OVER}");` }) : run({ language, text: told });
            const clients = async () => Object.keys((await server.api('presence', { channel: topic })).presence);
            const disconnect = async (code) => {
              const [client] = await clients();
              await server.api('disconnect', { client, disconnect: { code, reason: 'said so' } });
            };
            const hears = async (words) => {
              await server.publish(topic, { text: words });
              return running.printed.includes(words);
            };
            try {
              // Nothing is published yet, so the poll that opened a session waits.
              await until(async () => (await clients()).length > 0, `the example listens:\n${told}`);
              const began = Date.now();
              await disconnect(RECONNECTS);
              await until(() => hears(HELLO), `the example comes back:\n${told}`);
              assert.ok(Date.now() - began >= PAUSE_MIN, `after ${Date.now() - began} ms`);
              await disconnect(FINAL);
              await until(() => running.isOver?.() || running.printed.includes(OVER), `the example ends:\n${told}`);
            } finally {
              await running.stop();
            }
          }),
        );
      }
    }
  });

  test('every file and section that it links to exists', () => {
    const anchor = (title) => title.toLowerCase().replace(/[^\w\- ]/g, '').replaceAll(' ', '-');
    for (const [, file, section] of PAGE.matchAll(/\]\((?!http)([^)#]*)(?:#([^)]+))?\)/g)) {
      const text = file ? fs.readFileSync(path.join(ROOT, 'docs', file), 'utf8') : PAGE;
      const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(([, title]) => anchor(title));
      assert.ok(!section || anchors.includes(section), `${file}#${section}`);
    }
  });
});
