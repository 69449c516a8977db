// A gateway reduced to what a test wants to hear, over WebSockets that the browser hands over and over the HTTP
// transports, so that even rare answers can be given.

import { text } from 'node:stream/consumers';

export const LOBBY = 'chat:lobby';

/** Answers every command well unless `answers` names another answer. */
export class Script {
  connections = [];
  commands = [];
  answers = {};
  stream = { epoch: 'first', offset: 0 };

  accept(socket) {
    this.connections.push(socket);
    socket.onMessage((frame) => {
      for (const line of frame.split('\n')) this.hear(socket, JSON.parse(line));
    });
  }

  get socket() {
    return this.connections.at(-1);
  }

  hear(socket, command) {
    this.commands.push(command);
    const { id, ...rest } = command;
    const [method] = Object.keys(rest);
    if (!method) return;
    const answer = this.answers[method]?.(command[method]) ?? {
      [method]: this.usual(method, command[method]),
    };
    if (answer.silent) return;
    if (answer.close) socket.close({ code: answer.close, reason: 'as scripted' });
    else this.say({ id, ...answer }, socket);
  }

  usual(method, { channel, recover, offset, epoch }) {
    if (method === 'connect')
      return {
        client: `client-${this.connections.length}`,
        version: 'script',
        ping: 25,
        pong: true,
        ...this.socket.names,
      };
    if (method === 'presence') return { presence: {} };
    if (method === 'history') return { publications: [], ...this.top(channel) };
    if (method !== 'subscribe') return {};
    const top = this.top(channel);
    const recovered = recover === true && epoch === top.epoch && offset === top.offset;
    return {
      recoverable: true,
      positioned: true,
      ...top,
      ...(recover && { was_recovering: true }),
      ...(recovered && { recovered }),
    };
  }

  top(channel) {
    return channel === LOBBY ? this.stream : { epoch: 'quiet', offset: 0 };
  }

  say(reply, socket = this.socket) {
    socket.send(JSON.stringify(reply));
  }

  push(push) {
    this.say({ push: { channel: LOBBY, ...push } });
  }

  publish(text) {
    this.stream.offset += 1;
    this.push({ pub: { data: { text }, offset: this.stream.offset } });
  }

  heard(method, channel) {
    return this.commands.filter(
      (command) => command[method] && (!channel || command[method].channel === channel),
    );
  }
}

/** Makes answers of a Front by which a window reaches the script without WebSocket. */
export function answersOf(script) {
  const sockets = new Map();
  const open = (response, type, frame, connect) => {
    response.writeHead(200, { 'content-type': type });
    const socket = new EmulatedSocket(response, frame, `session-${sockets.size + 1}`);
    sockets.set(socket.names.session, socket);
    script().accept(socket);
    socket.hear(connect);
  };
  return {
    '/connection/http_stream': async (request, response) => {
      const { searchParams } = new URL(request.url, 'http://script');
      const commands = await text(request);
      if (searchParams.has('end')) {
        sockets.delete(searchParams.get('session'));
        response.writeHead(204).end();
      } else if (!searchParams.has('wait')) {
        open(response, 'application/json', (line) => `${line}\n`, commands);
      } else if (searchParams.has('session')) {
        const socket = sockets.get(searchParams.get('session'));
        if (socket) socket.poll(response);
        else response.writeHead(404).end();
      } else {
        const socket = new PolledSocket(response, `session-${sockets.size + 1}`);
        sockets.set(socket.names.session, socket);
        script().accept(socket);
        socket.hear(commands);
      }
    },
    '/connection/sse': (request, response) => {
      const connect = new URL(request.url, 'http://script').searchParams.get('cf_connect');
      open(response, 'text/event-stream', (line) => `data: ${line}\n\n`, connect);
    },
    '/emulation': async (request, response) => {
      const { session, node, data } = JSON.parse(await text(request));
      const socket = node === 'script' && sockets.get(session);
      response.writeHead(socket ? 204 : 404).end();
      if (socket) socket.hear(data);
    },
  };
}

/** A connection whose messages go out by a response, and come in by other requests. */
class EmulatedSocket {
  constructor(response, frame, session) {
    this.response = response;
    this.frame = frame;
    this.names = { session, node: 'script' };
  }

  onMessage(hear) {
    this.hear = hear;
  }

  send(line) {
    this.response.write(this.frame(line));
  }

  /** A code below 3001 belongs to no goodbye: the response just ends. */
  close({ code, reason }) {
    if (code > 3000) this.send(JSON.stringify({ push: { disconnect: { code, reason } } }));
    this.response.end();
  }
}

/** A connection whose messages go out by the answers to polls, and come in by other requests. */
class PolledSocket {
  #waiting;
  #lines = [];
  #isClosed = false;

  constructor(response, session) {
    this.names = { session, node: 'script' };
    this.poll(response);
  }

  onMessage(hear) {
    this.hear = hear;
  }

  send(line) {
    this.#lines.push(line);
    this.#answer();
  }

  /** A code below 3001 belongs to no goodbye: the next poll finds no session. */
  close({ code, reason }) {
    if (code > 3000) this.send(JSON.stringify({ push: { disconnect: { code, reason } } }));
    this.#isClosed = true;
    this.#answer();
  }

  poll(response) {
    this.#waiting = response;
    response.on('close', () => {
      if (this.#waiting === response) this.#waiting = undefined;
    });
    this.#answer();
  }

  #answer() {
    const response = this.#waiting;
    if (!response || (this.#lines.length === 0 && !this.#isClosed)) return;
    this.#waiting = undefined;
    const lines = this.#lines.splice(0);
    if (lines.length > 0) response.writeHead(200, { 'fanwire-session': this.names.session });
    else response.writeHead(404);
    response.end(lines.map((line) => `${line}\n`).join(''));
  }
}
