"""Nodes whose clocks are wrong: what a cluster decides does not depend on them, as all go by Redis' clock."""

import datetime
import json
import subprocess

import pytest

import cluster as clusters
from client import Client
from harness import Server

SECONDS_LATE = 400
# Puts what a program hears of the time of day off, and nothing else.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(clock, time);
    if (clock == CLOCK_REALTIME) time->tv_sec += %d;
    return result;
}
"""


@pytest.fixture(scope="module")
def shims(tmp_path_factory):
    """Makes a library that shifts the clock by so many seconds."""
    folder = tmp_path_factory.mktemp("clocks")

    def shim(seconds):
        source, library = folder / f"{seconds}.c", folder / f"{seconds}.so"
        source.write_text(SHIM % seconds)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        return library

    return shim


class WrongServer(Server):
    """A server whose clock is wrong by so many seconds."""

    def __init__(self, settings, seconds, shim):
        self.seconds, self.variables = seconds, {"LD_PRELOAD": str(shim(seconds))}
        super().__init__(settings)
        assert abs(self.difference() - seconds) < 60, "the log has the wrong time"

    def difference(self):
        said = datetime.datetime.fromisoformat(json.loads(self.log.splitlines()[0])["timestamp"])
        return (said - datetime.datetime.now(datetime.UTC)).total_seconds()


@pytest.fixture(scope="module")
def cluster(shims):
    """Nodes that are right, late and early."""
    with clusters.Cluster(1) as cluster:
        for seconds in -SECONDS_LATE, SECONDS_LATE:
            cluster.nodes.append(WrongServer(cluster.node_settings(), seconds, shims))
        yield cluster


# What an order is, and what its client sees.
ORDERS = {
    "disconnect": ({}, lambda client, _: client.closed() == 3503),
    "refresh": ({"expired": True}, lambda client, _: client.closed() == 3005),
    "subscribe": ({}, lambda client, topic: client.is_told("subscribe")["channel"] == topic),
    "unsubscribe": ({}, lambda client, topic: client.is_told("unsubscribe")["channel"] == topic),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("giver", range(3))
def test_an_order_is_done_on_nodes_with_whatever_clocks(cluster, giver, order, fresh):
    more, is_done = ORDERS[order]
    for node in cluster.nodes:
        user, topic = fresh("user"), fresh("open")
        with Client(node, node.token(user)) as client:
            if order == "unsubscribe":
                client.subscribe(topic)
            about = {} if order in ("disconnect", "refresh") else {"channel": topic}
            cluster.node(giver).api(order, {"user": user, **about, **more})
            assert is_done(client, topic)


def test_questions_are_answered_by_nodes_with_whatever_clocks(cluster):
    for node in cluster.nodes:
        assert len(node.api("info")["nodes"]) == len(cluster.nodes)


def test_how_long_a_stream_is_kept_is_decided_by_one_clock(cluster, fresh):
    """A stream's expiry is set anew where the time's part of its TTL differs from the one before."""

    def part(node):
        topic = fresh("open")
        node.publish(topic, 1)
        meta = cluster.redis.cli("GET", f"fanwire:default:m:{{{topic}}}")
        return int(meta[17:25], 16)

    parts = [part(node) for node in cluster.nodes]
    assert max(parts) - min(parts) <= 1, parts


def test_a_wrong_clock_is_logged_once(cluster):
    for node in cluster.nodes:
        said = [line for line in node.log.splitlines() if "clock and Redis' differ" in line]
        assert len(said) == (1 if node in cluster.nodes[1:] else 0), said
        for line in said:
            assert abs(json.loads(line)["seconds"] - SECONDS_LATE) < 60
