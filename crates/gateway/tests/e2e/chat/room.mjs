// Rooms of the chat page in any order of commands, answers, publications and lost connections, without a browser: all
// pages end with the server's order, and each message is in the stream once, though no page is sent its own.

import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import fs from 'node:fs';
import { test } from 'node:test';

// The name of the file does not tell Node.js that it is a module.
const source = fs.readFileSync(new URL('../../../src/pages/chat/room.js', import.meta.url), 'utf8');
const { Room } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const RUNS = 300;
const STEPS = 300;
const PAGES = 3;

/** Numbers that a seed decides, from 0 up to `end`. */
function random(seed) {
  let state = seed;
  return (end) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * end);
  };
}

/** The stream of a topic, and the pages that are connected to it. */
class Topic {
  publications = [];
  pages = new Set();
  connections = 0;

  publish(page, { text, wireId }) {
    const info = { user: page.user, client: page.client, conn_info: { name: 'Ann' } };
    const publication = { offset: this.publications.length + 1, data: { text, id: wireId }, info };
    this.publications.push(publication);
    for (const other of this.pages) if (other !== page) other.pushes.push(publication);
  }
}

/** A page as app.js and connection.js run it. Commands, answers and publications are on their way for a while. */
class Page {
  constructor(topic, user) {
    this.topic = topic;
    this.user = user;
    this.room = new Room('room', () => 1);
    this.offset = null;
    this.connect();
  }

  get isConnected() {
    return this.topic.pages.has(this);
  }

  connect() {
    this.topic.connections += 1;
    this.client = `client-${this.topic.connections}`;
    Object.assign(this, { commands: [], answers: [], pushes: [], unanswered: new Map() });
    this.topic.pages.add(this);
    const recovered = this.offset !== null;
    const missed = this.topic.publications.slice(this.offset ?? Infinity);
    this.offset = this.topic.publications.length;
    this.room.subscribed({ position: { epoch: 'epoch', offset: this.offset }, recovered });
    for (const publication of missed) this.room.receive(publication, { live: false });
    if (!recovered) this.room.fill({ publications: [], epoch: 'epoch', offset: this.offset });
    for (const item of this.room.waiting()) this.send(item);
  }

  disconnect() {
    this.topic.pages.delete(this);
    this.room.lost();
    for (const [item, sentAt] of this.unanswered) {
      this.offset = Math.min(this.offset, sentAt);
      this.room.notAccepted(item, { lost: true, message: 'lost' });
    }
  }

  say(text) {
    const item = this.room.compose({ user: this.user, name: 'Ann', client: this.client }, text);
    if (this.isConnected) this.send(item);
  }

  send(item) {
    this.room.sending(item);
    this.unanswered.set(item, this.offset);
    this.commands.push(item);
  }

  /** One of the things that are on their way arrives. */
  step(way) {
    const queue = [this.commands, this.answers, this.pushes][way];
    if (!this.isConnected || queue.length === 0) return;
    const arrived = queue.shift();
    if (queue === this.commands) {
      this.topic.publish(this, arrived);
      this.answers.push(arrived);
    } else if (queue === this.answers) {
      this.unanswered.delete(arrived);
      this.room.accepted(arrived);
    } else {
      this.offset = arrived.offset;
      this.room.receive(arrived, { live: true });
    }
  }
}

function run(seed) {
  const next = random(seed);
  const topic = new Topic();
  const pages = Array.from({ length: PAGES }, (_, number) => new Page(topic, `user-${number}`));
  const said = [];
  for (let step = 0; step < STEPS; step += 1) {
    const page = pages[next(PAGES)];
    const event = next(20);
    if (event < 3) {
      said.push(`message ${said.length}`);
      page.say(said.at(-1));
    } else if (event < 4) {
      if (page.isConnected) page.disconnect();
    } else if (event < 6) {
      if (!page.isConnected) page.connect();
    } else {
      page.step(next(3));
    }
  }
  for (const page of pages) if (!page.isConnected) page.connect();
  const isBusy = ({ commands, answers, pushes }) => commands.length + answers.length + pushes.length > 0;
  while (pages.some(isBusy)) pages[next(PAGES)].step(next(3));

  const kept = topic.publications.map(({ data }) => data.text);
  assert.deepEqual([...kept].sort(), [...said].sort(), 'each is in the stream once');
  for (const { room } of pages) {
    const shown = room.items.filter(({ kind }) => kind === 'message');
    assert.deepEqual(
      shown.map(({ text }) => text),
      kept,
      'a page shows the order of the stream',
    );
    assert.ok(shown.every(({ delivery }) => delivery === '' || delivery === 'accepted'));
    assert.equal(room.items.length, shown.length, 'nothing seems to be missing');
  }
}

test('own messages are there once and in place, whatever comes first or is lost', () => {
  const first = Number(process.env.SEED ?? randomInt(2 ** 31));
  for (let seed = first; seed < first + RUNS; seed += 1) {
    try {
      run(seed);
    } catch (error) {
      error.message = `SEED=${seed}: ${error.message}`;
      throw error;
    }
  }
});
