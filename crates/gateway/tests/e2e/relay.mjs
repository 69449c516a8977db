// A proxy that understands HTTP, as stand between clients and servers: it refuses addresses, WebSocket's among them, and
// may lose all of its connections.

import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';

export class Relay {
  /** The beginnings of paths that are answered 403. */
  blocked = [];

  static async start(target) {
    const relay = new Relay();
    relay.target = target;
    relay.sockets = new Set();
    relay.server = http.createServer((request, response) => relay.pass(request, response));
    relay.server.on('upgrade', (request, near, early) => relay.join(request, near, early));
    relay.server.on('connection', (socket) => relay.keep(socket));
    relay.server.listen(0, '127.0.0.1');
    await once(relay.server, 'listening');
    relay.port = relay.server.address().port;
    return relay;
  }

  keep(socket) {
    this.sockets.add(socket);
    socket.on('error', () => {}).on('close', () => this.sockets.delete(socket));
  }

  isBlocked(request) {
    return this.blocked.some((path) => request.url.startsWith(path));
  }

  pass(request, response) {
    if (this.isBlocked(request)) return response.writeHead(403).end();
    const { method, url: path, headers } = request;
    const ahead = http.request({ port: this.target, host: '127.0.0.1', method, path, headers, agent: false });
    ahead.on('socket', (socket) => this.keep(socket));
    ahead.on('response', (answer) => {
      // These are for one connection only.
      const { connection, 'keep-alive': _, ...others } = answer.headers;
      response.writeHead(answer.statusCode, others);
      response.flushHeaders();
      answer.on('error', () => response.destroy()).pipe(response);
    });
    ahead.on('error', () => response.destroy());
    response.on('close', () => ahead.destroy());
    request.pipe(ahead);
  }

  join(request, near, early) {
    if (this.isBlocked(request)) return near.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    const far = net.connect(this.target, '127.0.0.1');
    this.keep(far);
    const lines = [`${request.method} ${request.url} HTTP/1.1`];
    for (let index = 0; index < request.rawHeaders.length; index += 2) {
      lines.push(`${request.rawHeaders[index]}: ${request.rawHeaders[index + 1]}`);
    }
    far.write(`${lines.join('\r\n')}\r\n\r\n`);
    far.write(early);
    near.pipe(far).pipe(near);
    near.on('close', () => far.destroy());
    far.on('close', () => near.destroy());
  }

  /** Resets every connection on both sides; later ones pass. */
  cut() {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  stop() {
    this.server.close();
    this.cut();
  }
}
