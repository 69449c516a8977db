// A broadcast server on socket.io, as its documentation shows one: topics are rooms, and what it says about performance
// and memory is done (native add-on, WebSocket only, the first request is not kept).
//
// A client emits `subscribe` with its topics and is acknowledged; then messages come as event `m`.
// Usage: node socketio.js PORT

import { Server } from "socket.io";

import { listen, publicationServer } from "./http.js";

const PING_INTERVAL_MS = 25_000;

const http = publicationServer((topic, message) => {
  // A backend's message is an object to socket.io, which encodes it once for the whole room.
  io.to(topic).emit("m", JSON.parse(message));
});
const io = new Server(http, {
  transports: ["websocket"],
  serveClient: false,
  perMessageDeflate: false,
  pingInterval: PING_INTERVAL_MS,
});

io.engine.on("connection", (connection) => {
  connection.request = null;
});
io.on("connection", (socket) => {
  socket.on("subscribe", (topics, acknowledge) => {
    socket.join(topics);
    acknowledge();
  });
});

listen(http);
