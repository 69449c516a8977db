"""Eight nodes with topics of their own: each receives what its own clients want, and more nodes do not make it more."""

import contextlib
import socket
import subprocess
import uuid

from bulk import BULK, subscribed
from cluster import Cluster
from harness import DEADLINE
from redis_server import request

TOLERANCE = 0.05


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
        self.read(b"subscribe\r\n", len(channels))

    def read_messages(self, count):
        """Reads so many, and gives the number of their bytes."""
        return self.read(b"message\r\n", count)

    def read(self, word, count):
        received = b""
        while received.count(word) < count:
            received += self.socket.recv(1 << 20)
        return len(received)


def test_a_node_receives_its_own_topics_and_nothing_else():
    with Cluster(2, {"client": BULK}) as cluster:
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
        # Nobody passes with the traffic of another.
        counts = [1000 + 200 * index for index in range(len(cluster.nodes))]
        for index, count in enumerate(counts):
            commands = [
                {"publish": {"channel": topics[index][number % 5], "data": "x" * 500}} for number in range(count)
            ]
            other = cluster.node((index + 1) % len(cluster.nodes))
            for begin in range(0, count, 500):
                other.api("batch", {"commands": commands[begin : begin + 500], "parallel": True})
            got = 0
            while got < count:
                got += len(clients[index].read_replies())
        wanted = [tap.read_messages(count) for tap, count in zip(taps, counts)]
        return [(link.received() - start, carried) for link, start, carried in zip(links, before, wanted)]
