// The choice of a transport: the one that the page's address asks for, or else the first that works.

import { HttpStreamTransport, LongPollTransport, SseTransport, WebSocketTransport } from './transport.js';

const TRANSPORTS = new Map([
  ['websocket', WebSocketTransport],
  ['http_stream', HttpStreamTransport],
  ['sse', SseTransport],
  ['long_poll', LongPollTransport],
]);

export class Transports {
  #names;
  #failures = 0;

  /** `wanted` is a name or, for all, anything else. */
  constructor(wanted) {
    this.#names = TRANSPORTS.has(wanted) ? [wanted] : [...TRANSPORTS.keys()];
  }

  get current() {
    return this.#names[0];
  }

  make() {
    return new (TRANSPORTS.get(this.current))();
  }

  /** Keeps the current transport from now on. */
  worked() {
    this.#names.length = 1;
  }

  /** Changes to the next transport, unless the current one has worked. Returns false once each has failed in turn. */
  failed() {
    this.#names.push(this.#names.shift());
    this.#failures += 1;
    return this.#failures % this.#names.length !== 0;
  }
}
