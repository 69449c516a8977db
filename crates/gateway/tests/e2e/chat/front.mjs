// Stands between clients and the gateway as an HTTP proxy that knows no WebSocket: it refuses upgrades, and passes
// other requests on, but for the paths that a test answers itself.

import { once } from 'node:events';
import http from 'node:http';

export class Front {
  /** `answers` maps paths to functions of a request and its response. */
  static async start(target, answers = {}) {
    const front = new Front();
    front.answers = answers;
    front.paths = [];
    front.upgrades = 0;
    front.server = http.createServer((request, response) => {
      const { pathname } = new URL(request.url, 'http://front');
      front.paths.push(pathname);
      const answer = front.answers[pathname];
      if (answer) answer(request, response);
      else pass(target, request, response);
    });
    front.server.on('upgrade', (request, socket) => {
      front.upgrades += 1;
      socket.on('error', () => {});
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
    });
    front.server.listen(0, '127.0.0.1');
    await once(front.server, 'listening');
    front.port = front.server.address().port;
    return front;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

/** Answers a request as one that is not allowed. */
export const refuse = (request, response) => response.writeHead(403).end();

/** Passes a request on to a port, and its response back, unless a function takes it. */
export function pass(port, request, response, take) {
  const { url: path, method, headers } = request;
  const onward = http.request({ host: '127.0.0.1', port, path, method, headers });
  onward.on('response', (answer) => {
    if (take) return take(answer);
    response.writeHead(answer.statusCode, answer.headers);
    response.flushHeaders();
    answer.pipe(response);
    answer.on('error', () => response.destroy());
  });
  onward.on('error', () => response.destroy());
  response.on('close', () => onward.destroy());
  request.pipe(onward);
}
