"""Tens of thousands of topics on one node, and the traffic of eight nodes: what is joined is joined again at once,
and a node receives what its own clients want and nothing else."""

import concurrent.futures
import contextlib
import random
import socket
import subprocess
import time
import uuid

from bulk import NO_PINGS, subscribe
from cluster import Cluster
from harness import DEADLINE, RawSocket, until
from observe import cpu_seconds
from redis_server import request

TOPICS = 50_000
CONNECTIONS = 10
# Of processor time, for a build without optimization. The engine's own test demands two seconds of wall-clock time, which
# says little here beside whatever else the machine does.
RESTORE_CPU_SECONDS = 8
TOLERANCE = 0.05


@contextlib.contextmanager
def subscribed(node, shares):
    """A connection for each list of topics."""
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(len(shares)) as pool:
        sockets = []
        for topics in shares:
            raw = stack.enter_context(RawSocket(node))
            raw.connect(node)
            sockets.append(raw)
        list(pool.map(subscribe, sockets, shares))
        yield sockets


def joined_topics(redis):
    """The channels that somebody is subscribed to."""
    return int(redis.info("stats")["pubsub_channels"])


def test_fifty_thousand_topics_are_joined_again():
    with Cluster(1, {"client": {"subscriptions_max": TOPICS // CONNECTIONS, **NO_PINGS}}) as cluster:
        node, redis = cluster.node(0), cluster.redis
        # With history, so that each position is checked as well.
        topics = [f"short:{number}" for number in range(TOPICS)]
        shares = [topics[index::CONNECTIONS] for index in range(CONNECTIONS)]
        with subscribed(node, shares) as sockets:
            before = joined_topics(redis)
            assert before >= TOPICS
            began, used = time.monotonic(), cpu_seconds(node.process)
            redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
            until(lambda: joined_topics(redis) < before, "the connection is cut")
            until(lambda: joined_topics(redis) == before, "every topic is joined again")
            took = time.monotonic() - began
            until(lambda: node.metric("fanwire_repairs_total", result="complete") >= TOPICS, "every stream is checked")
            used = cpu_seconds(node.process) - used
            print(f"{TOPICS} topics are joined again after {took:.2f} s and {used:.2f} s of processor time")
            assert used < RESTORE_CPU_SECONDS
            for index in random.sample(range(TOPICS), 100):
                node.publish(topics[index], index)
                (reply,) = sockets[index % CONNECTIONS].read_replies()
                assert reply["push"]["channel"] == topics[index]
                assert reply["push"]["pub"]["data"] == index


class Link:
    """The bytes that one node has received through its subscription connection, as the kernel counts them."""

    def __init__(self, node, redis):
        self.redis = redis
        pid = f"pid={node.process.pid},"
        subscribers = {
            fields["addr"].rpartition(":")[2]
            for fields in map(client_fields, redis.cli("CLIENT", "LIST", "TYPE", "pubsub").splitlines())
        }
        own = {local_port(line) for line in sockets(redis, "-p") if pid in line}
        (self.port,) = subscribers & own

    def received(self):
        (line,) = [line for line in sockets(self.redis, "-i") if local_port(line) == self.port]
        return sum(int(field.partition(":")[2]) for field in line.split() if field.startswith("bytes_received:"))


def local_port(line):
    return line.split()[3].rpartition(":")[2]


def client_fields(line):
    return dict(field.split("=", 1) for field in line.split())


def sockets(redis, *options):
    """Connections to Redis from the side of its clients, one line for each."""
    arguments = ["ss", "-HtnO", *options, f"dport = :{redis.port}"]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()


class Tap:
    """Subscribes to topics at Redis itself: what they bring to whoever is subscribed to them and nothing else."""

    def __init__(self, redis, channels):
        self.socket = socket.create_connection(("127.0.0.1", redis.port), timeout=DEADLINE)
        self.socket.sendall(request("SUBSCRIBE", *channels))
        self.received = b""
        self.read_until(lambda: self.received.count(b"subscribe\r\n") == len(channels))
        self.received = b""

    def read_until(self, condition):
        while not condition():
            self.received += self.socket.recv(1 << 20)
        return len(self.received)


def test_a_node_receives_its_own_topics_and_nothing_else():
    """Each node gets another number of publications, so that nobody passes with the traffic of another."""
    with Cluster(2, {"client": NO_PINGS}) as cluster:
        few = traffic_of(cluster)
        for _ in range(6):
            cluster.add()
        many = traffic_of(cluster)
        print("bytes received and wanted, of two nodes and of eight:", few, many)
        for received, wanted in few + many:
            assert abs(received - wanted) <= TOLERANCE * wanted, f"{received} bytes received, {wanted} wanted"


def traffic_of(cluster):
    """Publishes to topics of each node through the next one; what each node received, and what its topics carried."""
    with contextlib.ExitStack() as stack:
        run = uuid.uuid4().hex[:8]
        topics, taps, links, clients = [], [], [], []
        for index, node in enumerate(cluster.nodes):
            topics.append([f"plain:{run}-{index}-{number}" for number in range(5)])
            clients.append(stack.enter_context(subscribed(node, [topics[-1]]))[0])
            channels = [f"fanwire:default:c:{{{topic}}}" for topic in topics[-1]]
            taps.append(Tap(cluster.redis, channels))
            links.append(Link(node, cluster.redis))
        before = [link.received() for link in links]
        for index, node in enumerate(cluster.nodes):
            count = 1000 + 200 * index
            commands = [
                {"publish": {"channel": topics[index][number % 5], "data": "x" * 500}} for number in range(count)
            ]
            other = cluster.node((index + 1) % len(cluster.nodes))
            for begin in range(0, count, 500):
                other.api("batch", {"commands": commands[begin : begin + 500], "parallel": True})
            got = 0
            while got < count:
                got += len(clients[index].read_replies())
        wanted = [
            tap.read_until(lambda: tap.received.count(b"message\r\n") == 1000 + 200 * index)
            for index, tap in enumerate(taps)
        ]
        return [(link.received() - start, carried) for link, start, carried in zip(links, before, wanted)]
