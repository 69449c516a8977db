// What both servers need besides WebSocket: an HTTP server that takes publications, as a backend sends them.
//
// `POST /publish/TOPIC` publishes each line of its body as one message and answers 200 when all of them are handed on.

import { createServer } from "node:http";

const PUBLISH = "/publish/";
// Clients that connect all at once wait here; the kernel caps it by net.core.somaxconn.
const BACKLOG = 65_535;

// `publish(topic, message)` gets each message as a Buffer, in order.
export function publicationServer(publish) {
  const server = createServer((request, response) => {
    if (request.method !== "POST" || !request.url.startsWith(PUBLISH)) {
      response.writeHead(404, { "content-length": 0 }).end();
      return;
    }
    const topic = request.url.slice(PUBLISH.length);
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      for (const message of lines(parts.length === 1 ? parts[0] : Buffer.concat(parts))) {
        publish(topic, message);
      }
      response.writeHead(200, { "content-length": 0 }).end();
    });
  });
  // Publishers keep their connections, however seldom they publish.
  server.keepAliveTimeout = 0;
  return server;
}

export function listen(server) {
  const [port] = process.argv.slice(2).map(Number);
  server.listen({ host: "127.0.0.1", port, backlog: BACKLOG });
}

function* lines(body) {
  let start = 0;
  for (let end = body.indexOf(10); end !== -1; end = body.indexOf(10, start)) {
    yield body.subarray(start, end);
    start = end + 1;
  }
  yield body.subarray(start);
}
