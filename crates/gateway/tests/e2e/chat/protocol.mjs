// What the chat page does with each thing a gateway may say, over each transport: the page comes from `fanwire serve
// --dev`, but its connection ends in a script, so that even rare answers can be given.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { Server, told, until } from '../harness.mjs';
import { Front } from './front.mjs';
import { answersOf, LOBBY, Script } from './script.mjs';
import { TRANSPORTS } from './transports.mjs';
import { ChatWindow, startBrowser } from './window.mjs';

const suite = (transport) => () => {
  let server;
  let front;
  let browser;
  let script;
  let window;
  let tokens;

  before(async () => {
    server = await Server.startDev();
    front = await Front.start(server.port, answersOf(() => script));
    browser = await startBrowser();
  });
  beforeEach(() => {
    script = new Script();
    tokens = 0;
  });
  afterEach(async () => {
    await window?.page.context().close();
    assert.deepEqual(window?.complaints ?? [], []);
  });
  after(async () => {
    await browser?.close();
    front?.stop();
    await server?.stop();
  });
  const check = (name, body) =>
    test(
      name,
      told(() => server, body),
    );

  /** Opens the page; its clock is the test's, so that long waits pass at once. */
  const come = async () => {
    const prepare = async (page) => {
      await page.clock.install();
      page.on('request', (request) => (tokens += request.url().includes('/dev/token') ? 1 : 0));
      await page.routeWebSocket(/connection\/websocket/, (socket) => script.accept(socket));
    };
    const url = `http://127.0.0.1:${front.port}/${TRANSPORTS[transport].query}#lobby`;
    window = await ChatWindow.enter(browser, url, 'Ada', { prepare });
  };
  const comeAndSettle = async () => {
    await come();
    await window.connected();
    await until(() => script.heard('history').length === 3, 'the rooms are joined');
  };
  const isIn = (state) => window.count(`#status[data-state="${state}"]`);
  /** Lets the clock go on while the page waits to try again. What is on its way to the page takes real time, and has a
   *  deadline by the clock. */
  const afterTries = (condition, what) =>
    until(async () => {
      if (await isIn('waiting')) await window.page.clock.runFor(1_000);
      return condition();
    }, what);
  const connectedAgain = (count = 2) =>
    afterTries(
      () => script.heard('connect').length >= count && isIn('connected'),
      `connection ${count} stands`,
    );
  const givenUp = () => afterTries(() => isIn('stopped'), 'the page gives up');

  for (const code of [1000, 3000, 3001, 3005, 3008, 3010, 3012, 3499, 4000, 4499]) {
    check(`close code ${code} is survived`, async () => {
      await comeAndSettle();
      script.socket.close({ code, reason: 'as scripted' });
      await window.disconnected();
      await connectedAgain();
      await until(() => script.heard('subscribe', LOBBY).length === 2, 'the room is joined again');
      assert.deepEqual(script.heard('subscribe', LOBBY)[1].subscribe, {
        channel: LOBBY,
        recover: true,
        epoch: 'first',
        offset: 0,
      });
    });
  }

  for (const [code, words] of [
    [3501, 'did not understand'],
    [3503, 'on purpose'],
    [3504, 'Too many windows'],
    [3507, 'not allow'],
    [4500, 'as scripted'],
  ]) {
    check(`close code ${code} ends with a message and a way back`, async () => {
      await comeAndSettle();
      script.socket.close({ code, reason: 'as scripted' });
      await window.shows('#banner', words);
      await window.page.clock.runFor(60_000);
      assert.equal(script.connections.length, 1);
      await window.page.click('#banner-action');
      await window.connected();
    });
  }

  check('a refused token is replaced once, then the page gives up', async () => {
    script.answers.connect = () => ({ close: 3500 });
    await come();
    await givenUp();
    assert.equal(script.connections.length, 2);
    assert.equal(tokens, 2);
    await window.shows('#banner', 'did not accept');
  });

  check('connect errors: an expired token is retried, others end', async () => {
    const errors = [
      { code: 109, message: 'token expired' },
      { code: 111, message: 'too many requests', temporary: true },
    ];
    script.answers.connect = () => (errors.length ? { error: errors.shift() } : undefined);
    await come();
    await connectedAgain(3);
    script.answers.connect = () => ({ error: { code: 103, message: 'permission denied' } });
    script.socket.close({ code: 3001, reason: 'shutdown' });
    await givenUp();
    await window.shows('#banner', 'permission denied');
  });

  check('pings are answered, and silence ends the connection', async () => {
    await comeAndSettle();
    script.say({});
    await until(() => script.commands.some((command) => Object.keys(command).length === 0), 'a pong comes');
    await window.page.clock.runFor(32_000);
    await window.connected();
    assert.equal(script.connections.length, 1);
    // In small steps: soon after that the page connects again, and says nothing more.
    await until(async () => {
      await window.page.clock.runFor(100);
      return window.page.locator('#banner').filter({ hasText: 'stopped sending' }).count();
    }, 'the page says that the server stopped sending');
    await connectedAgain();
  });

  check('a token that expires is renewed in time, without a new connection', async () => {
    const expiring = { ping: 0, expires: true, ttl: 3600 };
    script.answers.connect = (request) => ({ connect: { ...script.usual('connect', request), ...expiring } });
    script.answers.refresh = () => ({ refresh: { expires: true, ttl: 600 } });
    await comeAndSettle();
    const renewed = (count) =>
      until(() => script.heard('refresh').length === count && tokens === count + 1, `renewal ${count} comes`);
    await window.page.clock.runFor(3_599_000);
    assert.equal(script.heard('refresh').length, 0);
    await window.page.clock.runFor(1_500);
    await renewed(1);
    script.push({ channel: undefined, refresh: { expires: true, ttl: 60 } });
    // It has reached the page once what comes behind it is shown.
    script.publish('behind it');
    await window.showsTexts(['behind it']);
    await window.page.clock.runFor(61_000);
    await renewed(2);
    assert.match(script.heard('refresh')[1].refresh.token, /./);
    assert.equal(script.connections.length, 1);
  });

  check('unsubscribe 2500 resubscribes from the position, 2502 without one, 2000 is final', async () => {
    await comeAndSettle();
    script.publish('one');
    await window.showsTexts(['one']);
    const again = (count) =>
      until(async () => {
        await window.page.clock.runFor(500);
        return script.heard('subscribe', LOBBY).length === count;
      }, `subscribe ${count} comes`);
    script.push({ unsubscribe: { code: 2500, reason: 'insufficient state' } });
    await again(2);
    assert.deepEqual(script.heard('subscribe', LOBBY)[1].subscribe, {
      channel: LOBBY,
      recover: true,
      epoch: 'first',
      offset: 1,
    });
    script.push({ unsubscribe: { code: 2502, reason: 'state invalidated' } });
    await again(3);
    assert.deepEqual(script.heard('subscribe', LOBBY)[2].subscribe, { channel: LOBBY });
    script.push({ unsubscribe: { code: 2000, reason: 'server unsubscribe' } });
    await window.shows('#banner', 'You are not in this room');
    await window.page.click('#banner-action');
    await again(4);
    await window.page.locator('#banner').waitFor({ state: 'hidden' });
    await window.showsTexts(['one']);
  });

  check('close code 3014 drops the positions', async () => {
    await comeAndSettle();
    script.socket.close({ code: 3014, reason: 'state invalidated' });
    await window.disconnected();
    await connectedAgain();
    await until(() => script.heard('subscribe', LOBBY).length === 2, 'the room is joined again');
    assert.deepEqual(script.heard('subscribe', LOBBY)[1].subscribe, { channel: LOBBY });
  });

  check('"already subscribed" is answered by leaving and joining', async () => {
    let refusals = 1;
    script.answers.subscribe = ({ channel }) =>
      channel === LOBBY && refusals-- > 0
        ? { error: { code: 105, message: 'already subscribed' } }
        : undefined;
    await come();
    await until(async () => {
      await window.page.clock.runFor(500);
      return script.heard('subscribe', LOBBY).length === 2;
    }, 'the page tries again');
    assert.equal(script.heard('unsubscribe', LOBBY).length, 1);
  });

  check('a gap within one stream is shown only where history does not reach', async () => {
    await comeAndSettle();
    script.publish('one');
    await window.showsTexts(['one']);
    const page = (from) => () => ({
      history: {
        publications: [9, 8, 7]
          .filter((offset) => offset >= from)
          .map((offset) => ({ data: `${offset}`, offset })),
        epoch: 'first',
        offset: 9,
      },
    });
    script.stream.offset = 9;
    script.answers.history = page(7);
    script.socket.close({ code: 3001, reason: 'shutdown' });
    await window.disconnected();
    await connectedAgain();
    await window.showsTexts(['one', '7', '8', '9']);
    const rows = await window.page
      .locator('.message, .divider.gap')
      .evaluateAll((all) => all.map((row) => row.className.split(' ')[0]));
    assert.deepEqual(rows, ['message', 'divider', 'message', 'message', 'message']);
    // Everything up to the position is known now: another answer of "not recovered" with a full page leaves no gap.
    script.answers.subscribe = ({ channel, recover }) =>
      channel === LOBBY && recover
        ? { subscribe: { recoverable: true, was_recovering: true, ...script.stream } }
        : undefined;
    script.socket.close({ code: 3001, reason: 'shutdown' });
    await window.disconnected();
    await connectedAgain(3);
    await until(() => script.heard('history', LOBBY).length === 3, 'history is read');
    await window.showsTexts(['one', '7', '8', '9']);
    assert.equal(await window.count('.divider.gap'), 1);
  });

  check('a refused message can be sent again or deleted, a lost one is sent again by itself', async () => {
    await comeAndSettle();
    script.answers.publish = () => ({ error: { code: 111, message: 'too many requests', temporary: true } });
    await window.say('first');
    await window.shows('.message[data-delivery="failed"]', 'Not sent: too many requests.');
    await window.photograph('not-sent');
    delete script.answers.publish;
    await window.page.click('text=Try again');
    await window.page.locator('.message[data-delivery="accepted"]').waitFor();
    const [refused, sent] = script.heard('publish').map(({ publish }) => publish.data);
    assert.equal(refused.id, sent.id);
    script.answers.publish = () => ({ silent: true });
    await window.say('second');
    await window.page.locator('.message[data-delivery="sending"]').waitFor();
    delete script.answers.publish;
    script.socket.close({ code: 3001, reason: 'shutdown' });
    await window.disconnected();
    await connectedAgain();
    await until(() => script.heard('publish').length === 4, 'the lost message is sent again');
    const [lost, repeated] = script
      .heard('publish')
      .slice(2)
      .map(({ publish }) => publish.data);
    assert.equal(lost.id, repeated.id);
    await window.showsTexts(['first', 'second']);
  });

  check('own messages that are not sent back stand where offsets are missing', async () => {
    await comeAndSettle();
    const accepted = (count) =>
      until(async () => (await window.count('[data-delivery="accepted"]')) === count, `${count} are accepted`);
    await window.say('mine');
    await accepted(1);
    // The server took it first.
    script.publish('another');
    await window.showsTexts(['another', 'mine']);
    await window.say('mine too');
    await accepted(2);
    script.stream.offset += 2;
    script.publish('a third');
    await window.showsTexts(['another', 'mine', 'mine too', 'a third']);
    script.answers.publish = () => ({ silent: true });
    await window.say('on its way');
    await window.page.locator('[data-delivery="sending"]').waitFor();
    script.publish('before it');
    await window.showsTexts(['another', 'mine', 'mine too', 'a third', 'before it', 'on its way']);
    script.stream.offset += 1;
    script.publish('behind it');
    await window.showsTexts(['another', 'mine', 'mine too', 'a third', 'before it', 'on its way', 'behind it']);
    assert.equal(await window.count('.divider.gap'), 0);
  });

  check('a message whose answer is lost is looked for from where it was sent', async () => {
    await comeAndSettle();
    script.publish('one');
    await window.showsTexts(['one']);
    script.answers.publish = () => ({ silent: true });
    await window.say('two');
    await until(() => script.heard('publish').length === 1, 'it is sent');
    script.stream.offset += 1;
    script.publish('three');
    await window.showsTexts(['one', 'two', 'three']);
    const user = await window.page.evaluate(() => localStorage.getItem('chat.user'));
    const { data } = script.heard('publish')[0].publish;
    const time = 1_600_000_000_000;
    const info = { client: 'client-1', user, conn_info: { name: 'Ada' } };
    const publications = [
      { data, info, time, offset: 2 },
      { data: { text: 'three' }, offset: 3 },
      { data: { text: 'four' }, offset: 4 },
    ];
    script.stream.offset = 4;
    script.answers.subscribe = ({ channel, recover }) =>
      channel === LOBBY && recover
        ? { subscribe: { recoverable: true, recovered: true, publications, ...script.stream } }
        : undefined;
    script.socket.close({ code: 3001, reason: 'shutdown' });
    await window.disconnected();
    await window.shows('[data-delivery="waiting"]', 'Will be sent when connected');
    await connectedAgain();
    await window.showsTexts(['one', 'two', 'three', 'four']);
    assert.equal(script.heard('subscribe', LOBBY)[1].subscribe.offset, 1);
    const shown = window.page.locator('.message.own time');
    assert.equal(await shown.getAttribute('datetime'), new Date(time).toISOString());
    // What is said next is behind anything that is sent again.
    delete script.answers.publish;
    await window.say('five');
    await window.page.locator('[data-delivery="accepted"]').waitFor();
    assert.deepEqual(
      script.heard('publish').map(({ publish }) => publish.data.text),
      ['two', 'five'],
    );
    assert.equal(await window.count('.divider.gap'), 0);
  });

  check('a message without an answer for long ends the connection, and is sent again', async () => {
    await comeAndSettle();
    script.answers.publish = () => ({ silent: true });
    await window.say('hello');
    await until(() => script.heard('publish').length === 1, 'it is sent');
    await window.page.clock.runFor(9_000);
    assert.equal(await window.count('[data-delivery="sending"]'), 1);
    delete script.answers.publish;
    await window.page.clock.runFor(1_500);
    await connectedAgain();
    await window.page.locator('[data-delivery="accepted"]').waitFor();
    assert.equal(script.heard('publish').length, 2);
    await window.showsTexts(['hello']);
  });

  check('what becomes of a message is told to screen readers and keyboards, in its place', async () => {
    await comeAndSettle();
    const row = window.page.locator('.message');
    const told = async (expected) => {
      let snapshot;
      await until(async () => {
        snapshot = await row.ariaSnapshot();
        return expected.every((words) => snapshot.includes(words));
      }, `${expected} are told`).catch((error) => {
        throw new Error(`${error.message}; told is ${snapshot}`);
      });
      return snapshot;
    };
    script.answers.publish = () => ({ silent: true });
    await window.say('hello');
    await told(['You', 'hello', 'Sending…']);
    // The same element from now on: a new one would be read aloud as a new message.
    await row.evaluate((node) => (node.isFirst = true));
    const { id } = script.heard('publish')[0];
    script.say({ id, error: { code: 111, message: 'too many requests', temporary: true } });
    await told(['hello', 'Not sent: too many requests.', 'button "Try again"', 'button "Delete"']);
    delete script.answers.publish;
    await window.page.getByRole('button', { name: 'Try again' }).focus();
    await window.page.keyboard.press('Enter');
    await window.page.locator('[data-delivery="accepted"]').waitFor();
    const snapshot = await told(['hello']);
    assert.doesNotMatch(snapshot, /Sending|button/);
    assert.equal(await row.evaluate((node) => node.isFirst), true);
    assert.equal(await window.page.evaluate(() => document.activeElement.id), 'timeline-scroll');
    await window.page.keyboard.press('Tab');
    assert.equal(await window.page.evaluate(() => document.activeElement.id), 'composer-text');
  });
};

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`chat page and the protocol over ${transport}`, suite(transport));
}
