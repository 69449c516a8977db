"""Clients that go from one transport and node to another and keep their places in topics, and what each received."""

import collections
import itertools
import time

from harness import get, until
from listeners import RAW, Listener

# Seconds until a client has another node, and by which it waits longer before each try.
MOVE_DEADLINE = 60
PAUSE = 0.2

Way = collections.namedtuple("Way", ["kind", "place"])


def node_of(cluster, topic, user):
    """The id of the node that holds a user's only client, as Redis has it in presence."""

    def found():
        for key in cluster.redis.keys(f"fanwire:default:p:{{{topic}}}:*"):
            if any(user in str(part) for part in cluster.redis.cli("HGETALL", key)):
                return key.rpartition(":")[2]
        return None

    return until(found, f"{user} is present in {topic}")


class Mover:
    """One client of several topics, which goes through `ways` again and again. Each of its stages is a listener that goes
    on where the one before was, and the first, if it cannot tell its place, where another listener is."""

    def __init__(self, name, cluster, listeners, topics, ways, another):
        self.name, self.cluster, self.listeners, self.topics = name, cluster, listeners, topics
        self.ways, self.node = collections.deque(ways), None
        self.stages = [another] if ways[0].kind in RAW else []

    def __str__(self):
        return f"{self.name}, on {[stage.kind for stage in self.stages[-4:]]}"

    def next_stage(self):
        """A listener for the first way, with its place and token."""
        kind, place = self.ways[0]
        stage = Listener(f"{self.name} at {len(self.stages)}", kind, self.topics, *self.stages[-1:])
        self.stages.append(stage)
        return stage, place, self.cluster.node(0).token(stage.name)

    def close(self):
        self.listeners.close(self.stages[-1])

    def move(self):
        """Goes on by the next way, at another node than it has been on."""
        self.ways.rotate(-1)
        before, turns = self.node, itertools.count()

        def is_elsewhere():
            turn = next(turns)
            # Less and less often, as a proxy may leave the other nodes out for a while.
            time.sleep(PAUSE * turn)
            self.close()
            if turn % 2:
                # Takes a turn of the proxy, in case a client takes as many as there are nodes.
                get(f"{self.ways[0].place.http}/probe")
            self.listeners.begin([self.next_stage()])
            self.node = node_of(self.cluster, self.topics[0], self.stages[-1].name)
            return self.node != before

        until(is_elsewhere, f"{self} is given another node", MOVE_DEADLINE)

    def received(self):
        """The number of the last message of each topic. Before it came all others, in order and once."""
        numbers, sure, known = dict.fromkeys(self.topics, 0), dict.fromkeys(self.topics, 0), set()
        for stage in self.stages:
            # What came without a place in the topic comes again from the last place that the client was told.
            numbers = dict(sure)
            for seen in list(stage.events):
                if seen["event"] == "connected" and stage.is_raw:
                    numbers = dict(sure)
                elif seen["event"] == "subscribed":
                    assert seen.get("recovered") or seen["topic"] not in known, f"{self}: {seen}"
                    known.add(seen["topic"])
                elif seen["event"] == "publication":
                    topic, number = seen["topic"], seen["data"]["number"]
                    assert number == numbers[topic] + 1, f"{self}: {number} after {numbers[topic]} in {topic}"
                    numbers[topic] = number
            if not stage.is_raw:
                sure = numbers
        return numbers

    def has(self, count):
        return min(self.received().values()) >= count
