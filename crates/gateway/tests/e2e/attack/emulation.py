"""Commands of clients without WebSocket: too many at once, out of order, and for sessions that are nobody's."""

import base64
import collections
import itertools
import uuid

import pytest

from attackers import drop
from over_http import Session, lines, statuses
from redis_server import RedisServer
from shared_redis import on

AT_ONCE = 200
# Its id has passed, so it waits for no other.
COMMAND = {"id": 1, "unsubscribe": {"channel": "wild:left"}}

# The bytes of a session's key: node, shard, slot, generation, client, signature.
NODE, SLOT, GENERATION, SIGNATURE = 16, slice(18, 22), slice(22, 26), slice(42, 60)
KEYS = 3000
# Fewer than fit into the buffers of a connection with their answers.
KEYS_AT_ONCE = 100

# Commands that wait for an earlier one may have 64 KiB in a session, and 8 MiB in a shard.
GAPING_SESSIONS = 150
GAP = 1000


@pytest.mark.parametrize("count", [1, 1000])
def test_posts_at_once_for_one_session(trial, count):
    trial.serve()
    data = lines(*[COMMAND] * count)

    def pound():
        """Sends so many, then reads their answers, until the session has ended."""
        session = Session(attack)
        call = session.call(data)
        connections = [attack.socket() for _ in range(AT_ONCE)]
        answers = [statuses(connection) for connection in connections]
        has_ended = False
        while not has_ended and not attack.over.is_set():
            for connection in connections:
                connection.sendall(call)
            has_ended = any([next(answer, None) != 204 for answer in answers])
        for connection in [session.stream, *connections]:
            drop(connection)

    with trial.attack(f"{AT_ONCE} posts of {count:,} commands at once for one session", prompt=True) as attack:
        attack.crowd(1, pound)


def forged(session):
    """Yields names that resemble those of a session."""
    real = base64.urlsafe_b64decode(session.names["session"])
    for number in range(KEYS):
        key = bytearray(real)
        if number % 3 == 0:
            key[SIGNATURE.start + number // 3 % 18] ^= 1 << number % 8
        elif number % 3 == 1:
            key[SLOT] = (number // 24).to_bytes(4)
            key[GENERATION] = (number // 3 % 8).to_bytes(4)
        else:
            key[:NODE] = uuid.uuid4().bytes
        node = str(uuid.UUID(bytes=bytes(key[:NODE])))
        # One of the slots is its own.
        if key != real:
            yield {"session": base64.urlsafe_b64encode(key).decode(), "node": node}


def knock(attack, calls, seen):
    """Sends calls and counts their answers."""
    connection = attack.socket()
    answers = statuses(connection)
    for begin in range(0, len(calls), KEYS_AT_ONCE):
        if attack.over.is_set():
            break
        some = calls[begin : begin + KEYS_AT_ONCE]
        connection.sendall(b"".join(some))
        seen.update(itertools.islice(answers, len(some)))
    drop(connection)


def test_forged_session_keys(trial):
    """Signatures with a bit changed, slots and generations of others, nodes that do not exist."""
    trial.serve()
    seen = collections.Counter()
    with trial.attack(f"{KEYS:,} forged session keys, 8 connections", prompt=True) as attack:
        session = Session(attack)
        calls = [session.call(b"{}", **names) for names in forged(session)]
        attack.crowd(8, lambda: knock(attack, calls, seen))
    assert set(seen) == {404}, seen


def test_forged_session_keys_of_another_node(trial):
    """The node that gets them knows the secret of the other, so none goes on to it."""
    with RedisServer() as redis:
        other = trial.start(on(redis))
        trial.serve(on(redis))
        seen = collections.Counter()
        with trial.attack(f"{KEYS:,} forged session keys of another node, 32 connections") as attack:
            session = Session(attack, other)
            calls = [session.call(b"{}", **names) for names in forged(session)]
            attack.crowd(32, lambda: knock(attack, calls, seen))
        # 503: the other node was busy with so many.
        assert seen[404] and set(seen) <= {404, 503}, seen


def test_commands_for_another_node(trial):
    """Each goes through Redis, as far as those of one address may."""
    with RedisServer() as redis:
        other = trial.start(on(redis))
        # So little that a slow machine reaches it.
        trial.serve({"server": {"forwarded_bytes_per_second_max": "256KiB"}, **on(redis)})
        seen = collections.Counter()

        def pound():
            connection = attack.socket()
            answers = statuses(connection)
            while not attack.over.is_set():
                connection.sendall(call)
                seen[next(answers, None)] += 1
            drop(connection)

        with trial.attack("60 KB of commands for a session of another node, 32 connections") as attack:
            session = Session(attack, other)
            call = session.call(lines(COMMAND) + b" " * 60_000)
            attack.crowd(32, pound)
        # 404: it answers no ping. None: the attack was over.
        assert seen[204] and seen[503] and set(seen) <= {204, 404, 503, None}, seen


def test_gaps_that_never_close(trial):
    """Each command is far ahead of the one before it."""
    trial.serve()

    def leave_gaps():
        session = Session(attack)
        connection = attack.socket()
        answers = statuses(connection)
        for number in itertools.count(1):
            publish = {"channel": "wild:gaps", "data": "x" * 15_000}
            connection.sendall(session.call(lines({"id": number * GAP, "publish": publish})))
            if attack.over.is_set() or next(answers, None) != 204:
                break
        drop(session.stream)
        drop(connection)

    with trial.attack(f"commands with gaps, {GAPING_SESSIONS} sessions", prompt=True) as attack:
        attack.crowd(GAPING_SESSIONS, leave_gaps)
