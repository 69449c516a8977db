"""Planted faults that the measure must find: in figures made by hand, and behind a proxy that misbehaves."""

import asyncio
import contextlib
import json
import threading
import time

import pytest

from figures import MIB, Row, faults
from harness import until
from trial import Bystanders, Trial

CALM = {
    "pings": 400,
    "p50": 0.001,
    "p99": 0.002,
    "longest": 0.004,
    "longest_of": {},
    "counted": {"closed": 0, "refused": 0, "gaps": 0},
    "examples": {"closed": [], "refused": [], "gaps": []},
    "memory_peak": 10 * MIB,
}


def kinds(found):
    return sorted({fault.split(":")[0] for fault in found})


def found(**changes):
    """Returns the kinds of faults of a calm row with these changes."""
    after = changes.pop("memory_after", 10 * MIB)
    prompt = changes.pop("prompt", False)
    return kinds(faults(Row("planted", CALM, {**CALM, **changes}, 10 * MIB, after, prompt)))


def test_a_calm_attack_has_no_fault():
    assert found() == []
    assert found(p99=1.9, memory_peak=70 * MIB, memory_after=40 * MIB) == []


def test_every_fault_is_found_in_figures():
    for kind in ("closed", "refused", "gaps"):
        counted = {**CALM["counted"], kind: 1}
        assert found(counted=counted, examples={**CALM["examples"], kind: ["client 3"]}) == [kind]
    assert found(p99=2.1) == ["waits"]
    assert found(pings=0) == ["waits"]
    assert found(memory_peak=75 * MIB) == ["memory"]
    assert found(memory_after=43 * MIB) == ["memory"]


def test_a_wait_is_a_fault_sooner_where_it_has_to_be_prompt():
    assert found(prompt=True, p99=0.049) == []
    assert found(prompt=False, p99=0.051) == []
    assert found(prompt=True, p99=0.051) == ["waits"]


class Proxy:
    """Stands between bystanders and a server, and misbehaves as a bad server does."""

    def __init__(self, port):
        self.target = port
        self.is_stuck, self.refuses, self.swallows = False, False, False
        self.refused = 0
        self.writers = []

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        server = self.call(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def cut_one(self):
        self.loop.call_soon_threadsafe(lambda: self.writers[0].transport.abort())

    async def serve(self, reader, writer):
        if self.refuses:
            self.refused += 1
            writer.transport.abort()
            return
        there, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        self.writers.append(writer)
        await asyncio.gather(self.copy(reader, to_server), self.copy(there, writer, is_answer=True))

    async def copy(self, source, target, is_answer=False):
        with contextlib.closing(target), contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                while self.is_stuck:
                    await asyncio.sleep(0.01)
                # A frame with a publication and nothing else, for the first of the clients that stay.
                is_alone = data[:1] == b"\x81" and len(data) == 2 + data[1] and b'"pub"' in data
                if is_answer and self.swallows and is_alone and target is self.writers[1]:
                    self.swallows = False
                    continue
                target.write(data)
                await target.drain()


@pytest.fixture
def planted():
    """A trial with bystanders behind a proxy. Its rows are no part of the table."""
    trial = Trial()
    server = trial.start()
    trial.server = server
    with Proxy(server.port) as proxy:
        trial.proxy = proxy
        trial.bystanders = trial.started.enter_context(Bystanders(server, port=proxy.port))
        yield trial
        trial.stop()


def test_nothing_is_found_without_a_fault(planted):
    with planted.measure("nothing"):
        pass
    assert faults(planted.rows[-1]) == []


def test_every_fault_is_found(planted, monkeypatch):
    """One client is closed, one publication is swallowed, connections are refused and then stuck, memory is kept."""
    monkeypatch.setattr("trial.MEMORY_DEADLINE", 1)
    with planted.measure("everything"):
        body = json.dumps({"channel": "wild:kept", "data": "x" * 3_000_000}).encode()
        for _ in range(30):
            planted.server.post("/api/publish", body)
        planted.proxy.cut_one()
        planted.proxy.swallows = True
        until(lambda: not planted.proxy.swallows, "a publication is swallowed")
        planted.proxy.refuses = True
        until(lambda: planted.proxy.refused > 2, "connections are refused")
        planted.proxy.refuses = False
        planted.proxy.is_stuck = True
        time.sleep(3)
        planted.proxy.is_stuck = False
    assert kinds(faults(planted.rows[-1])) == ["closed", "gaps", "memory", "refused", "waits"]
