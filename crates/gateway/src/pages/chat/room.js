// The state of one room: its messages, each once and in order, its members, and gaps. It neither draws nor sends.
// Everything that peers can make grow has a limit.

const TOPIC_PREFIX = 'chat:';
const ITEMS_MAX = 500;
const PEOPLE_PER_NOTICE_MAX = 50;
const NAME_SHOWN_MAX = 40;
const TEXT_SHOWN_MAX = 4000;
const MESSAGE_ID_LENGTH_MAX = 64;
/** Items are sorted by `order`: a message's era (the number of earlier epochs of the stream) and offset. An item
 *  without an offset follows the latest one with an offset by half a step. An own message is not sent back to this page:
 *  it `floats` at the end until offsets that are missing tell its place. */
const ERA_SPAN = 2 ** 40;
const UNPLACED_ORDER = Number.MAX_SAFE_INTEGER;
/** A member before the connection was lost that returns within this time has not "joined". */
const FAMILIAR_MS = 60_000;
const NOTICE_MERGE_MS = 120_000;

export class Room {
  /** `clock` returns the time by the server's clock. */
  constructor(name, clock) {
    this.name = name;
    this.#clock = clock;
    this.topic = TOPIC_PREFIX + name;
    this.state = 'joining';
    this.trouble = '';
    this.items = [];
    this.members = new Map();
    this.membersKnown = false;
    this.unread = 0;
    this.firstUnread = null;
    this.historyWanted = true;
  }

  #clock;
  #epoch = null;
  #era = 0;
  #top = 0;
  /** The end of the complete messages, if the server could not send those after it. */
  #brokenAfter = null;
  #byOffset = new Map();
  #byId = new Map();
  #familiar = new Map();
  #membersWhileLoading = null;
  #keys = 0;

  /** Handles a subscription. Returns true if history must be read, because the server could not send all missed
   *  messages. */
  subscribed({ position, recovered }) {
    if (!recovered) {
      this.historyWanted = true;
      if (this.holdsMessages()) this.#brokenAfter ??= { era: this.#era, offset: this.#top };
      // What the server accepted before keeps its place, unless history tells it.
      for (const item of this.items) if (item.delivery === 'accepted') item.floats = false;
      if (this.#epoch !== null && position.epoch !== this.#epoch) {
        this.#era += 1;
        this.#top = 0;
      }
      this.#top = Math.max(this.#top, position.offset);
    }
    this.#epoch = position.epoch;
    this.state = 'joined';
    this.trouble = '';
    return this.historyWanted;
  }

  lost() {
    this.state = 'joining';
    this.membersKnown = false;
    this.#membersWhileLoading = null;
    const until = Date.now() + FAMILIAR_MS;
    this.#familiar = new Map([...this.members.values()].map((member) => [personKey(member), until]));
  }

  removed(reason) {
    this.lost();
    this.state = 'removed';
    this.trouble = reason;
  }

  /** Returns true if there are messages that the server has, not only messages that this page is about to send. */
  holdsMessages() {
    return this.items.some((item) => item.place || item.delivery === 'accepted');
  }

  /** Adds a publication. Returns its item if it is new, and null if it is known. */
  receive(publication, { live }) {
    const message = readPublication(publication);
    const offset = publication.offset ?? 0;
    const place = `${this.#era}/${offset}`;
    if (offset && this.#byOffset.has(place)) return null;
    if (offset > this.#top) this.#placeOwnBefore(offset);
    const order = offset ? this.#order(offset) : this.#orderOfLatest();
    this.#top = Math.max(this.#top, offset);
    const known = message.id && this.#byId.get(message.id);
    if (known?.place) return null;
    const item = known || { kind: 'message', key: this.#nextKey() };
    // Without the server's time a message has that at which it is written here or arrives.
    const time = message.time ?? item.time ?? (live ? this.#clock() : null);
    Object.assign(item, message, { order, place, floats: false, delivery: '', time });
    if (offset) this.#byOffset.set(place, item);
    if (message.id) this.#byId.set(message.id, item);
    if (!known) this.items.push(item);
    this.#settle();
    return known ? null : item;
  }

  /** Adds a page of history, newest first, and marks a gap if the page does not reach the known messages. Returns the
   *  new items. */
  fill({ publications, epoch, offset }) {
    if (epoch !== this.#epoch) return [];
    const news = publications
      .toReversed()
      .map((publication) => this.receive(publication, { live: false }))
      .filter(Boolean);
    this.historyWanted = false;
    this.#top = Math.max(this.#top, offset);
    const broken = this.#brokenAfter;
    this.#brokenAfter = null;
    if (broken) {
      const oldest = publications.at(-1)?.offset ?? offset + 1;
      if (broken.era !== this.#era) this.#addGap(this.#order(0));
      else if (oldest > broken.offset + 1) this.#addGap(this.#order(broken.offset) + 0.25);
    }
    return news;
  }

  /** Marks a gap at the end of the known messages, since history cannot be read. */
  fillFailed() {
    this.historyWanted = false;
    if (this.#brokenAfter) this.#addGap(this.#brokenAfter.era * ERA_SPAN + this.#brokenAfter.offset + 0.25);
    this.#brokenAfter = null;
  }

  /** Adds a message of this page, before the server has it. */
  compose(author, text) {
    const id = randomId();
    const item = {
      kind: 'message',
      key: this.#nextKey(),
      id: `${author.user}/${id}`,
      wireId: id,
      order: UNPLACED_ORDER,
      author,
      text,
      json: false,
      time: this.#clock(),
      delivery: 'waiting',
    };
    this.items.push(item);
    this.#byId.set(item.id, item);
    this.#settle();
    return item;
  }

  /** Makes a message that failed the last of those to be sent. */
  wait(item) {
    this.items = [...this.items.filter((other) => other !== item), item];
    item.delivery = 'waiting';
  }

  sending(item) {
    Object.assign(item, { delivery: 'sending', order: UNPLACED_ORDER, floats: true });
    this.#settle();
  }

  /** Handles the answer that the server has a message, unless the message itself has come before. */
  accepted(item) {
    if (item.delivery !== 'sending') return;
    item.delivery = 'accepted';
    item.time = this.#clock();
    if (item.floats) item.order = this.#orderOfLatest();
    this.#settle();
  }

  notAccepted(item, { lost, message }) {
    if (item.delivery !== 'sending') return;
    item.delivery = lost ? 'waiting' : 'failed';
    item.problem = message;
  }

  discard(item) {
    this.items = this.items.filter((other) => other !== item);
    this.#forget(item);
  }

  /** Returns own messages to be sent as soon as possible. */
  waiting() {
    return this.items.filter((item) => item.delivery === 'waiting');
  }

  // Presence: joins and leaves that arrive while the full list is read are applied to it again.

  presenceRequested() {
    this.#membersWhileLoading = [];
  }

  presenceArrived(people) {
    this.members = new Map(Object.entries(people).map(([client, info]) => [client, readPerson(info)]));
    this.membersKnown = true;
    const missed = this.#membersWhileLoading ?? [];
    this.#membersWhileLoading = null;
    for (const apply of missed) apply();
  }

  joined(info, isSelf) {
    const person = readPerson(info);
    const known = this.members.has(person.client);
    this.#changeMembers(() => this.members.set(person.client, person));
    const familiarUntil = this.#familiar.get(personKey(person)) ?? 0;
    this.#familiar.delete(personKey(person));
    if (!isSelf && !known && familiarUntil < Date.now()) this.#note(person, 'joined');
  }

  left(info, isSelf) {
    const person = readPerson(info);
    this.#changeMembers(() => this.members.delete(person.client));
    if (!isSelf) this.#note(person, 'left');
  }

  #changeMembers(apply) {
    apply();
    this.#membersWhileLoading?.push(apply);
  }

  /** Adds a join or a leave. Consecutive ones share a line, and a leave followed by a join is removed. */
  #note(person, event) {
    const last = this.items.filter((item) => item.order !== UNPLACED_ORDER).at(-1);
    const merged =
      last?.kind === 'notice' &&
      Date.now() - last.time < NOTICE_MERGE_MS &&
      last.events.size < PEOPLE_PER_NOTICE_MAX;
    const notice = merged
      ? last
      : {
          kind: 'notice',
          key: this.#nextKey(),
          order: this.#orderOfLatest(),
          time: Date.now(),
          events: new Map(),
        };
    const sameLeft = (other) => other.event === 'left' && personKey(other.person) === personKey(person);
    const before = notice.events.get(person.client) ?? [...notice.events.values()].find(sameLeft);
    if (before?.event === 'left' && event === 'joined') notice.events.delete(before.person.client);
    else notice.events.set(person.client, { person, event: before && event === 'left' ? 'visited' : event });
    if (!merged) this.items.push(notice);
    if (notice.events.size === 0) this.discard(notice);
    this.#settle();
  }

  /** Places own messages before the next publication that comes. The server leaves out what this connection publishes,
   *  so the offsets that are missing are those of own messages, in the order in which they were sent. */
  #placeOwnBefore(offset) {
    const missing = offset - this.#top - 1;
    const sent = this.items.filter(
      (item) => item.floats && (item.delivery === 'sending' || item.delivery === 'accepted'),
    );
    for (const [index, item] of sent.entries()) {
      if (index < missing) Object.assign(item, { order: this.#orderOfLatest(), floats: false });
      else if (item.order !== UNPLACED_ORDER) item.order = this.#order(offset) + 0.5;
    }
  }

  #addGap(order) {
    this.items.push({ kind: 'gap', key: this.#nextKey(), order });
    this.#settle();
  }

  #order(offset) {
    return this.#era * ERA_SPAN + offset;
  }

  #orderOfLatest() {
    return this.#order(this.#top) + 0.5;
  }

  #nextKey() {
    this.#keys += 1;
    return `${this.name}/${this.#keys}`;
  }

  #settle() {
    this.items.sort((one, other) => one.order - other.order);
    while (this.items.length > ITEMS_MAX) this.#forget(this.items.shift());
  }

  #forget(item) {
    this.#byOffset.delete(item.place);
    this.#byId.delete(item.id);
  }
}

/** Reads a publication: `{"text": ...}` from a person or a backend, or any other JSON. Its time is the server's, or null
 *  where the server does not show it. */
function readPublication({ data, info, time = null }) {
  const author = info ? readPerson(info) : null;
  const plain = typeof data === 'string' ? data : typeof data?.text === 'string' ? data.text : null;
  const text = shorten(plain ?? JSON.stringify(data, null, 2) ?? '', TEXT_SHOWN_MAX);
  const id =
    author && typeof data?.id === 'string'
      ? `${author.user}/${data.id.slice(0, MESSAGE_ID_LENGTH_MAX)}`
      : null;
  return { author, id, text, json: plain === null, time };
}

function readPerson(info) {
  const name = info.conn_info?.name;
  const readable = typeof name === 'string' && name.trim() !== '';
  return {
    client: info.client,
    user: info.user,
    name: readable ? shorten(name.trim(), NAME_SHOWN_MAX) : 'Guest',
  };
}

export function personKey({ user, name }) {
  return `${user}/${name}`;
}

function shorten(text, lengthMax) {
  return text.length > lengthMax ? `${text.slice(0, lengthMax)}…` : text;
}

/** Returns a random id. `crypto.randomUUID` exists on secure origins only, and a phone opens this page by address. */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');
}
