"""Users come and go while nodes and the reader of events are killed, stopped and started, and the events equal what the
users did. CHURN_SEED repeats the choices of a run, CHURN_FAULTS is the number of faults, CHURN_DELAY the offline_delay, and
CHURN_READER what receives events: "stream", the documented reader, or "webhook", whose answers are lost at times."""

import contextlib
import datetime
import heapq
import itertools
import json
import os
import pathlib
import random
import time

from cluster import LEASE, Cluster
from harness import merge, until
from judge import WORKING_MAX, Fault, Judge
from people import People, now
from readers import READERS

SEED = os.environ.get("CHURN_SEED") or str(random.randrange(1_000_000))
FAULTS = int(os.environ.get("CHURN_FAULTS", "5"))
# Seconds: a stop, and the pause between two faults. A run of many faults has longer ones.
STOP = (1, 6) if FAULTS < 20 else (1, 30)
PAUSE = (0.2, 4)
DOWN = (0, 2)
# How long a reader that starts may take to read something, unless there is nothing.
READING_MAX = 3
DELAY = float(os.environ.get("CHURN_DELAY", "1"))
READER = os.environ.get("CHURN_READER", "stream")
NODES = 3
USERS = 200
TOPICS = [f"room:{number}" for number in range(150)]
SETTINGS = {
    "client": {"events": ["connected", "disconnected", "user_online", "user_offline"]},
    "events": {"offline_delay": f"{DELAY:g}s"},
    "topics": {
        "namespaces": [
            {
                "name": "room",
                "allow_subscribe_for_client": True,
                "events": ["subscribed", "unsubscribed", "topic_occupied", "topic_vacated"],
            }
        ]
    },
}


class Faults:
    """What happens to the nodes and the reader, by chance."""

    def __init__(self, cluster, reader, seed):
        self.cluster, self.reader = cluster, reader
        self.random = random.Random(f"faults {seed}")
        self.done = []
        # Time, number and what ends a fault.
        self.ends = []
        self.numbers = itertools.count()

    def run(self, count):
        while len(self.done) < count:
            self.wait(self.random.uniform(*PAUSE))
            if self.random.random() < 0.3:
                self.disturb_reader()
            busy = {fault.node for fault in self.done if fault.end is None}
            if well := [node for node in self.cluster.nodes if node.name not in busy]:
                self.begin(self.random.choice(well))
        while self.ends:
            self.wait(0.1)

    def disturb_reader(self):
        """Kills it, and again while it works on what has come meanwhile."""
        for _ in range(3):
            self.reader.kill()
            self.wait(self.random.uniform(0, PAUSE[1] / 2))
            known = len(self.reader.arrived())
            self.reader.start()
            with contextlib.suppress(AssertionError):
                until(lambda: len(self.reader.arrived()) > known, "it reads", READING_MAX)

    def begin(self, node):
        kind = self.random.choice(["kill", "stop", "stop", "restart"])
        fault = Fault(node.name, kind, now())
        self.done.append(fault)
        print(f"{time.strftime('%H:%M:%S')} {kind} of {node.name}", flush=True)
        seconds, back = self.random.uniform(*DOWN), node.launch
        match kind:
            case "kill":
                node.kill()
            case "restart":
                node.stop()
            case "stop":
                seconds, back = self.random.uniform(*STOP), node.resume
                node.pause()

        def end():
            back()
            fault.end = now()

        self.end_later(seconds, end)

    def end_later(self, seconds, end):
        heapq.heappush(self.ends, (time.monotonic() + seconds, next(self.numbers), end))

    def wait(self, seconds):
        """Waits, and ends what is due meanwhile."""
        until_then = time.monotonic() + seconds
        while self.ends and self.ends[0][0] <= until_then:
            due, _, end = heapq.heappop(self.ends)
            time.sleep(max(0, due - time.monotonic()))
            end()
        time.sleep(max(0, until_then - time.monotonic()))


def reaps(cluster):
    """Node and time of each fencing, from the logs of those who did it."""
    for node in cluster.nodes:
        for line in node.log.splitlines():
            if "node is dead" in line:
                line = json.loads(line)
                said = datetime.datetime.fromisoformat(line["timestamp"])
                yield line["node"], said.timestamp() * 1000


def until_all_is_quiet(cluster, reader):
    """Nobody is a member, no vacancy is to come, and all events have been read. It lasts as long as some arrive."""

    def left():
        redis = cluster.redis
        pending = redis.keys("fanwire:default:p:*") + redis.keys("fanwire:default:pv:*")
        return pending or [key for key in redis.keys("fanwire:default:ev:*") if redis.cli("XLEN", key) > 0]

    known = None
    while left() and known != (known := len(reader.arrived())):
        with contextlib.suppress(AssertionError):
            until(lambda: not left(), "all is quiet", 2 * LEASE + DELAY + WORKING_MAX / 1000 + 10)
    if found := left():
        print("what is left:", found)


def test_events_equal_what_users_did():
    print(f"CHURN_SEED={SEED} CHURN_FAULTS={FAULTS} CHURN_DELAY={DELAY:g} CHURN_READER={READER}")
    reader = READERS[READER]()
    with Cluster(NODES, merge(SETTINGS, {"events": reader.settings})) as cluster:
        reader.begin(cluster.redis)
        try:
            with People(cluster.nodes, SEED, USERS, TOPICS) as people:
                faults = Faults(cluster, reader, SEED)
                faults.run(FAULTS)
                people.leave()
            until_all_is_quiet(cluster, reader)
        finally:
            reader.kill()
        events = reader.arrived()
        judge = Judge([node.name for node in cluster.nodes], faults.done, list(reaps(cluster)), DELAY * 1000, LEASE * 1000)
        judge.judge(people.visits, events)
    print(
        f"{len(faults.done)} faults, {len(people.visits)} visits, {len(events)} events, {reader.repeats} repeats, "
        f"{judge.uncertain} memberships that a fault prevented, {len(judge.unasked)} fencings of busy nodes, "
        f"at most {judge.latest:.0f} ms late where there was no fault, reasons {dict(judge.reasons)}"
    )
    if file := os.environ.get("CHURN_PROBLEMS"):
        pathlib.Path(file).write_text("\n".join(judge.problems))
    assert not judge.problems, "\n".join(judge.problems[:12])
