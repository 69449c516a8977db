"""Starts the built binary for a suite, and holds what several suites need: tokens, the HTTP API, raw
WebSockets, and waiting for conditions. Nothing here sleeps for a fixed time and hopes."""

import base64
import contextlib
import ctypes
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import jwt

FOLDER = pathlib.Path(__file__).resolve().parent
BINARY = os.environ.get("GATEWAY_BIN", str(FOLDER.parents[3] / "target/debug/fanwire"))
START_DEADLINE = 30
STOP_DEADLINE = 20
# How long a condition may take that normally holds at once; generous, for machines that do more than this.
DEADLINE = 20
# Below what the kernel gives to outgoing connections, so that a server finds its port free again when it is restarted.
SERVER_PORTS = range(20_000, 32_000)
given_ports = set()


def shared_config():
    """The configuration that suites share; each may merge its own settings over it."""
    return json.loads((FOLDER / "server.json").read_text())


class ApiError(Exception):
    def __init__(self, error):
        super().__init__(f"{error['code']} {error['message']}")
        self.code = error["code"]


class Answer:
    """An HTTP answer, whatever its status."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)


def die_with_parent():
    """The kernel ends the server when this process dies in whatever way."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Server:
    """A running server with its own ports and configuration file."""

    # The program.
    binary = BINARY
    # Variables of its environment, beside those of this process.
    variables = {}

    def __init__(self, settings=None):
        self.folder = tempfile.TemporaryDirectory(prefix="fanwire-e2e-")
        self.port, self.internal_port = free_port(), free_port()
        self.config = merge(shared_config(), settings or {})
        self.config = merge(
            self.config, {"server": {"port": self.port}, "internal": {"port": self.internal_port}}
        )
        self.config_file = pathlib.Path(self.folder.name) / "fanwire.json"
        self.config_file.write_text(json.dumps(self.config, indent=2))
        self.log_file = pathlib.Path(self.folder.name) / "log"
        self.launch()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.show_log()
        self.stop()

    @property
    def name(self):
        """What `info` and the log call it, if the settings say so."""
        return self.config["server"]["name"]

    @property
    def http(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def internal(self):
        return f"http://127.0.0.1:{self.internal_port}"

    @property
    def websocket(self):
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    @property
    def api_key(self):
        return self.config["api"]["keys"][0]

    @property
    def token_secret(self):
        return self.config["client"]["token"]["hmac_secret"]

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")

    def launch(self):
        self.spawn()

        def ready():
            assert self.process.poll() is None, f"the server ended at its start:\n{self.log}"
            with contextlib.suppress(OSError):
                return get(f"{self.internal}/readyz").status == 200

        until(ready, "the server is ready", START_DEADLINE)

    def spawn(self, output=None, prepare=die_with_parent):
        """Starts the process and does not wait. It writes to a descriptor or the log; `prepare` runs in the child."""
        # The kernel's word for "parent" is the thread that started the child.
        assert threading.current_thread() is threading.main_thread(), "servers are started by the main thread"
        with open(self.log_file, "a") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=output or log,
                stderr=output or log,
                env={**environment(), **self.variables},
                preexec_fn=prepare,
            )

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def restart(self):
        self.stop()
        self.launch()

    def kill(self):
        """Ends the server without a word to anybody."""
        self.stop(signal.SIGKILL)

    def pause(self):
        """The server holds its connections and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def show_log(self):
        lines = self.log.splitlines()[-60:]
        print(f"--- log of the server with pid {self.process.pid} ---", *lines, sep="\n", file=sys.stderr)

    def api(self, method, params=None):
        """Calls a method of the HTTP API and gives its result; an error reply is raised as an ApiError."""
        answer = self.post(f"/api/{method}", json.dumps(params or {}).encode())
        assert answer.status == 200, answer.text
        reply = answer.json()
        if "error" in reply:
            raise ApiError(reply["error"])
        return reply.get("result", reply)

    def post(self, path, body, headers=None):
        """Posts to the client port with the API's key."""
        everything = {"x-api-key": self.api_key, "content-type": "application/json", **(headers or {})}
        return request("POST", self.http + path, body, everything)

    def publish(self, channel, data, **more):
        return self.api("publish", {"channel": channel, "data": data, **more})

    def token(self, user, **claims):
        return jwt.encode({"sub": user, **claims}, self.token_secret, "HS256")

    def subscription_token(self, user, channel, **claims):
        return jwt.encode({"sub": user, "channel": channel, **claims}, self.token_secret, "HS256")

    def metrics(self):
        answer = get(f"{self.internal}/metrics")
        assert answer.status == 200, answer.text
        return answer.text

    def metric(self, name, **labels):
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in self.metrics().splitlines():
            sample, _, value = line.rpartition(" ")
            has_name = sample == name or sample.startswith(name + "{")
            if has_name and all(f'{label}="{wanted}"' in sample for label, wanted in labels.items()):
                total += float(value)
        return total

    def resident_bytes(self):
        """The server's resident memory, without what the page cache shares."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("smaps_rollup has no Private_Dirty")

    def socket_states(self):
        """TCP states of the client port's connections as the kernel lists them for the server's side."""
        listed = subprocess.run(
            ["ss", "-Htan", f"sport = :{self.port}"], capture_output=True, text=True, check=True
        ).stdout
        return [line.split()[0] for line in listed.splitlines() if not line.startswith("LISTEN")]


class RawSocket:
    """A TCP connection that speaks WebSocket frames by hand, so that a test may break every rule."""

    def __init__(self, server, path="/connection/websocket", headers=None, upgrade=True):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        if upgrade:
            self.send(handshake(path, headers))
            head = self.read_head()
            assert head.startswith("HTTP/1.1 101 "), head

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def send_text(self, text):
        self.send(frame(0x1, text.encode() if isinstance(text, str) else text))

    def send_commands(self, *commands):
        self.send_text("\n".join(json.dumps(command) for command in commands))

    def read_head(self):
        """The head of an HTTP answer, without the empty line."""
        while b"\r\n\r\n" not in self.received:
            more = self.socket.recv(65536)
            assert more, f"the connection ended inside the head: {self.received!r}"
            self.received += more
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        return head.decode()

    def read_rest(self):
        """Everything until the server closes."""
        with contextlib.suppress(ConnectionResetError):
            while more := self.socket.recv(65536):
                self.received += more
        rest, self.received = self.received, b""
        return rest

    def read_frame(self):
        """The next frame as (opcode, payload); (None, b"") at the end of the stream."""
        if not self.fill(2):
            return None, b""
        first, second = self.received[0], self.received[1]
        assert second & 0x80 == 0, "a server does not mask"
        length, begin = second & 0x7F, 2
        if length == 126:
            assert self.fill(4)
            (length,), begin = struct.unpack("!H", self.received[2:4]), 4
        elif length == 127:
            assert self.fill(10)
            (length,), begin = struct.unpack("!Q", self.received[2:10]), 10
        assert self.fill(begin + length), "the stream ends inside a frame"
        payload = self.received[begin : begin + length]
        self.received = self.received[begin + length :]
        return first & 0x0F, payload

    def read_replies(self):
        """The replies of the next text frame. A close frame is an error here."""
        opcode, payload = self.read_frame()
        assert opcode == 0x1, f"expected a text frame, got {opcode}: {payload!r}"
        return [json.loads(line) for line in payload.decode().split("\n")]

    def read_reply(self, command_id):
        """The reply with this id; pushes and pings before it are dropped."""
        while True:
            for reply in self.read_replies():
                if reply.get("id") == command_id:
                    return reply

    def read_close(self):
        """Code and reason of the server's close frame; messages before it are dropped."""
        while True:
            opcode, payload = self.read_frame()
            if opcode == 0x8:
                return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (1005, "")
            assert opcode is not None, "the connection ended without a close frame"

    def connect(self, server, user="raw"):
        self.send_commands({"id": 1, "connect": {"token": server.token(user)}})
        return self.read_reply(1)["connect"]

    def fill(self, count):
        while len(self.received) < count:
            try:
                more = self.socket.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            if not more:
                return False
            self.received += more
        return True


def handshake(path, headers=None, host="127.0.0.1"):
    """The bytes of an opening handshake; a header given as None is left out."""
    everything = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = [f"{name}: {value}" for name, value in everything.items() if value is not None]
    return ("\r\n".join([f"GET {path} HTTP/1.1", *lines]) + "\r\n\r\n").encode()


def frame(opcode, payload=b"", final=True, masked=True, reserved=0):
    """One frame as a client sends it."""
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([mask_bit | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([mask_bit | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", len(payload))
    if not masked:
        return head + payload
    # A key of zeros masks nothing and costs nothing to apply to megabytes.
    return head + b"\0\0\0\0" + payload


def get(url, headers=None):
    return request("GET", url, None, headers or {})


def request(method, url, body, headers):
    wanted = urllib.request.Request(url, data=body, headers=headers, method=method)
    # Servers under test are on loopback, whatever proxy the machine has.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(wanted, timeout=DEADLINE) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as answer:
        return Answer(answer.code, answer.headers, answer.read())


def until(condition, what, deadline=DEADLINE):
    """Waits until a condition holds; what it gives is given back."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"within {deadline} s it did not happen that {what}"
        time.sleep(0.01)


def free_port():
    """A port that nobody uses at this moment, and never the same twice."""
    while True:
        port = random.choice(SERVER_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in given_ports:
                given_ports.add(port)
                return port


def merge(base, over):
    """Values of `over` win; dictionaries are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def environment():
    """Without what would configure the server: every variable with its prefix does, `GATEWAY_BIN` too."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FANWIRE_")}
