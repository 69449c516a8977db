"""What an operator sees of a node: its log, its health, its metrics, and what it costs."""

import contextlib
import json
import os
import pathlib

from cluster import REDIS
from harness import START_DEADLINE, Server, get, until


class UnreadyServer(Server):
    """A node that is not expected to become ready; it is waited for until it lives."""

    def launch(self):
        self.spawn()

        def alive():
            assert self.process.poll() is None, f"the server ended at its start:\n{self.log}"
            with contextlib.suppress(OSError):
                return get(f"{self.internal}/livez").status == 200

        until(alive, "the server lives", START_DEADLINE)


def redis_settings(address, **redis):
    """The settings of a node on that Redis."""
    return {"engine": {"type": "redis", "redis": {"address": address, **REDIS, **redis}}}


def log_lines(node):
    """Time, level and text of each line of the log, with every field that a line has."""
    return [json.loads(line) for line in node.log.splitlines() if line.startswith("{")]


class LogMark:
    """What each node says about Redis from here on."""

    def __init__(self, nodes):
        self.begin = {node: len(log_lines(node)) for node in nodes}

    def lines(self, node, text):
        return [line for line in log_lines(node)[self.begin[node] :] if text in json.dumps(line)]


def readiness(node):
    """Status and text of the readiness check."""
    answer = get(f"{node.internal}/readyz?verbose")
    return answer.status, answer.text


def cpu_seconds(process):
    """Processor time that the process has used, in user and kernel mode."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def redis_is_up(node):
    """What a metric says of it."""
    return node.metric("fanwire_redis_up") == 1
