// Builds and updates elements of the page. Everything that peers wrote becomes a text node or, for links, the address
// of an http(s) link; there is no other way from a message into the document.

export const find = (id) => document.getElementById(id);

export function crossIcon() {
  const icon = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  icon.setAttribute('viewBox', '0 0 24 24');
  icon.setAttribute('aria-hidden', 'true');
  path.setAttribute('d', 'm6 6 12 12M18 6 6 18');
  icon.append(path);
  return icon;
}

export function element(tag, { class: className, text, ...attributes } = {}, children = []) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter(Boolean));
  return node;
}

/** Writes a text only if it differs, so that screen readers read only new text and a selection is kept. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Makes the children of `parent` match `rows`: builds only those whose look changed, and updates those that are new or
 *  whose state changed. */
export function replaceKeyed(parent, rows) {
  const existing = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let cursor = parent.firstChild;
  for (const { key, look, build, state = null, update } of rows) {
    const wanted = JSON.stringify(look);
    let node = existing.get(key);
    existing.delete(key);
    if (node?.dataset.look !== wanted) {
      const fresh = build();
      fresh.dataset.key = key;
      fresh.dataset.look = wanted;
      if (node) {
        const focused = node.contains(document.activeElement);
        if (cursor === node) cursor = fresh;
        node.replaceWith(fresh);
        if (focused) fresh.querySelector('button')?.focus();
      }
      node = fresh;
    }
    const current = JSON.stringify(state);
    if (update && node.dataset.state !== current) {
      update(node);
      node.dataset.state = current;
    }
    if (node === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(node, cursor);
  }
  for (const node of existing.values()) node.remove();
}

/** Hashes a text by FNV-1a and mixes the result, so that similar ids get different colours. */
export function hash(text) {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1)
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  return Math.imul(value ^ (value >>> 15), 0x2c1b3c6d) >>> 0;
}

export function tagOf(person) {
  return `#${hash(person.user).toString(16).padStart(8, '0').slice(0, 4)}`;
}

export function paintName(node, person) {
  if (person) node.style.setProperty('--hue', hash(person.user) % 360);
  return node;
}

export function paintAvatar(node, person) {
  const words = person?.name.split(/\s+/) ?? [];
  const initials =
    words.length > 1
      ? [words[0], words.at(-1)].map((word) => [...word][0]).join('')
      : [...(words[0] ?? '')].slice(0, 2).join('');
  setText(node, person ? initials.toUpperCase() : '{ }');
  node.classList.toggle('machine', person === null);
  return paintName(node, person);
}

export function withLinks(text) {
  return text
    .split(/(https?:\/\/[^\s<>"']*[^\s<>"'.,;:!?)\]])/)
    .map((part, index) =>
      index % 2 === 0
        ? part
        : element('a', { href: part, text: part, target: '_blank', rel: 'noopener noreferrer nofollow' }),
    );
}
