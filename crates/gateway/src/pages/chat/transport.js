// How texts of the client protocol travel. Every transport has `open(onMessage, onClose)`, `send(text)`, of which the
// first has to be the connect command, and `close()`. `onMessage` gets whole messages, one per line; `onClose` gets a
// close code, 0 if there is none, and a reason, and may be called after `close`.

import { request, stream } from './http.js';

const WEBSOCKET_URL = `${location.origin.replace(/^http/, 'ws')}/connection/websocket`;
const HTTP_STREAM_URL = '/connection/http_stream';
const SSE_URL = '/connection/sse';
const EMULATION_URL = '/emulation';

export const CLOSE_MESSAGE_TOO_BIG = 1009;
/** Shorter than a command waits for its answer: a request without an answer then counts as a lost connection. */
const SEND_TIMEOUT_MS = 8_000;
/** A character takes at most three bytes in a request, and the server accepts requests of 64 KiB. */
const SEND_LENGTH_MAX = 20_000;
const LAST_WORDS_MS = 1_000;
/** A poll that brings nothing is answered after this time. */
const POLL_WAIT_S = 15;
const POLL_TIMEOUT_MS = (POLL_WAIT_S + 10) * 1000;
const POLL_AGAIN_MS = 1_000;

export class WebSocketTransport {
  #socket = null;
  #waiting = [];

  open(onMessage, onClose) {
    if (!window.WebSocket) {
      queueMicrotask(() => onClose(0, 'this browser has no WebSocket'));
      return;
    }
    this.#socket = new WebSocket(WEBSOCKET_URL);
    this.#socket.onopen = () => {
      for (const text of this.#waiting.splice(0)) this.#socket.send(text);
    };
    this.#socket.onmessage = (event) => onMessage(event.data);
    this.#socket.onclose = (event) => onClose(event.code, event.reason);
  }

  send(text) {
    if (this.#socket?.readyState === 1) this.#socket.send(text);
    else this.#waiting.push(text);
  }

  close() {
    this.#socket?.close();
  }
}

/** Messages arrive in responses to the page's first request, and later commands are requests of their own. One request is
 *  sent at a time, so that commands keep their order and a window needs two connections at most. */
class EmulatedTransport {
  #onMessage;
  #onClose;
  #endStream = null;
  #session = null;
  #waiting = [];
  #sending = false;
  #closed = false;

  open(onMessage, onClose) {
    this.#onMessage = onMessage;
    this.#onClose = onClose;
  }

  send(text) {
    if (this.#endStream) {
      this.#waiting.push(text);
      this.#sendWaiting();
    } else {
      this.#endStream = this.openStream(
        text,
        (messages) => this.#received(messages),
        (reason) => this.#onClose(0, reason),
      );
    }
  }

  close() {
    this.#closed = true;
    this.#endStream?.();
  }

  #received(messages) {
    this.#onMessage(messages);
    if (this.#closed || this.#session) return;
    // The first message answers the connect command.
    const { connect } = JSON.parse(messages.split('\n', 1)[0]);
    if (connect) this.#session = { session: connect.session, node: connect.node };
    this.#sendWaiting();
  }

  async #sendWaiting() {
    if (this.#sending || !this.#session) return;
    this.#sending = true;
    // Commands that are sent together share a request.
    await undefined;
    while (this.#waiting.length > 0 && !this.#closed) await this.#sendSome();
    this.#sending = false;
  }

  async #sendSome() {
    let length = 0;
    const fitting = this.#waiting.findIndex((text) => (length += text.length) > SEND_LENGTH_MAX);
    const texts = this.#waiting.splice(0, fitting === -1 ? this.#waiting.length : Math.max(fitting, 1));
    const body = JSON.stringify({ ...this.#session, data: texts.join('\n') });
    const options = { body, timeout: SEND_TIMEOUT_MS };
    const { status } = await request('POST', EMULATION_URL, options).catch(() => ({ status: 0 }));
    if (status === 200 || status === 204) return;
    // A session that has ended says why in its stream, which may arrive later than this response.
    const code = status === 413 ? CLOSE_MESSAGE_TOO_BIG : 0;
    const reason = status ? `the server refused a command with status ${status}` : 'a command could not be sent';
    setTimeout(() => this.#onClose(code, reason), LAST_WORDS_MS);
    this.#closed = true;
  }
}

export class HttpStreamTransport extends EmulatedTransport {
  openStream(connect, onMessage, onEnd) {
    let rest = '';
    const receive = (text) => {
      rest += text;
      const end = rest.lastIndexOf('\n');
      if (end === -1) return;
      const messages = rest.slice(0, end);
      rest = rest.slice(end + 1);
      onMessage(messages);
    };
    return stream(HTTP_STREAM_URL, connect, receive, onEnd);
  }
}

export class SseTransport extends EmulatedTransport {
  openStream(connect, onMessage, onEnd) {
    if (!window.EventSource) {
      queueMicrotask(() => onEnd('this browser has no EventSource'));
      return () => {};
    }
    const source = new EventSource(`${SSE_URL}?cf_connect=${encodeURIComponent(connect)}`);
    source.onmessage = (event) => onMessage(event.data);
    source.onerror = () => {
      // Otherwise it would connect again by itself, with a token that may have expired.
      source.close();
      onEnd('the stream ended');
    };
    return () => source.close();
  }
}

/** Each request is answered with all messages that there are, or waits for the first. */
export class LongPollTransport extends EmulatedTransport {
  #polled = '';

  openStream(connect, onMessage, onEnd) {
    const end = new AbortController();
    const leave = () => {
      removeEventListener('pagehide', leave);
      end.abort();
      // Otherwise its member would stay for a while.
      const query = new URLSearchParams({ end: '', session: this.#polled });
      if (this.#polled) navigator.sendBeacon?.(`${HTTP_STREAM_URL}?${query}`);
      this.#polled = '';
    };
    addEventListener('pagehide', leave);
    this.#poll(connect, onMessage, end.signal).then((reason) => {
      removeEventListener('pagehide', leave);
      onEnd(reason);
    });
    return leave;
  }

  /** Polls until it is of no use any more, and returns why. A poll without an answer is sent once more: the server
   *  gives an answer that was lost again. */
  async #poll(connect, onMessage, signal) {
    let isLast = false;
    while (!signal.aborted) {
      const query = new URLSearchParams({ wait: POLL_WAIT_S, ...(this.#polled && { session: this.#polled }) });
      const options = { body: this.#polled ? '' : connect, timeout: POLL_TIMEOUT_MS, signal };
      const response = await request('POST', `${HTTP_STREAM_URL}?${query}`, options).catch(() => null);
      if (response?.status === 200) {
        isLast = false;
        this.#polled = response.header('Fanwire-Session');
        if (response.text) onMessage(response.text);
      } else if (isLast || !this.#polled || response?.status < 500) {
        return response ? `the server refused a poll with status ${response.status}` : 'the server does not answer';
      } else {
        isLast = true;
        await new Promise((resolve) => setTimeout(resolve, POLL_AGAIN_MS));
      }
    }
    return 'the page has ended the polls';
  }
}
