// Draws the state of app.js, with the elements of elements.js.

import {
  absentAuthors,
  connection,
  currentRoom,
  DEFAULT_ROOMS,
  discard,
  isOwn,
  leaveRoom,
  me,
  rooms,
  sendAgain,
  statuses,
} from './app.js';
import {
  crossIcon,
  element,
  find,
  paintAvatar,
  paintName,
  replaceKeyed,
  setText,
  tagOf,
  withLinks,
} from './elements.js';
import { personKey } from './room.js';
import { CLOSE_MESSAGE_TOO_BIG } from './transport.js';

const DRAW_INTERVAL_MS = 16;
const COUNTDOWN_INTERVAL_MS = 500;
const GROUP_MS = 5 * 60_000;
const AT_BOTTOM_PX = 48;
const PEOPLE_SHOWN_MAX = 200;
const NAMES_PER_NOTICE_MAX = 6;

const TRANSPORT_WORDS = {
  websocket: 'over WebSocket',
  http_stream: 'over an HTTP stream',
  sse: 'over server-sent events',
  long_poll: 'over long polls',
};

const STOP_REASONS = {
  [CLOSE_MESSAGE_TOO_BIG]: 'The last message was too large for the server.',
  3500: "The server did not accept this page's token.",
  3501: 'The server did not understand this page. It may be out of date: reload it.',
  3502: 'This page did not sign in in time.',
  3503: 'The server ended this connection on purpose.',
  3504: 'Too many windows are connected under this user. Close one, then reconnect.',
  3505: 'Too many rooms are open. Leave some, then reconnect.',
  3506: 'The server and this page disagree about the message format.',
  3507: 'The server does not allow this connection.',
  3508: 'The server does not offer what this page asked for.',
  3509: 'The server saw too many errors from this page.',
};

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const listFormat = new Intl.ListFormat('en', { type: 'conjunction' });

let drawTimer;
let countdownTimer;

/** Draws soon, so that messages that arrive together are drawn once. Uses a timer, since animation frames stop in
 *  hidden tabs. */
export function draw() {
  drawTimer ??= setTimeout(() => {
    drawTimer = undefined;
    drawConnection();
    drawRooms();
    drawPeople();
    drawAbsent();
    timelineView.draw();
  }, DRAW_INTERVAL_MS);
}

function drawConnection() {
  const state = me.name ? connection.state : { name: 'connecting' };
  const seconds = Math.max(1, Math.ceil(((state.retryAt ?? 0) - Date.now()) / 1000));
  const [short, long, action] = {
    connecting: ['Connecting…', '', ''],
    connected: ['Connected', '', ''],
    waiting: [
      'Reconnecting…',
      `Connection lost${state.reason ? `: ${state.reason}` : ''}. Next try in ${seconds} s. Messages you write now are sent then.`,
      'Try now',
    ],
    stopped: [
      'Disconnected',
      STOP_REASONS[state.code] ?? `The server ended this connection: ${state.reason || 'no reason given'}.`,
      'Reconnect',
    ],
  }[state.name];
  find('status').dataset.state = state.name;
  find('status').title = state.client ? `Client ${state.client}` : '';
  setText(find('status-text'), short);
  setText(find('status-transport'), TRANSPORT_WORDS[state.transport] ?? '');
  const removed = state.name === 'connected' && currentRoom.state === 'removed';
  find('banner').hidden = long === '' && !removed;
  setText(find('banner-text'), removed ? `You are not in this room: ${currentRoom.trouble}.` : long);
  setText(find('banner-action'), removed ? 'Join again' : action);
  clearTimeout(countdownTimer);
  if (state.name === 'waiting') countdownTimer = setTimeout(draw, COUNTDOWN_INTERVAL_MS);
}

function drawRooms() {
  const unreadElsewhere = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  document.title = `${unreadElsewhere ? `(${countText(unreadElsewhere)}) ` : ''}#${currentRoom.name} – Fanwire chat`;
  find('unread-elsewhere').hidden = unreadElsewhere === 0;
  setText(find('unread-elsewhere'), countText(unreadElsewhere));
  replaceKeyed(
    find('room-list'),
    [...rooms.values()].map((room) => ({
      key: room.name,
      look: [room === currentRoom, room.unread, room.members.size],
      build: () => roomRow(room),
    })),
  );
  if (find('room-title').lastChild?.textContent !== currentRoom.name) {
    find('room-title').replaceChildren(element('span', { class: 'room-hash', text: '#' }), currentRoom.name);
  }
  find('composer-text').placeholder = `Message #${currentRoom.name}`;
  setText(find('command'), publishCommand(currentRoom));
  setText(find('my-name'), me.name ?? '');
  if (me.name) paintAvatar(find('my-avatar'), me);
}

function roomRow(room) {
  const button = element('button', { class: 'room-button', type: 'button' }, [
    element('span', { class: 'room-hash', text: '#', 'aria-hidden': 'true' }),
    element('span', { class: 'room-name', text: room.name }),
    room.unread
      ? element('span', {
          class: 'badge',
          text: countText(room.unread),
          'aria-label': `${room.unread} unread`,
        })
      : element('span', {
          class: 'room-people',
          text: room.members.size || '',
          title: `${room.members.size} online`,
          'aria-label': `${room.members.size} online`,
        }),
  ]);
  if (room === currentRoom) button.setAttribute('aria-current', 'true');
  button.classList.toggle('has-unread', room.unread > 0);
  button.onclick = () => {
    location.hash = room.name;
  };
  const row = element('li', { class: 'room' }, [button]);
  if (!DEFAULT_ROOMS.includes(room.name)) {
    const leave = element(
      'button',
      { class: 'icon-button room-leave', type: 'button', 'aria-label': `Leave ${room.name}`, title: 'Leave' },
      [crossIcon()],
    );
    leave.onclick = () => leaveRoom(room);
    row.append(leave);
  }
  return row;
}

function drawPeople() {
  const people = [...currentRoom.members.values()];
  setText(find('online-count'), String(people.length));
  setText(find('online-short'), String(people.length));
  find('people-list').classList.toggle('stale', !currentRoom.membersKnown);
  people.sort(
    (one, other) =>
      isOwn(other) - isOwn(one) ||
      (other.client === me.client) - (one.client === me.client) ||
      one.name.localeCompare(other.name) ||
      one.user.localeCompare(other.user) ||
      one.client.localeCompare(other.client),
  );
  const ambiguous = ambiguousNames(currentRoom);
  const seen = new Set();
  const rows = people.slice(0, PEOPLE_SHOWN_MAX).map((person) => {
    const again = seen.has(personKey(person));
    seen.add(personKey(person));
    const remark =
      person.client === me.client
        ? 'you'
        : isOwn(person)
          ? 'your other window'
          : again
            ? 'another window'
            : '';
    const tag = ambiguous.has(person.name) ? tagOf(person) : '';
    return {
      key: person.client,
      look: [person.name, remark, tag],
      build: () =>
        element('li', { class: person.client === me.client ? 'person self' : 'person' }, [
          paintAvatar(element('span', { class: 'avatar', 'aria-hidden': 'true' }), person),
          element('span', { class: 'person-text' }, [
            element('span', {
              class: 'person-name',
              text: person.name,
              title: `Client ${person.client}`,
              dir: 'auto',
            }),
            tag && element('span', { class: 'tag', text: tag }),
            remark && element('span', { class: 'aside', text: remark }),
          ]),
        ]),
    };
  });
  const unseen = people.length - rows.length;
  if (unseen > 0) {
    const build = () => element('li', { class: 'people-more', text: `and ${unseen} more` });
    rows.push({ key: 'more', look: [unseen], build });
  }
  replaceKeyed(find('people-list'), rows);
}

/** Those who wrote here and are elsewhere, with a dot and words for their status. */
function drawAbsent() {
  const absent = currentRoom.membersKnown ? [...absentAuthors().values()] : [];
  find('absent').hidden = absent.length === 0;
  const ambiguous = ambiguousNames(currentRoom);
  const rows = absent.map((person) => {
    const status = statuses.get(person.user);
    const words = statusText(status);
    const tag = ambiguous.has(person.name) ? tagOf(person) : '';
    return {
      key: person.user,
      look: [person.name, tag],
      build: () =>
        element('li', { class: 'person absent' }, [
          paintAvatar(element('span', { class: 'avatar', 'aria-hidden': 'true' }), person),
          element('span', { class: 'absent-text' }, [
            element('span', { class: 'person-name', text: person.name, dir: 'auto' }),
            tag && element('span', { class: 'tag', text: tag }),
            element('span', { class: 'aside' }),
          ]),
        ]),
      state: [status?.online, words],
      update(row) {
        row.dataset.status = status ? (status.online ? 'online' : 'offline') : '';
        setText(row.querySelector('.aside'), words);
      },
    };
  });
  replaceKeyed(find('absent-list'), rows);
}

function statusText(status) {
  if (!status) return '';
  if (status.online) return 'online';
  if (!status.last_seen) return 'offline';
  const day = dayText(status.last_seen);
  const when = day === 'Today' ? clockFormat.format(status.last_seen) : day === 'Yesterday' ? 'yesterday' : day;
  return `last seen ${when}`;
}

/** The conversation. A reader at the end stays at the end; for one who reads further up nothing scrolls, and new
 *  messages are counted. */
export const timelineView = {
  below: 0,
  following: true,

  follow() {
    this.following = true;
    this.below = 0;
  },

  countBelow() {
    if (!this.following) this.below += 1;
  },

  scrolled() {
    const area = find('timeline-scroll');
    this.following = area.scrollHeight - area.scrollTop - area.clientHeight < AT_BOTTOM_PX;
    if (this.following && this.below) {
      this.below = 0;
      draw();
    }
  },

  draw() {
    const ambiguous = ambiguousNames(currentRoom);
    const rows = [];
    let previous = null;
    let day = '';
    for (const item of currentRoom.items) {
      const itemDay = item.kind === 'message' && item.time ? new Date(item.time).toDateString() : day;
      if (itemDay !== day) {
        rows.push(dividerRow(`day/${itemDay}`, 'day', dayText(item.time)));
        previous = null;
      }
      day = itemDay;
      if (item.key === currentRoom.firstUnread) {
        rows.push(dividerRow(`unread/${item.key}`, 'unread', 'New messages'));
        previous = null;
      }
      if (item.kind === 'message') rows.push(messageRow(item, previous, ambiguous));
      else if (item.kind === 'notice') rows.push(noticeRow(item, ambiguous));
      else rows.push(dividerRow(item.key, 'gap', 'Some messages may be missing here'));
      previous = item.kind === 'message' ? item : null;
    }
    replaceKeyed(find('timeline'), rows);
    this.drawEmpty();
    this.stay();
    find('new-messages').hidden = this.below === 0;
    setText(
      find('new-messages'),
      `${countText(this.below)} new ${this.below === 1 ? 'message' : 'messages'} ↓`,
    );
  },

  drawEmpty() {
    const empty = !currentRoom.items.some((item) => item.kind !== 'notice');
    find('empty').hidden = !empty;
    if (!empty) return;
    const loading =
      currentRoom.state === 'joining' || (currentRoom.historyWanted && currentRoom.state === 'joined');
    setText(
      find('empty-title'),
      loading ? `Opening #${currentRoom.name}…` : `It is quiet in #${currentRoom.name}`,
    );
    setText(
      find('empty-text'),
      loading
        ? "Messages appear once you're connected."
        : 'Say hello, or publish from a backend.',
    );
    find('empty-action').hidden = loading;
  },

  stay() {
    if (!this.following) return;
    const area = find('timeline-scroll');
    area.scrollTop = area.scrollHeight;
  },

  /** Scrolls to the first unread message. */
  openAtUnread() {
    this.follow();
    this.draw();
    const divider = find('timeline').querySelector('.divider.unread');
    if (!divider) return;
    const area = find('timeline-scroll');
    area.scrollTop = divider.offsetTop - area.offsetTop - area.clientHeight / 4;
    this.scrolled();
  },
};

function messageRow(item, previous, ambiguous) {
  const own = isOwn(item.author);
  const continued =
    previous !== null &&
    previous.author?.user === item.author?.user &&
    previous.author?.name === item.author?.name &&
    previous.author?.client === item.author?.client &&
    Math.abs((item.time ?? 0) - (previous.time ?? 0)) < GROUP_MS;
  const name = item.author?.name ?? 'Backend';
  const remark =
    item.author === null
      ? 'by API'
      : own && !me.clients.includes(item.author.client) && item.author.client
        ? 'your other window'
        : '';
  const tag = item.author && !own && ambiguous.has(name) ? tagOf(item.author) : '';
  return {
    key: item.key,
    look: [own, continued, tag, remark],
    build() {
      const bubble = item.json
        ? element('pre', { class: 'bubble json', text: item.text })
        : element('div', { class: 'bubble', dir: 'auto' }, withLinks(item.text));
      const row = element('li', { class: 'message' }, [
        !continued &&
          !own &&
          paintAvatar(element('span', { class: 'avatar', 'aria-hidden': 'true' }), item.author),
        element('div', { class: 'message-body' }, [
          continued
            ? element('span', { class: 'visually-hidden', text: own ? 'You:' : `${name}:` })
            : element('div', { class: 'byline' }, [
                paintName(
                  element('span', {
                    class: own ? 'visually-hidden' : 'author',
                    text: own ? 'You' : name,
                    dir: 'auto',
                  }),
                  item.author,
                ),
                tag && element('span', { class: 'tag', text: tag }),
                remark && element('span', { class: 'aside', text: remark }),
                element('time'),
              ]),
          bubble,
          element('div', { class: 'delivery' }),
        ]),
      ]);
      row.classList.toggle('own', own);
      row.classList.toggle('continued', continued);
      row.classList.toggle('backend', item.author === null);
      return row;
    },
    state: [item.time, item.delivery],
    // A row that were built anew would be read aloud again.
    update(row) {
      row.dataset.delivery = item.delivery;
      showTime(row, item.time);
      row.querySelector('.delivery').replaceChildren(...deliveryParts(item));
    },
  };
}

function showTime(row, time) {
  const clock = row.querySelector('time');
  if (time === null) {
    clock?.remove();
    return;
  }
  const full = fullFormat.format(time);
  row.querySelector('.bubble').title = full;
  if (!clock) return;
  setText(clock, clockFormat.format(time));
  clock.dateTime = new Date(time).toISOString();
  clock.title = full;
}

function deliveryParts(item) {
  if (item.delivery === 'waiting') return [element('span', { text: 'Will be sent when connected' })];
  // To the eye this is the look of its bubble.
  if (item.delivery === 'sending') return [element('span', { class: 'visually-hidden', text: 'Sending…' })];
  if (item.delivery !== 'failed') return [];
  const room = currentRoom;
  const button = (text, act) => {
    const node = element('button', { class: 'link-button', type: 'button', text });
    node.onclick = () => {
      // The button goes, and the focus would go with it.
      find('timeline-scroll').focus({ preventScroll: true });
      act(room, item);
    };
    return node;
  };
  return [
    element('span', { text: `Not sent: ${item.problem}.` }),
    button('Try again', sendAgain),
    button('Delete', discard),
  ];
}

function noticeRow(notice, ambiguous) {
  const verbs = { joined: 'joined', left: 'left', visited: 'came and went' };
  const parts = Object.entries(verbs).map(([event, verb]) => {
    const names = [...notice.events.values()]
      .filter((other) => other.event === event)
      .map(({ person }) => {
        if (isOwn(person)) return 'your other window';
        return ambiguous.has(person.name) ? `${person.name} ${tagOf(person)}` : person.name;
      });
    const shown = names.slice(0, NAMES_PER_NOTICE_MAX);
    if (names.length > shown.length) shown.push(`${names.length - shown.length} more`);
    return names.length ? `${listFormat.format(shown)} ${verb}` : '';
  });
  const text = parts.filter(Boolean).join(' · ');
  return {
    key: notice.key,
    look: [text],
    build: () => element('li', { class: 'notice', text: text[0].toUpperCase() + text.slice(1), dir: 'auto' }),
  };
}

function dividerRow(key, kind, text) {
  return { key, look: [text], build: () => element('li', { class: `divider ${kind}`, text }) };
}

function dayText(time) {
  const today = new Date(connection.now);
  const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
  const wanted = new Date(time).toDateString();
  if (wanted === today.toDateString()) return 'Today';
  return wanted === yesterday.toDateString() ? 'Yesterday' : dayFormat.format(time);
}

/** Returns names that more than one user of the room has; they are shown with a tag. */
function ambiguousNames(room) {
  const usersByName = new Map([[me.name, new Set([me.user])]]);
  const authors = room.items
    .filter((item) => item.kind === 'message' && item.author)
    .map((item) => item.author);
  const passing = room.items
    .filter((item) => item.kind === 'notice')
    .flatMap((item) => [...item.events.values()].map(({ person }) => person));
  for (const { name, user } of [...room.members.values(), ...authors, ...passing]) {
    if (!usersByName.has(name)) usersByName.set(name, new Set());
    usersByName.get(name).add(user);
  }
  return new Set([...usersByName].filter(([, users]) => users.size > 1).map(([name]) => name));
}

function publishCommand(room) {
  const body = JSON.stringify({ channel: room.topic, data: { text: 'Hello from curl' } });
  return `curl ${location.origin}/api/publish -d '${body}'`;
}

function countText(count) {
  return count > 99 ? '99+' : String(count);
}
