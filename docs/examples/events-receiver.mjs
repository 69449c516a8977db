// A receiver of Fanwire's events (docs/events.md). Node 18, nothing to install.
//
// SIGNATURE_SECRET is events.webhook.signature_secret of the gateway. It prints each event once; a real one stores it, and
// the id of the newest event of each user and topic with it.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';

const { SIGNATURE_SECRET, PORT = '8200' } = process.env;
if (!SIGNATURE_SECRET) throw new Error('SIGNATURE_SECRET is not set');
const OLDEST = 300; // seconds

const newest = new Map();

/** True if the gateway has signed the body within the last minutes. */
function isGenuine(header = '', body) {
  const parts = header.split(',').map((part) => part.split('='));
  const times = parts.filter(([name]) => name === 't').map(([, value]) => value);
  if (times.length !== 1 || !(Math.abs(Date.now() / 1000 - Number(times[0])) <= OLDEST)) return false;
  const expected = createHmac('sha256', SIGNATURE_SECRET).update(`${times[0]}.`).update(body).digest();
  const given = parts.filter(([name]) => name === 'v1').map(([, value]) => Buffer.from(value ?? '', 'hex'));
  return given.some((one) => one.length === expected.length && timingSafeEqual(one, expected));
}

/** Yours. What it throws makes the gateway post the event again. */
function handle(event) {
  console.log(JSON.stringify(event));
}

/** Handles an event unless it, or a newer one of its topic or user, has been handled. */
function receive(event) {
  const about = event.topic === undefined ? `user ${event.user}` : `topic ${event.topic}`;
  const [outbox, ...place] = event.id.split('-').map(Number);
  const known = newest.get(about);
  // A number of another outbox says that the gateway was given another engine.
  const isKnown = known?.outbox === outbox;
  if (isKnown && (place[0] - known.place[0] || place[1] - known.place[1]) <= 0) return;
  handle(event);
  newest.set(about, { outbox, place });
}

async function answer(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (request.method !== 'POST') return 405;
  if (!isGenuine(request.headers['fanwire-signature'], body)) return 401;
  try {
    JSON.parse(body).events.forEach(receive);
    return 204;
  } catch (error) {
    // The events come again.
    console.error('events could not be handled:', error);
    return 500;
  }
}

createServer(async (request, response) => {
  response.writeHead(await answer(request)).end();
}).listen(Number(PORT), '127.0.0.1');
