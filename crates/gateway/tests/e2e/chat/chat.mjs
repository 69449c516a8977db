// The chat page in real browser windows against `fanwire serve --dev`, over each transport. Run from the folder above:
// `GATEWAY_BIN=... SCREENSHOTS=/tmp/chat node --test chat/chat.mjs`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe } from 'node:test';
import { until } from '../harness.mjs';
import { Stage } from './stage.mjs';
import { TRANSPORTS } from './transports.mjs';
import { ChatWindow } from './window.mjs';

const PHONES = { 'Grace Hopper': { width: 360, height: 740 }, Charles: { width: 390, height: 844 } };
const UNSETTLED = ['waiting', 'sending', 'failed']
  .map((state) => `.message[data-delivery="${state}"]`)
  .join();

const suite = (transport) => () => {
  const { query, words } = TRANSPORTS[transport];
  const stage = new Stage(transport);
  const check = (name, body) => stage.addTest(name, body);
  const come = async (name, options) => {
    const window = await stage.enter(name, { query, ...options });
    await window.connected();
    assert.equal(await window.page.textContent('#status-transport'), words);
    return window;
  };

  check('two windows talk both ways, in one order', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob');
    const said = [];
    for (let turn = 0; turn < 10; turn += 1) {
      const [speaker, listener] = turn % 3 === 0 ? [bob, ada] : [ada, bob];
      said.push(`message ${turn}`);
      await speaker.say(said.at(-1));
      await listener.showsTexts(said);
    }
    await ada.showsTexts(said);
    assert.equal(await ada.count('.message.own'), 6);
    assert.equal(await bob.count('.message.own'), 4);
    const burst = async (window, name) => {
      for (let count = 0; count < 5; count += 1) await window.say(`${name} ${count}`);
    };
    await Promise.all([burst(ada, 'ada'), burst(bob, 'bob')]);
    await until(
      async () => (await ada.texts()).length === 20 && !(await ada.count(UNSETTLED)),
      'all is said',
    );
    await bob.showsTexts(await ada.texts());
    const late = await come('Late');
    await late.showsTexts(await ada.texts());
  });

  check('who is online, with joins and leaves, live', async () => {
    const ada = await come('Ada');
    await ada.showsOnline(1);
    const bob = await come('Bob');
    await ada.showsOnline(2);
    await bob.showsOnline(2);
    await ada.shows('.notice', 'Bob joined');
    assert.deepEqual(await bob.people(), ['Bob you', 'Ada']);
    await ada.say('Hello Bob');
    await bob.showsTexts(['Hello Bob']);
    await bob.page.context().close();
    await ada.showsPeople(['Ada you']);
    await ada.showsOnline(1);
    await ada.shows('.notice', 'Bob left');
  });

  check('who wrote here and is elsewhere is online, and then was seen last', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob');
    await bob.say('I will be elsewhere');
    await ada.showsTexts(['I will be elsewhere']);
    await ada.showsOnline(2);
    assert.equal(await ada.count('#absent:not([hidden])'), 0);
    await bob.page.click(`[aria-label="Leave room-${stage.room}"]`, { force: true });
    await ada.shows('#absent-list .person[data-status="online"]', 'online');
    await ada.photograph(`${transport}-absent`);
    await bob.page.context().close();
    await ada.shows('#absent-list .person[data-status="offline"]', 'last seen');
    const list = await ada.page.getByRole('list', { name: 'Also wrote here' }).ariaSnapshot();
    assert.match(list, /Bob\s*last seen \d+:\d\d/);
  });

  check('two people of one name are told apart', async () => {
    const reader = await come('Reader');
    const one = await come('Ada');
    const other = await come('Ada');
    await reader.showsOnline(3);
    const twins = (people) => people.filter((row) => /^Ada #[0-9a-f]{4}$/.test(row));
    await until(
      async () => new Set(twins(await reader.people())).size === 2,
      'both carry a tag of their own',
    );
    await one.say('from one');
    await reader.showsTexts(['from one']);
    await other.say('from the other');
    await reader.showsTexts(['from one', 'from the other']);
    const tags = await reader.page.locator('.message .tag').allTextContents();
    assert.equal(new Set(tags).size, 2, `${tags}`);
    assert.equal(await one.count('.message.own'), 1);
  });

  check('two windows of one person are two clients', async () => {
    const ada = await come('Ada');
    const second = await ChatWindow.open(ada.page.context(), ada.page.url());
    await second.connected();
    await ada.showsPeople(['Ada you', 'Ada your other window']);
    await second.say('over there');
    await ada.showsTexts(['over there']);
    await second.page.close();
    await ada.showsPeople(['Ada you']);
  });

  check('the curl line that is shown works, and any JSON reads well', async () => {
    const ada = await come('Ada');
    execFileSync('sh', ['-c', await ada.page.textContent('#command')], { stdio: 'pipe' });
    await ada.showsTexts(['Hello from curl']);
    await ada.shows('.message.backend', 'Backend');
    const hostile = '<img src=x onerror="alert(1)"> https://example.com/?a=1.';
    const values = [
      hostile,
      42,
      null,
      [1, 2],
      { level: 'warn', deep: { er: true } },
      { text: 7 },
      { text: 'plain', extra: 1 },
    ];
    for (const value of values) await stage.publish(value);
    await until(async () => (await ada.texts()).length === 8, 'everything arrives');
    const texts = await ada.texts();
    assert.deepEqual(texts.slice(1, 4), [hostile, '42', 'null']);
    assert.deepEqual(JSON.parse(texts[5]), values[4]);
    assert.equal(texts.at(-1), 'plain');
    assert.equal(await ada.count('.bubble img'), 0);
    assert.equal(await ada.page.getAttribute('.bubble a', 'href'), 'https://example.com/?a=1');
    await stage.publish({ text: 'long '.repeat(2_000) });
    await until(async () => (await ada.texts()).length === 9, 'the long one arrives');
    await ada.fitsItsWidth();
  });

  check('unread messages are counted, and a reader further up is left in peace', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob');
    await bob.openRoom('random');
    for (let count = 1; count <= 3; count += 1) await ada.say(`unread ${count}`);
    const badge = `.room[data-key="room-${stage.room}"] .badge`;
    await bob.shows(badge, '3');
    await bob.openRoom(`room-${stage.room}`);
    await bob.showsTexts(['unread 1', 'unread 2', 'unread 3']);
    assert.equal(await bob.count('.divider.unread'), 1);
    assert.equal(await bob.count(badge), 0);
    for (let line = 0; line < 40; line += 1) await stage.publish({ text: `line ${line}` });
    await until(async () => (await bob.texts()).length === 43, 'all lines arrive');
    const scroll = bob.page.locator('#timeline-scroll');
    const position = () => scroll.evaluate((area) => area.scrollTop);
    await scroll.evaluate((area) => (area.scrollTop = 100));
    await until(async () => (await position()) === 100, 'the reader has scrolled up');
    await ada.say('while you were reading');
    await bob.shows('#new-messages', '1 new message');
    assert.equal(await position(), 100);
    await bob.photograph(`${transport}-reading-further-up`);
    await bob.page.click('#new-messages');
    await until(async () => (await position()) > 100, 'the end is shown');
    await bob.page.locator('#new-messages').waitFor({ state: 'hidden' });
  });

  check('after a restart of the server both are back and talk', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob');
    const said = ['before'];
    await ada.say('before');
    await bob.showsTexts(said);
    await stage.server.stop();
    await Promise.all([ada.disconnected(), bob.disconnected()]);
    await ada.say('written while the server was away');
    await ada.shows('.message[data-delivery="waiting"]', 'Will be sent when connected');
    await ada.page.locator('#banner').waitFor();
    await ada.photograph(`${transport}-server-away`);
    await stage.server.launch();
    await Promise.all([ada.connected(), bob.connected()]);
    await Promise.all([ada.showsOnline(2), bob.showsOnline(2)]);
    said.push('written while the server was away');
    await bob.showsTexts(said);
    await bob.say('after');
    said.push('after');
    await ada.showsTexts(said);
    await ada.say('and back');
    said.push('and back');
    await bob.showsTexts(said);
    // The memory engine forgot the stream, so nobody knows what else was said: the page must not hide it.
    assert.equal(await bob.count('.divider.gap'), 1);
    await bob.photograph(`${transport}-after-restart`);
  });

  check('a cut socket loses nothing and repeats nothing', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob', { port: stage.proxy.port });
    const said = ['before the cut'];
    await ada.say('before the cut');
    await bob.showsTexts(said);
    for (let cut = 1; cut <= 3; cut += 1) {
      stage.proxy.cut();
      await bob.disconnected();
      for (let count = 0; count < 5; count += 1) {
        said.push(`cut ${cut}, message ${count}`);
        await ada.say(said.at(-1));
      }
      await ada.showsTexts(said);
      if (cut === 2) {
        said.push('written in the dark');
        await bob.say(said.at(-1));
      }
      stage.proxy.mend();
      await bob.connected();
      await bob.showsTexts(said);
    }
    await ada.showsTexts(said);
    assert.equal(await bob.count('.divider.gap'), 0);
    await bob.say('all here');
    await ada.showsTexts([...said, 'all here']);
  });

  check('a message whose answer is lost is there once, for everybody', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob', { port: stage.proxy.port });
    // His other window does not come through the proxy, so it has to be told who he is.
    const user = await bob.page.evaluate(() => localStorage.getItem('chat.user'));
    const isBob = (page) =>
      page.addInitScript((him) => {
        localStorage.setItem('chat.user', him);
        localStorage.setItem('chat.name', 'Bob');
      }, user);
    const second = await ChatWindow.open(bob.page.context(), ada.page.url(), isBob);
    await second.connected();
    await ada.showsOnline(3);
    await bob.say('before');
    const said = ['before'];
    await ada.showsTexts(said);
    await bob.page.locator(UNSETTLED).waitFor({ state: 'detached' });
    stage.proxy.mute();
    await bob.say('did it arrive?');
    said.push('did it arrive?');
    await ada.showsTexts(said);
    await second.showsTexts(said);
    await ada.say('it did');
    said.push('it did');
    assert.equal(await bob.count('.message[data-delivery="sending"]'), 1);
    stage.proxy.cut();
    await bob.disconnected();
    await bob.say('then this is new');
    said.push('then this is new');
    stage.proxy.mend();
    await bob.connected();
    for (const window of [ada, bob, second]) await window.showsTexts(said);
    await bob.page.locator(UNSETTLED).waitFor({ state: 'detached' });
    const kept = await stage.server.api('history', { channel: `chat:room-${stage.room}`, limit: -1 });
    assert.deepEqual(
      kept.publications.map(({ data }) => data.text),
      said,
    );
    assert.equal(await bob.count('.divider.gap'), 0);
    assert.equal(await second.count('.message.own'), 3);
  });

  check('times are those of the server, where the own clock is wrong too', async () => {
    const ada = await come('Ada');
    await ada.say('kept');
    await ada.page.locator(UNSETTLED).waitFor({ state: 'detached' });
    const prepare = (page) => page.clock.install({ time: Date.now() - 5 * 3600 * 1000 });
    const bob = await come('Bob', { port: stage.proxy.port, prepare });
    await bob.showsTexts(['kept']);
    await ada.say('live');
    await bob.showsTexts(['kept', 'live']);
    stage.proxy.cut();
    await bob.disconnected();
    await ada.say('recovered');
    await ada.page.locator(UNSETTLED).waitFor({ state: 'detached' });
    stage.proxy.mend();
    await bob.connected();
    await bob.showsTexts(['kept', 'live', 'recovered']);
    await bob.say('own');
    await ada.showsTexts(['kept', 'live', 'recovered', 'own']);
    await bob.page.locator(UNSETTLED).waitFor({ state: 'detached' });

    const kept = await stage.server.api('history', { channel: `chat:room-${stage.room}`, limit: -1 });
    const times = kept.publications.map(({ time }) => time);
    const shown = (window) =>
      window.page.locator('.bubble').evaluateAll((all) => all.map((bubble) => bubble.title));
    const words = (of) =>
      bob.page.evaluate((all) => {
        const format = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
        return all.map((time) => format.format(time));
      }, of);
    const [ownWords, ...others] = (await shown(bob)).reverse();
    assert.deepEqual(others.reverse(), await words(times.slice(0, 3)));
    assert.equal((await shown(ada)).at(-1), (await words(times)).at(-1));
    // An answer to a publish has no time, so an own message has the page's idea of the server's clock.
    const near = Array.from({ length: 11 }, (_, step) => times[3] + (step - 5) * 1000);
    assert.ok((await words(near)).includes(ownWords), `${ownWords} is not near ${new Date(times[3])}`);
    assert.deepEqual(await bob.page.locator('.divider').allTextContents(), ['Today']);
  });

  check('going offline and online again catches up', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob');
    await bob.page.context().setOffline(true);
    await bob.disconnected();
    await ada.say('you cannot hear this yet');
    await bob.page.context().setOffline(false);
    await bob.showsTexts(['you cannot hear this yet']);
    assert.equal(await bob.count('.divider.gap'), 0);
  });

  check('another name, another room, a reload', async () => {
    const ada = await come('Ada');
    const bob = await come('Bob');
    await ada.page.click('#rename');
    await ada.page.fill('#name-input', 'Augusta');
    await ada.page.click('#name-submit');
    await bob.showsPeople(['Bob you', 'Augusta']);
    await ada.page.click('#new-room');
    await ada.page.fill('#room-input', 'No Way!');
    await ada.page.press('#room-input', 'Enter');
    await ada.shows('#room-problem', 'Only the letters');
    await ada.page.fill('#room-input', 'Garden Party');
    await ada.page.press('#room-input', 'Enter');
    await ada.showsTitle('#garden-party');
    await ada.say('anyone?');
    await ada.showsTexts(['anyone?']);
    await ada.page.locator(UNSETTLED).waitFor({ state: 'detached' });
    await ada.page.reload();
    await ada.showsTexts(['anyone?']);
    assert.equal(await ada.count('.message.own'), 1);
    await ada.page.keyboard.press('Alt+ArrowUp');
    await ada.showsTitle(`#room-${stage.room}`);
    await ada.page.click('[aria-label="Leave garden-party"]', { force: true });
    await ada.page.locator('.room[data-key="garden-party"]').waitFor({ state: 'detached' });
  });

  for (const colorScheme of ['light', 'dark']) {
    check(`it looks right, wide and on a phone, ${colorScheme}`, async () => {
      const ada = await come('Ada Lovelace', { colorScheme });
      await ada.shows('#empty', 'It is quiet');
      await ada.photograph(`${transport}-wide-${colorScheme}-empty`);
      const phones = [];
      for (const [name, viewport] of Object.entries(PHONES)) {
        phones.push(await come(name, { colorScheme, viewport, isMobile: true, hasTouch: true }));
      }
      const [grace, charles] = phones;
      const lines = [
        [grace, 'Has anyone looked at the new fan-out numbers?'],
        [ada, 'Just now. One publish, fifteen thousand sockets, and the laptop stayed quiet.'],
        [ada, 'I wrote it down: https://example.com/notes/fan-out'],
        [grace, `Lovely. And averylongwordwithoutanybreak${'k'.repeat(120)} wraps too.`],
        [charles, 'I only came for the tea.'],
      ];
      for (const [index, [speaker, text]] of lines.entries()) {
        await speaker.say(text);
        await ada.showsTexts(lines.slice(0, index + 1).map(([, said]) => said));
      }
      await stage.publish({ text: 'Deploy of api-7 finished in 42 s' });
      await stage.publish({ level: 'info', region: 'eu-west', ok: true });
      for (const window of stage.windows)
        await until(async () => (await window.texts()).length === 7, 'all is shown');
      await ada.showsOnline(3);
      await ada.fitsItsWidth();
      await ada.photograph(`${transport}-wide-${colorScheme}`);
      await ada.page.setViewportSize({ width: 900, height: 700 });
      await ada.fitsItsWidth();
      await ada.photograph(`${transport}-tablet-${colorScheme}`);
      for (const phone of phones) {
        const { width, height } = phone.page.viewportSize();
        await phone.fitsItsWidth();
        await phone.photograph(`${transport}-phone-${width}-${colorScheme}`);
        const composer = await phone.page.locator('#composer').boundingBox();
        assert.ok(composer.y + composer.height <= height, 'the composer is on the screen');
        for (const drawer of ['rooms', 'people']) {
          await phone.page.click(`#open-${drawer}`);
          // A click waits until what it clicks stands still, so that the drawer has come to rest when this has passed.
          await phone.page.locator(`#${drawer}-panel .drawer-close`).click({ trial: true });
          await phone.fitsItsWidth();
          await phone.photograph(`${transport}-phone-${width}-${colorScheme}-${drawer}`);
          await phone.page.keyboard.press('Escape');
          await phone.page.locator(`#${drawer}-panel.open`).waitFor({ state: 'detached' });
        }
      }
    });
  }
};

for (const transport of Object.keys(TRANSPORTS)) describe(`chat page over ${transport}`, suite(transport));
