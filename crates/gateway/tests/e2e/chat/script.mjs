// A gateway of the chat page reduced to what a test wants to hear, over a WebSocket that the browser hands over.

export const LOBBY = 'chat:lobby';

/** A gateway reduced to what a test wants to hear: answers every command well unless `answers` names another answer. */
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
      return { client: `client-${this.connections.length}`, version: 'script', ping: 25, pong: true };
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
