"""A Redis that is not as it should be: each fault has its name in the log, no node ends or burns a core, clients stay,
and once the fault is mended everything goes on without a restart."""

import contextlib
import socket
import threading
import time

import pytest

from harness import ApiError, RawSocket, Server, until
from observe import LogMark, UnreadyServer, cpu_seconds, readiness, redis_is_up, redis_settings
from redis_server import RedisServer
from relay import Relay

INTERNAL_ERROR = 100
# How long a connection may be missing before a node says that it is not ready.
WEDGED_SECONDS = 5
INSUFFICIENT_STATE = 2500
WATCH_SECONDS = 2
# Of one core. Timers, probes and a lease are all that a node without clients has to do.
CPU_SHARE_MAX = 0.1
# A node has four connections to Redis; each doubles its pauses up to a second, so it begins with about three attempts in
# a second.
ATTEMPTS_PER_SECOND_MAX = 4 * 3.5


@contextlib.contextmanager
def lazy(node):
    """What happens inside costs the node next to nothing."""
    before, began = cpu_seconds(node.process), time.monotonic()
    yield
    until(lambda: time.monotonic() - began >= WATCH_SECONDS, "it was watched for long enough")
    share = (cpu_seconds(node.process) - before) / (time.monotonic() - began)
    assert share < CPU_SHARE_MAX, f"{share:.0%} of a core"


def assert_refused_and_said(node, named):
    """The node lives without Redis, says once what is wrong, and answers as it has to."""
    mark = LogMark([node])
    mark.begin[node] = 0
    until(lambda: mark.lines(node, named), f"the log says {named!r}")
    with lazy(node):
        with pytest.raises(ApiError) as refused:
            node.publish("open:any", 1)
        assert refused.value.code == INTERNAL_ERROR
        assert readiness(node)[0] == 503
    assert len(mark.lines(node, named)) == 1, mark.lines(node, named)


@pytest.mark.parametrize("password", [None, "guessed"], ids=["none", "wrong"])
def test_the_password_is_wrong(password):
    secret = {"password": password} if password else {}
    with RedisServer("--requirepass", "sesame") as redis:
        with UnreadyServer(redis_settings(redis.address, **secret)) as node:
            assert_refused_and_said(node, "password")
            assert "sesame" not in node.log and "guessed" not in node.log
            redis.cli("CONFIG", "SET", "requirepass", password or "")
            redis.password = password
            until(lambda: readiness(node)[0] == 200, "the node is ready")
            node.publish("open:any", 1)


class Stranger:
    """A server that is no Redis: it answers everything with the same bytes."""

    def __init__(self, answer):
        self.answer, self.attempts = answer, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.attempts += 1
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    connection.sendall(self.answer)


STRANGERS = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "an endless greeting": b"220 " + b"x" * 100_000,
    "a reply of another kind": b"*3\r\n:1\r\n:2\r\n",
    "a length that cannot be": b"$999999999999\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_it_is_no_redis(name):
    stranger = Stranger(STRANGERS[name])
    with contextlib.closing(stranger.listener):
        with UnreadyServer(redis_settings(f"127.0.0.1:{stranger.port}")) as node:
            attempts, began = stranger.attempts, time.monotonic()
            assert_refused_and_said(node, "Redis is unavailable")
            rate = (stranger.attempts - attempts) / (time.monotonic() - began)
            assert rate < ATTEMPTS_PER_SECOND_MAX, f"{rate:.1f} attempts in a second"


@contextlib.contextmanager
def listening(node, channel):
    """A client that must stay connected whatever happens; gives what reads its next publication, or the code with
    which its subscription ends."""
    with RawSocket(node) as raw:
        raw.connect(node)
        raw.send_commands({"id": 2, "subscribe": {"channel": channel}})
        assert "subscribe" in raw.read_reply(2)

        def next_event():
            while True:
                for reply in raw.read_replies():
                    if not reply:
                        raw.send_text("{}")
                    elif "pub" in reply.get("push", {}):
                        return reply["push"]["pub"]["data"]
                    elif "unsubscribe" in reply.get("push", {}):
                        return reply["push"]["unsubscribe"]["code"]

        yield next_event


def assert_publish_fails(node, channel):
    with pytest.raises(ApiError) as failed:
        node.publish(channel, "lost")
    assert failed.value.code == INTERNAL_ERROR


# What a subscriber is told by the first publication once the key is out of the way: without its stream the topic goes
# on, without what names the epoch another has begun.
OUT_OF_THE_WAY = {"s": "after", "m": INSUFFICIENT_STATE}


@pytest.mark.parametrize("kind", OUT_OF_THE_WAY)
def test_a_key_of_ours_holds_something_else(kind):
    with RedisServer() as redis, Server(redis_settings(redis.address)) as node:
        channel = "open:taken"
        mark = LogMark([node])
        with listening(node, channel) as next_event:
            node.publish(channel, "before")
            assert next_event() == "before"
            key = f"fanwire:default:{kind}:{{{channel}}}"
            assert redis.cli("DEL", key) == 1
            redis.cli("SADD", key, "not ours")
            with lazy(node):
                assert_publish_fails(node, channel)
                # Other topics have nothing to do with it.
                node.publish("open:another", 1)
            (said,) = mark.lines(node, "WRONGTYPE")
            assert said["level"] == "WARN"
            redis.cli("DEL", key)
            node.publish(channel, "after")
            assert next_event() == OUT_OF_THE_WAY[kind]


def test_its_memory_is_full():
    with RedisServer() as redis, Server(redis_settings(redis.address)) as node:
        channel = "open:full"
        mark = LogMark([node])
        with listening(node, channel) as next_event:
            node.publish(channel, "before")
            assert next_event() == "before"
            redis.cli("CONFIG", "SET", "maxmemory", "1")
            with lazy(node):
                assert_publish_fails(node, channel)
            until(lambda: mark.lines(node, "maxmemory") or mark.lines(node, "memory"), "the log says what is full")
            redis.cli("CONFIG", "SET", "maxmemory", "0")
            until(lambda: readiness(node)[0] == 200, "the node is ready")
            node.publish(channel, "after")
            assert next_event() == "after"


def test_one_connection_cannot_be_made():
    """Redis answers, only this node cannot use it: clients are better off elsewhere."""
    with RedisServer() as redis, Relay(redis) as relay, Server(redis_settings(relay.address)) as node:
        channel = "open:wedged"
        mark = LogMark([node])
        with listening(node, channel) as next_event:
            relay.cuts_subscribers = True
            redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
            with lazy(node):
                until(lambda: readiness(node)[0] == 503, "the node is not ready", 2 * WEDGED_SECONDS)
            assert not redis_is_up(node)
            relay.cuts_subscribers = False
            until(lambda: readiness(node)[0] == 200, "the node is ready")
            node.publish(channel, "after")
            assert next_event() == "after"
            assert [len(mark.lines(node, f"Redis is {state}")) for state in ("lost", "connected")] == [1, 1]
