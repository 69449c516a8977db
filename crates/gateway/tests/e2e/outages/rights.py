"""Redis with users who may do only so much: the documented rights are enough, and a right that is missing is named."""

import pathlib
import shlex

import pytest

from harness import Server, until
from observe import LogMark, UnreadyServer, log_lines, readiness, redis_settings
from redis_server import RedisServer

DOCUMENTATION = pathlib.Path(__file__).resolve().parents[5] / "docs/operations.md"
USER = {"username": "fanwire", "password": "one that nobody guesses", "prefix": "myapp"}


def least_rights():
    """The rules of the user that the documentation describes."""
    command = DOCUMENTATION.read_text().split("ACL SETUSER ")[1].split("\n```")[0]
    return [word.replace("PASSWORD", USER["password"]) for word in shlex.split(command.replace("\\\n", " "))]


@pytest.fixture
def redis():
    with RedisServer() as redis:
        redis.cli("ACL", "SETUSER", *least_rights())
        yield redis


def test_the_documented_rights_are_enough(redis):
    with Server(redis_settings(redis.address, **USER)) as node, Server(redis_settings(redis.address, **USER)) as other:
        node.publish("open:one", 1, idempotency_key="key")
        assert node.api("history", {"channel": "open:one", "limit": 1})["publications"][0]["data"] == 1
        other.api("disconnect", {"user": "nobody"})
        assert len(other.api("info")["nodes"]) == 2
        for server in (node, other):
            said = [line for line in log_lines(server) if "fanwire:prefixes" in str(line)]
            assert [line["level"] for line in said] == ["INFO"], said
            assert "[+] redis ok\n" in readiness(server)[1]
            assert not [line for line in log_lines(server) if line["level"] in ("WARN", "ERROR")]
    assert all(key.startswith("myapp:") for key in redis.keys())


# A right that is taken away, and what has to be named: the command, and its keys or channel.
MISSING = {
    "of lists of nodes": ("-zadd", ["EVALSHA", "myapp:n:{!}"]),
    "to publish": ("-publish", ["PUBLISH", "myapp:default:c:{!probe:"]),
    "to subscribe": ("-subscribe", ["SUBSCRIBE", "myapp:default:c:{!probe:"]),
    "to ask who it is": ("-info", ["INFO"]),
    "to load scripts": ("-script", ["SCRIPT LOAD"]),
}


@pytest.mark.parametrize("right", MISSING)
def test_a_missing_right_is_named(redis, right):
    rule, named = MISSING[right]
    redis.cli("ACL", "SETUSER", "fanwire", rule)
    with UnreadyServer(redis_settings(redis.address, **USER)) as node:
        mark = LogMark([node])
        mark.begin[node] = 0

        def is_said():
            status, text = readiness(node)
            said = [line for line in mark.lines(node, named[0]) if all(name in str(line) for name in named)]
            return status == 503 and all(name in text for name in named) and "engine.redis.username" in text and said

        until(is_said, f"log and readiness name {named}")
        assert len(mark.lines(node, named[0])) <= 3
        redis.cli("ACL", "SETUSER", *least_rights())
        until(lambda: readiness(node)[0] == 200, "the node is ready once it may")


def test_keys_of_another_prefix_are_not_permitted(redis):
    with UnreadyServer(redis_settings(redis.address, **{**USER, "prefix": "other"})) as node:

        def is_said():
            status, text = readiness(node)
            return status == 503 and "other:default:c:{!probe:" in text and "not permit" in text

        until(is_said, "the channel is named")


def test_a_right_that_is_lost_later_is_named(redis):
    with Server(redis_settings(redis.address, **USER)) as node:
        redis.cli("ACL", "SETUSER", "fanwire", "-xadd")
        answer = node.post("/api/publish", b'{"channel":"open:one","data":1}').json()
        assert answer["error"]["code"] == 100
        status, text = readiness(node)
        assert status == 200 and "EVALSHA" in text and "myapp:default:m:{open:one}" in text, text
