// The state of the page: the user, the open rooms and their messages. It connects rooms to the connection, and notifies
// one observer of changes. It touches no element of the page.

import { Connection } from './connection.js';
import { Transports } from './fallback.js';
import { request } from './http.js';
import { randomId, Room } from './room.js';

export const DEFAULT_ROOMS = ['lobby', 'random', 'help'];
export const ROOMS_MAX = 20;
export const ROOM_NAME_LENGTH_MAX = 32;
const HISTORY_PAGE = 200;
const TOKEN_TIMEOUT_MS = 10_000;
const OWN_CLIENTS_MAX = 50;
/** Topics with this prefix tell the status of a user. */
const STATUS_PREFIX = 'online:';
const WATCHED_MAX = 20;

export const me = {
  user: recall(localStorage, 'chat.user') ?? `u-${randomId()}`,
  // Each window keeps its own name, so that one person can use two names; new windows start with the latest.
  name: recall(sessionStorage, 'chat.name') ?? recall(localStorage, 'chat.name'),
  client: null,
  /** The latest client ids of this window: messages written before a reconnect or reload are still its own. */
  clients: recallList(sessionStorage, 'chat.clients'),
};

export const rooms = new Map();
/** The users who are watched, and the status of each: `{ online, last_seen }`, or null while it is not known. */
export const statuses = new Map();
export let currentRoom;

export const connection = new Connection({
  transports: new Transports(new URLSearchParams(location.search).get('transport')),
  fetchToken,
  onState(state) {
    if (state.name === 'connected') {
      me.client = state.client;
      me.clients = [...me.clients, state.client].slice(-OWN_CLIENTS_MAX);
      remember(sessionStorage, 'chat.clients', JSON.stringify(me.clients));
    }
    changed();
  },
});

let observer;

/** Opens the rooms, and connects once there is a name. Calls the observer's `changed` on changes, and
 *  `messageArrived` on messages of others in the open room. */
export function start(theObserver) {
  observer = theObserver;
  remember(localStorage, 'chat.user', me.user);
  const own = recallList(localStorage, 'chat.rooms').filter((name) => roomNameProblem(name) === '');
  for (const name of [...DEFAULT_ROOMS, ...own].slice(0, ROOMS_MAX)) enterRoom(name);
  currentRoom = rooms.get(DEFAULT_ROOMS[0]);
  if (me.name) connection.reconnect();
}

export function setName(name) {
  me.name = name;
  remember(sessionStorage, 'chat.name', name);
  remember(localStorage, 'chat.name', name);
  connection.reconnect();
}

/** Opens a room, and joins it if necessary. A name that is not valid opens the first room. */
export function openRoom(name) {
  const possible = rooms.has(name) || (roomNameProblem(name) === '' && rooms.size < ROOMS_MAX);
  if (currentRoom) currentRoom.firstUnread = null;
  currentRoom = enterRoom(possible ? name : DEFAULT_ROOMS[0]);
  currentRoom.unread = 0;
  rememberRooms();
  changed();
}

export function leaveRoom(room) {
  connection.unsubscribe(room.topic);
  rooms.delete(room.name);
  rememberRooms();
  if (room === currentRoom) location.hash = DEFAULT_ROOMS[0];
  changed();
}

/** Converts a typed name to the form in the topic. */
export function roomNameFrom(typed) {
  return typed.trim().toLowerCase().replace(/^#/, '').replace(/\s+/g, '-');
}

export function roomNameProblem(name) {
  if (typeof name !== 'string' || name === '') return 'Enter a name.';
  if (name.length > ROOM_NAME_LENGTH_MAX) return `At most ${ROOM_NAME_LENGTH_MAX} characters.`;
  if (!/^[a-z0-9][a-z0-9_-]*$/.test(name)) return 'Only the letters a to z, digits, “-” and “_”.';
  return '';
}

export function send(text) {
  currentRoom.compose({ user: me.user, name: me.name, client: me.client }, text);
  currentRoom.firstUnread = null;
  sendWaiting(currentRoom);
  changed();
}

export function sendAgain(room, item) {
  room.wait(item);
  sendWaiting(room);
  changed();
}

export function discard(room, item) {
  room.discard(item);
  changed();
}

/** Returns true also for another window of the same user, unless it uses another name. */
export function isOwn(person) {
  return (
    person !== null &&
    person.user === me.user &&
    (person.name === me.name || me.clients.includes(person.client))
  );
}

/** Those who wrote in the open room and are not in it, by user, the latest first. */
export function absentAuthors() {
  const present = new Set([...currentRoom.members.values()].map(({ user }) => user)).add(me.user);
  const absent = new Map();
  for (const { author } of currentRoom.items.toReversed()) {
    if (!author || present.has(author.user) || absent.has(author.user)) continue;
    absent.set(author.user, author);
    if (absent.size === WATCHED_MAX) break;
  }
  return absent;
}

function changed() {
  if (currentRoom?.membersKnown) watch(absentAuthors());
  observer.changed();
}

function watch(users) {
  for (const user of statuses.keys()) {
    if (users.has(user)) continue;
    connection.unsubscribe(STATUS_PREFIX + user);
    statuses.delete(user);
  }
  for (const user of users.keys()) {
    if (statuses.has(user)) continue;
    statuses.set(user, null);
    const is = (status) => {
      if (statuses.has(user)) statuses.set(user, status);
      observer.changed();
    };
    connection.subscribe(STATUS_PREFIX + user, {
      subscribed: ({ publications }) => is(publications.at(-1)?.data ?? null),
      published: ({ data }) => is(data),
      lost: () => is(null),
      removed: () => is(null),
    });
  }
}

function enterRoom(name) {
  const known = rooms.get(name);
  if (known && known.state !== 'removed') return known;
  const room = known ?? new Room(name, () => connection.now);
  room.state = 'joining';
  rooms.set(name, room);
  connection.subscribe(room.topic, {
    subscribed({ position, recovered, publications }) {
      const historyWanted = room.subscribed({ position, recovered });
      for (const publication of publications) arrived(room, room.receive(publication, { live: false }));
      loadPresence(room);
      if (historyWanted) loadHistory(room);
      else sendWaiting(room);
      changed();
    },
    published(publication) {
      arrived(room, room.receive(publication, { live: true }));
      changed();
    },
    joined(info) {
      room.joined(info, info.client === me.client);
      changed();
    },
    left(info) {
      room.left(info, me.clients.includes(info.client));
      changed();
    },
    lost() {
      room.lost();
      changed();
    },
    removed(reason) {
      room.removed(reason);
      changed();
    },
  });
  return room;
}

function rememberRooms() {
  const own = [...rooms.keys()].filter((name) => !DEFAULT_ROOMS.includes(name));
  remember(localStorage, 'chat.rooms', JSON.stringify(own));
}

function arrived(room, item) {
  if (item === null || isOwn(item.author)) return;
  if (room === currentRoom && !document.hidden) {
    observer.messageArrived();
  } else {
    room.unread += 1;
    room.firstUnread ??= item.key;
  }
}

async function loadPresence(room) {
  room.presenceRequested();
  try {
    const { presence } = await connection.request('presence', { channel: room.topic });
    room.presenceArrived(presence);
  } catch {
    // Joins and leaves still update the list; the next subscription asks again.
  }
  changed();
}

/** Reads history, then sends waiting messages: only now it is known which of them had arrived. */
async function loadHistory(room) {
  const returning = room.holdsMessages();
  try {
    const page = await connection.request('history', {
      channel: room.topic,
      limit: HISTORY_PAGE,
      reverse: true,
    });
    const news = room.fill(page);
    if (returning) for (const item of news) arrived(room, item);
  } catch (error) {
    if (error.lost) return;
    room.fillFailed();
  }
  sendWaiting(room);
  changed();
}

function sendWaiting(room) {
  if (room.state !== 'joined' || room.historyWanted) return;
  for (const item of room.waiting()) deliver(room, item);
}

/** Sends a message. If its connection is lost, it is sent again once it is known whether it had arrived. If it arrives
 *  even after that, readers drop the second by its id. */
async function deliver(room, item) {
  room.sending(item);
  try {
    await connection.publish(room.topic, { text: item.text, id: item.wireId });
    room.accepted(item);
  } catch (error) {
    room.notAccepted(item, error);
  }
  changed();
}

async function fetchToken() {
  const query = new URLSearchParams({ name: me.name, user: me.user });
  const { status, text } = await request('GET', `/dev/token?${query}`, { timeout: TOKEN_TIMEOUT_MS });
  if (status !== 200) throw new Error(`the server gave no token (status ${status})`);
  return JSON.parse(text).token;
}

function recall(storage, key) {
  try {
    return storage.getItem(key);
  } catch {
    return null;
  }
}

function recallList(storage, key) {
  try {
    const list = JSON.parse(storage.getItem(key));
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

function remember(storage, key, value) {
  try {
    storage.setItem(key, value);
  } catch {
    // Storage may be full or forbidden; the value is then kept until the window closes.
  }
}
