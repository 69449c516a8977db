// The chat room page, started by index.html: input by keyboard, mouse and touch. The other parts are app.js (the
// state), room.js (one room), connection.js (the protocol), transport.js, fallback.js and http.js (its way to the
// server), view.js (the drawing) and elements.js (elements of the page).

import {
  connection,
  currentRoom,
  me,
  openRoom,
  roomNameFrom,
  roomNameProblem,
  rooms,
  ROOM_NAME_LENGTH_MAX,
  ROOMS_MAX,
  send,
  setName,
  start,
} from './app.js';
import { find, hash, setText } from './elements.js';
import { draw, timelineView } from './view.js';

const NAME_LENGTH_MAX = 40;
const TEXT_LENGTH_MAX = 2000;
const COPIED_SHOWN_MS = 2_000;

const NAME_FIRST = [
  'Amber',
  'Brisk',
  'Calm',
  'Clever',
  'Copper',
  'Gentle',
  'Jolly',
  'Lucky',
  'Quiet',
  'Sunny',
  'Swift',
  'Violet',
];
const NAME_LAST = [
  'Badger',
  'Falcon',
  'Fox',
  'Heron',
  'Lynx',
  'Magpie',
  'Marten',
  'Otter',
  'Puffin',
  'Robin',
  'Seal',
  'Wren',
];

const drafts = new Map();

const drawers = [
  { panel: find('rooms-panel'), opener: find('open-rooms'), media: matchMedia('(max-width: 719px)') },
  { panel: find('people-panel'), opener: find('open-people'), media: matchMedia('(max-width: 1099px)') },
];

function listen() {
  addEventListener('hashchange', followAddress);
  addEventListener('online', () => connection.hurry());
  addEventListener('offline', () => connection.networkLost());
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) return;
    connection.hurry();
    currentRoom.unread = 0;
    draw();
  });
  listenToComposer();
  listenToDialogs();
  listenToDrawers();
  document.addEventListener('keydown', switchRoomByKey);
  find('banner-action').onclick = () => {
    if (connection.state.name === 'connected') openRoom(currentRoom.name);
    else connection.reconnect();
  };
  find('copy-command').onclick = copyCommand;
  find('empty-action').onclick = () => {
    openDrawer(drawers[1]);
    find('copy-command').focus();
  };
  const area = find('timeline-scroll');
  area.addEventListener('scroll', () => timelineView.scrolled(), { passive: true });
  // When a keyboard appears or the window grows, the latest message stays visible.
  new ResizeObserver(() => timelineView.stay()).observe(area);
  find('new-messages').onclick = () => {
    timelineView.follow();
    draw();
    find('composer-text').focus();
  };
}

/** Opens the room that the address names, so that links and the back button work. */
function followAddress() {
  const composer = find('composer-text');
  drafts.set(currentRoom, composer.value);
  openRoom(location.hash.slice(1));
  composer.value = drafts.get(currentRoom) ?? '';
  composerChanged();
  timelineView.openAtUnread();
  closeDrawers();
}

function listenToComposer() {
  const composer = find('composer-text');
  composer.maxLength = TEXT_LENGTH_MAX;
  composer.addEventListener('input', composerChanged);
  composer.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    find('composer').requestSubmit();
  });
  find('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = composer.value.trim();
    composer.focus();
    if (text === '') return;
    composer.value = '';
    composerChanged();
    timelineView.follow();
    send(text);
  });
  if (matchMedia('(hover: hover)').matches) composer.focus();
}

function composerChanged() {
  const composer = find('composer-text');
  composer.style.height = '';
  composer.style.height = `${Math.max(composer.scrollHeight, composer.offsetHeight)}px`;
  find('composer').querySelector('.send').disabled = composer.value.trim() === '';
  const left = TEXT_LENGTH_MAX - composer.value.length;
  setText(find('counter'), left > TEXT_LENGTH_MAX / 10 ? '' : `${left} characters left`);
  find('counter').classList.toggle('full', left === 0);
}

function listenToDialogs() {
  find('rename').onclick = () => askName({ first: false });
  find('name-cancel').onclick = () => find('name-dialog').close();
  find('name-dialog').addEventListener('close', () => {
    const name = find('name-input').value.trim();
    const submitted = find('name-dialog').returnValue === 'submitted';
    if (submitted && name !== '' && name !== me.name) setName(name);
    else if (!me.name) setName(suggestedName());
    find('composer-text').focus();
  });
  find('name-form').addEventListener('submit', (event) => {
    event.preventDefault();
    find('name-dialog').close('submitted');
  });
  find('name-input').maxLength = NAME_LENGTH_MAX;

  const roomDialog = find('room-dialog');
  const roomInput = find('room-input');
  const roomProblem = (text) => setText(find('room-problem'), text);
  find('new-room').onclick = () => {
    roomInput.value = '';
    roomProblem('');
    roomDialog.showModal();
  };
  find('room-cancel').onclick = () => roomDialog.close();
  roomInput.maxLength = ROOM_NAME_LENGTH_MAX + 1;
  roomInput.addEventListener('input', () => roomProblem(''));
  find('room-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const name = roomNameFrom(roomInput.value);
    const full = !rooms.has(name) && rooms.size >= ROOMS_MAX;
    const problem =
      roomNameProblem(name) || (full ? 'You are in as many rooms as fit. Leave one first.' : '');
    roomProblem(problem);
    if (problem) return;
    roomDialog.close();
    location.hash = name;
    find('composer-text').focus();
  });
}

function askName({ first }) {
  setText(find('name-title'), first ? 'Welcome' : 'Change name');
  setText(
    find('name-text'),
    first
      ? 'Pick a name that others will see. It need not be unique.'
      : 'Others see the new name from your next message on.',
  );
  setText(find('name-submit'), first ? 'Start chatting' : 'Save');
  find('name-cancel').hidden = first;
  find('name-input').value = me.name ?? suggestedName();
  find('name-dialog').returnValue = '';
  find('name-dialog').showModal();
  find('name-input').select();
}

function suggestedName() {
  const pick = (words, seed) => words[hash(seed) % words.length];
  return `${pick(NAME_FIRST, `${me.user}/first`)} ${pick(NAME_LAST, `${me.user}/last`)}`;
}

function listenToDrawers() {
  for (const drawer of drawers) {
    drawer.opener.onclick = () => openDrawer(drawer);
    drawer.panel.querySelector('.drawer-close').onclick = closeDrawers;
    drawer.media.addEventListener('change', closeDrawers);
  }
  find('scrim').onclick = closeDrawers;
  // Choosing the open room does not change the address, but shows the room.
  find('room-list').addEventListener('click', (event) => {
    if (event.target.closest('.room-button')) closeDrawers();
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') closeDrawers();
  });
}

function openDrawer(drawer) {
  if (!drawer.media.matches) return;
  drawer.panel.classList.add('open');
  drawer.opener.setAttribute('aria-expanded', 'true');
  find('scrim').hidden = false;
  document.querySelector('.conversation').inert = true;
  drawer.panel.querySelector('.drawer-close').focus();
}

function closeDrawers() {
  const open = drawers.find(({ panel }) => panel.classList.contains('open'));
  if (!open) return;
  document.querySelector('.conversation').inert = false;
  find('scrim').hidden = true;
  open.panel.classList.remove('open');
  open.opener.setAttribute('aria-expanded', 'false');
  open.opener.focus();
}

/** Opens the next room on Alt with an arrow, as other chat programs do. */
function switchRoomByKey(event) {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!event.altKey || !step || document.querySelector('dialog[open]')) return;
  event.preventDefault();
  const names = [...rooms.keys()];
  location.hash = names[(names.indexOf(currentRoom.name) + step + names.length) % names.length];
}

async function copyCommand() {
  const button = find('copy-command');
  const copied = await (navigator.clipboard?.writeText(find('command').textContent) ?? Promise.reject()).then(
    () => true,
    () => false,
  );
  // The clipboard exists on secure origins only; elsewhere the line is selected, to be copied by hand.
  if (!copied) getSelection().selectAllChildren(find('command'));
  setText(button, copied ? 'Copied' : 'Selected');
  setTimeout(() => setText(button, 'Copy'), COPIED_SHOWN_MS);
}

start({ changed: draw, messageArrived: () => timelineView.countBelow() });
listen();
followAddress();
if (!me.name) askName({ first: true });
