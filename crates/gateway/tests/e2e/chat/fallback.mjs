// The chat page where something stands in the way of its transports: in the browser, or between it and the gateway.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe } from 'node:test';
import { until } from '../harness.mjs';
import { Front, pass, refuse } from './front.mjs';
import { Stage } from './stage.mjs';
import { TRANSPORTS } from './transports.mjs';

/** The response is held until it has ended, as by a proxy that looks at whole responses. */
const hold = () => {};
const isPoll = (request) => request.url.includes('wait=');

/** Makes a window's browser one that lacks some of what a page may use. */
const without = (...names) => ({
  prepare: (page) =>
    page.addInitScript((lacking) => {
      for (const name of lacking) delete window[name];
    }, names),
});

describe('chat page with obstacles', () => {
  let front;
  beforeEach(async () => {
    front = await Front.start(stage.proxy.port);
  });
  // Ahead of the stage's: a complaint of a window keeps the hooks behind it from running.
  afterEach(() => front.stop());
  const stage = new Stage('obstacles');
  const check = (name, body) => stage.addTest(name, body);
  const come = (name, options) => stage.enter(name, options);
  const isOver = async (window, transport) => {
    await window.connected();
    assert.equal(await window.page.textContent('#status-transport'), TRANSPORTS[transport].words);
  };

  /** Bob, who comes by a way of his own, and Ada, who has all she needs, do what one does in a chat. */
  const chat = async (transport, options) => {
    const ada = await come('Ada');
    const bob = await come('Bob', { port: stage.proxy.port, ...options });
    await isOver(ada, 'websocket');
    await isOver(bob, transport);
    const said = [];
    const says = async (speaker, text) => {
      said.push(text);
      await speaker.say(text);
      await ada.showsTexts(said);
      await bob.showsTexts(said);
    };

    await Promise.all([ada.showsOnline(2), bob.showsOnline(2)]);
    await ada.shows('.notice', 'Bob joined');
    assert.deepEqual(await bob.people(), ['Bob you', 'Ada']);
    await says(bob, 'Hello Ada, 你好 👋 “quoted” \\ back');
    await says(ada, 'Hello Bob, 你好 👋 “quoted” \\ back');
    said.push(...Array.from({ length: 10 }, (_, count) => `burst ${count}`));
    for (const text of said.slice(-10)) await bob.say(text);
    await ada.showsTexts(said);
    await bob.photograph(`${transport}-${stage.room}`);

    await bob.openRoom(`garden-${stage.room}`);
    await stage.publish({ text: 'while you were out' });
    said.push('while you were out');
    await bob.shows(`.room[data-key="room-${stage.room}"] .badge`, '1');
    await bob.openRoom(`room-${stage.room}`);
    await bob.showsTexts(said);

    stage.proxy.cut();
    await bob.disconnected();
    await ada.say('you cannot hear this yet');
    said.push('you cannot hear this yet');
    await ada.showsTexts(said);
    await bob.say('nor you this');
    stage.proxy.mend();
    said.push('nor you this');
    await isOver(bob, transport);
    await Promise.all([ada.showsTexts(said), bob.showsTexts(said)]);
    assert.equal(await bob.count('.divider.gap'), 0);
    await Promise.all([ada.showsOnline(2), bob.showsOnline(2)]);

    await bob.page.click('#rename');
    await bob.page.fill('#name-input', 'Robert');
    await bob.page.click('#name-submit');
    await ada.showsPeople(['Ada you', 'Robert']);
    await bob.page.reload();
    await isOver(bob, transport);
    await bob.showsTexts(said);
    await bob.page.context().close();
    await ada.showsPeople(['Ada you']);
  };

  check('without WebSocket it chats over an HTTP stream', () => chat('http_stream', without('WebSocket')));

  check('without WebSocket, EventSource and fetch it chats over an HTTP stream', () =>
    chat('http_stream', without('WebSocket', 'EventSource', 'fetch')));

  check('where upgrades are refused it chats over an HTTP stream, and tries WebSocket once', async () => {
    await chat('http_stream', { port: front.port });
    // Once for each time that the page was loaded, however often it connected.
    assert.equal(front.upgrades, 2);
  });

  check('where upgrades and streams are refused it chats over server-sent events', async () => {
    front.answers = { '/connection/http_stream': refuse };
    await chat('sse', { port: front.port });
    const opened = (name) => front.paths.filter((path) => path === `/connection/${name}`).length;
    assert.equal(front.upgrades, 2);
    assert.equal(opened('http_stream'), 2);
    assert.ok(opened('sse') >= 4, `${front.paths}`);
  });

  check('where only whole responses get through it chats over long polls', async () => {
    front.answers = {
      '/connection/http_stream': (request, response) =>
        isPoll(request) ? pass(stage.proxy.port, request, response) : refuse(request, response),
      '/connection/sse': refuse,
    };
    await chat('long_poll', { port: front.port, ...without('WebSocket', 'EventSource', 'fetch') });
  });

  check('where responses are held until they end it comes to long polls after a while', async () => {
    front.answers = {
      '/connection/http_stream': (request, response) =>
        isPoll(request) ? pass(stage.proxy.port, request, response) : hold(),
      '/connection/sse': hold,
    };
    const bob = await come('Bob', { port: front.port, prepare: (page) => page.clock.install() });
    for (const path of ['/connection/http_stream', '/connection/sse']) {
      await until(() => front.paths.includes(path), `${path} is tried`);
      await bob.page.clock.runFor(10_500);
    }
    await isOver(bob, 'long_poll');
    await bob.say('Hello');
    await bob.showsTexts(['Hello']);
  });

  check('an answer to a long poll that is lost comes again, once, on the same connection', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob', { port: front.port, query: TRANSPORTS.long_poll.query });
    await isOver(bob, 'long_poll');
    await bob.showsOnline(2);
    const client = await bob.page.getAttribute('#status', 'title');
    const said = [];
    for (const loss of ['one', 'another']) {
      let lost = 0;
      front.answers['/connection/http_stream'] = (request, response) =>
        pass(stage.proxy.port, request, response, (answer) => {
          // Until it has come whole, a poll is not answered.
          answer.resume().on('end', () => {
            lost += 1;
            front.answers = {};
            response.destroy();
          });
        });
      // The poll that waits by now gets through, and the next is lost.
      for (const text of [`${loss}, first`, `${loss}, second`]) {
        said.push(text);
        await ada.say(text);
        await ada.showsTexts(said);
      }
      await bob.showsTexts(said);
      await until(() => lost === 1, 'an answer is lost');
    }
    await bob.say('all here');
    await ada.showsTexts([...said, 'all here']);
    assert.equal(await bob.page.getAttribute('#status', 'title'), client, 'it is the same client');
    assert.equal(await bob.count('.message'), said.length + 1);
    await ada.showsOnline(2);
  });

  check('where an upgrade is never answered it goes on to the next after a while', async () => {
    front.server.removeAllListeners('upgrade').on('upgrade', () => (front.upgrades += 1));
    const bob = await come('Bob', { port: front.port, prepare: (page) => page.clock.install() });
    await until(() => front.upgrades === 1, 'WebSocket is tried');
    await bob.page.clock.runFor(10_500);
    await isOver(bob, 'http_stream');
  });

  check('where nothing works it says so, tries all again, and takes what works then', async () => {
    let hopeless = Infinity; // The number of the last try in which nothing works.
    const refuseNow = (request, response) => {
      if (front.upgrades <= hopeless) refuse(request, response);
      else pass(stage.proxy.port, request, response);
    };
    front.answers = { '/connection/http_stream': refuseNow, '/connection/sse': refuseNow };
    const bob = await come('Bob', { port: front.port });
    await bob.shows('#banner', 'Next try in');
    hopeless = front.upgrades;
    await isOver(bob, 'http_stream');
    assert.equal(front.upgrades, hopeless + 1, 'WebSocket is tried again, once');
  });

  check('a transport that the address asks for is the only one that is tried', async () => {
    const bob = await come('Bob', { query: '?transport=sse', ...without('EventSource') });
    await bob.shows('#banner', 'this browser has no EventSource');
    const eve = await come('Eve', { port: front.port, query: '?transport=websocket' });
    await eve.shows('#banner', 'Next try in');
    await until(() => front.upgrades === 3, 'WebSocket is tried thrice');
    assert.deepEqual(
      front.paths.filter((path) => path.startsWith('/connection/')),
      [],
    );
    const mallory = await come('Mallory', { query: '?transport=constructor' });
    await isOver(mallory, 'websocket');
  });

  for (const transport of ['http_stream', 'sse', 'long_poll']) {
    check(`over ${transport} a message whose request fails is sent again, once`, async () => {
      const ada = await come('Ada');
      const { query } = TRANSPORTS[transport];
      const bob = await come('Bob', { port: front.port, query });
      await isOver(bob, transport);
      await bob.showsOnline(2);
      const said = [];
      for (const status of [404, 500, 503, 'cut']) {
        front.answers['/emulation'] = (request, response) => {
          front.answers = {};
          if (status === 'cut') response.destroy();
          else response.writeHead(status).end();
        };
        said.push(`through ${status}`);
        await bob.say(said.at(-1));
        await ada.showsTexts(said);
        await isOver(bob, transport);
      }
      await bob.showsTexts(said);
      assert.equal(await bob.count('.message.own'), 4);
    });

    check(`over ${transport} much that waits is sent in order, in requests that the server takes`, async () => {
      const { query } = TRANSPORTS[transport];
      const bob = await come('Bob', { port: front.port, query });
      await isOver(bob, transport);
      stage.proxy.cut();
      front.server.closeAllConnections();
      await bob.disconnected();
      const texts = Array.from({ length: 40 }, (_, count) => `${count} ${'你"'.repeat(900)}`);
      for (const text of texts) await bob.say(text);
      stage.proxy.mend();
      await isOver(bob, transport);
      const ada = await come('Ada');
      await until(async () => (await ada.texts()).length === texts.length, 'all messages arrive');
      assert.ok((await ada.texts()).join() === texts.join(), 'they are whole and in order');
    });
  }
});
