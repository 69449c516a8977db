"""One attack on one server, beside honest clients of the same shard.

A new attack is a test that takes the fixture `trial`:

    def test_requests_without_end(trial):
        server = trial.serve({"client": {"subscriptions_max": 10}})
        with trial.attack("requests without end, 20 clients") as attack:
            attack.crowd(20, lambda: attack.flood(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" * 1000))

`serve` starts the server and its bystanders. On entry, `attack` measures the bystanders alone. On exit, it waits until
each kind of bystander was served a few times, ends the attackers, waits for memory to return, and fails with every
fault that `figures.faults` finds. Add a new file to `SUITES` in `crates/xtask/src/attack.rs`.

With ATTACK_REPORT set, phases are longer and memory is read 5 s after the attack: figures for a table.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

from attackers import Attackers
from bystanders import memory
from figures import LEFT_MAX, Row, faults
from harness import Server, die_with_parent, merge, until

REPORT = bool(os.environ.get("ATTACK_REPORT"))
CALM_SECONDS = 5 if REPORT else 1
SECONDS = 10 if REPORT else 3
REPORT_MEMORY_DELAY = 5
# An attack lasts until each kind of bystander was served this often, or until the deadline.
SERVED_MIN = 5
SERVED_DEADLINE = 15
MEMORY_DEADLINE = 10

READERS = 4
TOPIC = "calm:news"
EVERYTHING = {
    f"allow_{what}_for_client": True for what in ("subscribe", "publish", "history", "presence")
}
# One shard, so that every bystander shares it with every attacker.
SETTINGS = {
    "server": {"shards": 1},
    "client": {"ping_interval": "4s", "pong_timeout": "2s"},
    "topics": {
        "namespaces": [
            {
                "name": "calm",
                "history_size": 1000,
                "history_ttl": "10m",
                "force_recovery": True,
                "allow_subscribe_for_client": True,
            },
            {
                "name": "wild",
                "presence": True,
                "history_size": 300,
                "history_ttl": "10m",
                "allow_recovery": True,
                **EVERYTHING,
            },
            {
                "name": "watched",
                "presence": True,
                "join_leave": True,
                "force_push_join_leave": True,
                "history_size": 100,
                "history_ttl": "10m",
                "force_recovery": True,
                **EVERYTHING,
            },
        ]
    },
}


class Trial:
    """The servers and bystanders of one test, and a row of figures for each attack."""

    def __init__(self):
        self.rows, self.servers = [], []
        self.started = contextlib.ExitStack()

    def serve(self, settings=None, kind=Server, **bystanders):
        """Starts a server and its bystanders. `bystanders` are arguments of `Bystanders`."""
        self.server = self.start(settings, kind)
        self.bystanders = self.started.enter_context(Bystanders(self.server, **bystanders))
        return self.server

    def start(self, settings=None, kind=Server):
        """Starts a server without bystanders."""
        server = kind(merge(SETTINGS, settings or {}))
        self.servers.append(server)
        self.started.enter_context(server)
        return server

    @contextlib.contextmanager
    def attack(self, name, prompt=False):
        """Runs an attack and fails with all its faults. `prompt`: a p99 of pings above 50 ms is one, in a report."""
        with self.measure(name, prompt) as attack:
            yield attack
        found = faults(self.rows[-1])
        assert not found, f"{name}:\n  " + "\n  ".join(found)

    @contextlib.contextmanager
    def measure(self, name, prompt=False):
        """Runs an attack and adds its row of figures."""
        pid = self.server.process.pid
        self.bystanders.begin("calm")
        time.sleep(CALM_SECONDS)
        calm = self.bystanders.begin("attack")
        row = Row(name, calm, {}, memory_before=memory(pid), prompt=prompt and REPORT)
        with Attackers(self.server) as attack:
            try:
                yield attack
            except (AssertionError, OSError) as error:
                row.notes.append(f"broken: {type(error).__name__} {error}")
            self.bystanders.hold()
        row.attacked = self.bystanders.begin("afterwards")
        if REPORT:
            time.sleep(REPORT_MEMORY_DELAY)
        with contextlib.suppress(AssertionError):
            allowed = row.memory_before + LEFT_MAX
            until(lambda: memory(pid) <= allowed, "memory returns", 0 if REPORT else MEMORY_DEADLINE)
        row.memory_after = memory(pid)
        if self.server.process.poll() is not None:
            row.notes.append(f"ended: the server exited with {self.server.process.returncode}")
        self.rows.append(row)

    def stop(self):
        self.started.close()

    def show_logs(self):
        for server in self.servers:
            server.show_log()


class Bystanders:
    """A process of `bystanders.py`: `clients` that ping, one that connects again and again, a publisher and a health
    checker. `port` replaces the server's client port, for a proxy in front of it. `reading` is a topic and how many
    publications it keeps: `READERS` clients more read all of them, again and again."""

    def __init__(self, server, clients=20, publishing=True, asking_health=True, reading=None, port=None):
        asked = {
            "port": port or server.port,
            "internal_port": server.internal_port,
            "pid": server.process.pid,
            "token": server.token("bystander"),
            "api_key": server.api_key,
            "topic": TOPIC,
            "clients": clients,
            "publishing": publishing,
            "asking_health": asking_health,
            "reading": reading,
            "readers": [server.token(f"reader{number}") for number in range(READERS if reading else 0)],
            "encrypted": "tls" in server.config["server"],
        }
        self.kinds = ["pings", "connects"] + ["publishes"] * publishing + ["health checks"] * asking_health
        self.kinds += ["long answers"] * bool(reading)
        self.process = subprocess.Popen(
            [sys.executable, pathlib.Path(__file__).with_name("bystanders.py"), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )

    def __enter__(self):
        assert self.process.stdout.readline() == "ready\n", "the bystanders cannot connect"
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def begin(self, phase):
        """Begins a phase and returns the figures of the one before."""
        return self.order(phase)

    def hold(self):
        """Waits, then waits until each kind was served a few times in this phase, up to a deadline."""
        time.sleep(SECONDS)
        with contextlib.suppress(AssertionError):
            until(self.are_served, "bystanders are served", SERVED_DEADLINE)

    def are_served(self):
        served = self.order("served")
        return all(served.get(kind, 0) >= SERVED_MIN for kind in self.kinds)

    def order(self, line):
        print(line, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())
