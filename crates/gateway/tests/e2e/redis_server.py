"""A real redis-server of a suite's own. What may happen to a server happens to it by methods; its port stays."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

from harness import DEADLINE, START_DEADLINE, STOP_DEADLINE, die_with_parent, free_port, until


class RedisError(Exception):
    """An error reply."""


class RedisServer:
    """Keeps nothing over a restart unless `append_only`; `settings` are further arguments of redis-server."""

    def __init__(self, *settings, append_only=False):
        self.folder = tempfile.TemporaryDirectory(prefix="fanwire-redis-")
        self.port = free_port()
        self.append_only = append_only
        self.settings = settings
        self.log_file = pathlib.Path(self.folder.name) / "log"
        self.data = pathlib.Path(self.folder.name) / "data"
        self.password = dict(zip(settings, settings[1:])).get("--requirepass")
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.folder.cleanup()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")

    def start(self):
        # The kernel's word for "parent" is the thread that started the child.
        assert threading.current_thread() is threading.main_thread(), "servers are started by the main thread"
        self.data.mkdir(exist_ok=True)
        arguments = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.data), "--save", ""]
        if self.append_only:
            arguments += ["--appendonly", "yes", "--appendfsync", "always"]
        with open(self.log_file, "a") as log:
            self.process = subprocess.Popen(
                ["redis-server", *arguments, *self.settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

        def answers():
            assert self.process.poll() is None, f"redis-server ended at its start:\n{self.log}"
            # It refuses everything while it loads its data.
            with contextlib.suppress(OSError, RedisError):
                return self.cli("PING") == "PONG"

        until(answers, "redis-server answers", START_DEADLINE)

    def stop(self):
        """Ends it as its operator would."""
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def pause(self):
        """It holds its connections and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def unheard(self):
        """Nodes hear nothing of what is published meanwhile, and are answered as always."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as connection:
            replies = connection.makefile("rb")

            def run(*command):
                connection.sendall(request(*command))
                return reply(replies)

            _, connections_max = run("CONFIG", "GET", "maxclients")
            run("CONFIG", "SET", "maxclients", "1")
            run("CLIENT", "KILL", "TYPE", "pubsub")
            yield
            run("CONFIG", "SET", "maxclients", connections_max)

    def restart(self, empty=False):
        """Ends it unless it has ended, and starts it again; without what it kept if `empty`."""
        if self.process.poll() is None:
            self.stop()
        if empty:
            shutil.rmtree(self.data)
        self.start()

    def cli(self, *command):
        """Sends one command on a connection of its own and gives the reply; bytes that are no text stay bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as connection:
            replies = connection.makefile("rb")
            if self.password:
                connection.sendall(request("AUTH", self.password))
                reply(replies)
            connection.sendall(request(*command))
            return reply(replies)

    def info(self, section="default"):
        """The values of a section of INFO, as text."""
        lines = self.cli("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def keys(self, pattern="*"):
        """The names of all keys that match, found without blocking the server."""
        cursor, found = "0", set()
        while True:
            cursor, some = self.cli("SCAN", cursor, "MATCH", pattern, "COUNT", "1000")
            found.update(some)
            if cursor == "0":
                return sorted(found)


def request(*command):
    """The bytes of a command."""
    parts = [os.fsencode(str(part)) if not isinstance(part, bytes) else part for part in command]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)])


def reply(stream):
    """The next reply of RESP2; an error is raised."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("redis-server ended the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RedisError(rest.decode())
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    length = int(rest)
    if length < 0:
        return None
    if kind == b"*":
        return [reply(stream) for _ in range(length)]
    assert kind == b"$", f"what kind of reply is this: {line!r}"
    value = stream.read(length + 2)[:-2]
    with contextlib.suppress(UnicodeDecodeError):
        return value.decode()
    return value
