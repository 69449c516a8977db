// A broadcast server on the npm package `ws`, as its documentation shows one: topics are sets of sockets, a message is
// one buffer that is sent to each, and a heartbeat finds dead connections.
//
// A client says `{"subscribe":["TOPIC",...]}` and is answered `{"subscribed":["TOPIC",...]}`; then messages come as
// they were published.
// Usage: node ws.js PORT

import { WebSocketServer } from "ws";

import { listen, publicationServer } from "./http.js";

const PING_INTERVAL_MS = 25_000;
// Messages are handed over as buffers, which `ws` would otherwise send as binary frames.
const TEXT = { binary: false };

const subscribers = new Map();

const http = publicationServer((topic, message) => {
  for (const socket of subscribers.get(topic) ?? []) {
    socket.send(message, TEXT);
  }
});
const server = new WebSocketServer({ server: http, perMessageDeflate: false });

server.on("connection", (socket) => {
  let topics = [];
  socket.isAlive = true;
  socket.on("pong", heartbeat);
  socket.on("error", () => socket.terminate());
  socket.on("message", (data) => {
    topics = JSON.parse(data).subscribe;
    for (const topic of topics) {
      join(topic, socket);
    }
    socket.send(JSON.stringify({ subscribed: topics }));
  });
  socket.on("close", () => {
    for (const topic of topics) {
      leave(topic, socket);
    }
  });
});

setInterval(() => {
  for (const socket of server.clients) {
    if (!socket.isAlive) {
      socket.terminate();
      continue;
    }
    socket.isAlive = false;
    socket.ping();
  }
}, PING_INTERVAL_MS);

listen(http);

function heartbeat() {
  this.isAlive = true;
}

function join(topic, socket) {
  const sockets = subscribers.get(topic);
  if (sockets) {
    sockets.add(socket);
  } else {
    subscribers.set(topic, new Set([socket]));
  }
}

function leave(topic, socket) {
  const sockets = subscribers.get(topic);
  if (sockets?.delete(socket) && sockets.size === 0) {
    subscribers.delete(topic);
  }
}
