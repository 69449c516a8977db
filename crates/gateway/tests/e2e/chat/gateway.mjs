// The gateway under test, which can be stopped and started again on the same port, and a relay in front of it whose
// connections can be cut, as a lost network would.

import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const START_TIMEOUT_MS = 20_000;

/** Starts `$FANWIRE_BIN serve --dev --port N`; with `$CHAT_URL` a running gateway is used instead, and `$CHAT_RESTART`
 *  is the shell command that restarts it. */
export async function startGateway() {
  if (process.env.CHAT_URL) return runningGateway(new URL(process.env.CHAT_URL).origin, process.env.CHAT_RESTART);
  const binary = process.env.FANWIRE_BIN;
  if (!binary) throw new Error("set FANWIRE_BIN to the built gateway, or CHAT_URL to the address of a running one");
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  let child;
  const gateway = {
    url,
    async start() {
      child = spawn(binary, ["serve", "--dev", "--port", String(port)], { stdio: ["ignore", "inherit", "inherit"] });
      await answering(url);
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    },
  };
  await gateway.start();
  return gateway;
}

function runningGateway(url, restartCommand) {
  return {
    url,
    async start() {
      if (!restartCommand) throw new Error("CHAT_RESTART is needed beside CHAT_URL");
      const [code] = await once(spawn("sh", ["-c", restartCommand], { stdio: "inherit" }), "exit");
      if (code !== 0) throw new Error(`${restartCommand}: exit code ${code}`);
      await answering(url);
    },
    async stop() {},
  };
}

/** Listens on a port of its own and passes bytes on to `url` until `cut`, which drops every connection and takes no new
 *  ones until `mend`. */
export async function startRelay(url) {
  const target = new URL(url);
  const sockets = new Set();
  let whole = true;
  const keep = (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
  };
  const server = net.createServer((near) => {
    keep(near);
    if (!whole) {
      near.destroy();
      return;
    }
    const far = net.connect(Number(target.port), target.hostname);
    keep(far);
    near.on("close", () => far.destroy());
    far.on("close", () => near.destroy());
    near.pipe(far).pipe(near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      whole = false;
      for (const socket of sockets) socket.destroy();
    },
    mend() {
      whole = true;
    },
    close() {
      this.cut();
      server.close();
    },
  };
}

async function answering(url) {
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (Date.now() < deadline) {
    const answer = await fetch(url).catch(() => null);
    if (answer?.ok) return;
    await sleep(50);
  }
  throw new Error(`nothing answers at ${url} after ${START_TIMEOUT_MS} ms`);
}

async function freePort() {
  const probe = net.createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}
