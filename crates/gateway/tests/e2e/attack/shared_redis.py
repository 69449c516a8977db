"""Redis that is silent, and Redis that two environments share."""

import time

from attackers import Attackers, commands
from cluster import REDIS
from redis_server import RedisServer

CLIENTS, COMMANDS, COMMAND_BYTES = 20, 512, 64 * 1024
# Scripts in a second of two nodes whose topics rest; leases and probes are a few.
SCRIPTS_PER_SECOND_MAX = 200


def on(redis, **more):
    return {"engine": {"type": "redis", "redis": {"address": redis.address, **REDIS, **more}}}


def test_commands_while_redis_is_silent(trial):
    with RedisServer() as redis:
        trial.serve(on(redis, answer_timeout="30s", probe_interval="30s", lease="90s"), publishing=False)
        subject = {"channel": "wild:waiting"}
        publish = {"id": 3, "publish": {**subject, "data": "x" * (COMMAND_BYTES - 200)}}
        request = commands({"id": 2, "subscribe": subject}) + commands(publish) * COMMANDS

        def fill():
            attack.websocket().send(request)
            attack.over.wait()

        with trial.attack("20 clients, 512 commands of 64 KiB, Redis is silent") as attack:
            redis.pause()
            attack.crowd(CLIENTS, fill)
        redis.resume()


def scripts(redis):
    statistics = redis.info("commandstats")
    calls = [line.split("calls=")[1].split(",")[0] for name, line in statistics.items() if "eval" in name]
    return sum(map(int, calls))


def test_two_environments_in_one_redis(trial):
    """They are told apart by `database` alone. Whatever happens in one, Redis stays calm, and the other publishes."""
    with RedisServer() as redis:
        other = trial.start(on(redis, database=1))
        server = trial.serve(on(redis))
        with trial.attack("two environments that differ in database") as attack:
            for node in (server, other):
                listener = Attackers(node).websocket("listener")
                attack.hold(listener.socket)
                listener.send(commands({"id": 2, "subscribe": {"channel": "wild:shared", "recoverable": True}}))
                listener.read_reply(2)
            for node in (server, other):
                node.publish("wild:shared", 1)
                node.api("disconnect", {"user": "nobody"})
        before, seconds = scripts(redis), 2
        time.sleep(seconds)
        rate = (scripts(redis) - before) / seconds
        assert rate < SCRIPTS_PER_SECOND_MAX, f"{rate:.0f} scripts a second"
        assert other.publish("wild:elsewhere", 1) is not None
