"""Several nodes on one Redis, as the suites of clusters start them."""

import contextlib

from harness import Server, merge
from front import Nginx
from redis_server import RedisServer

# The shortest lease there is keeps the deaths that suites wait for short; an answer may take half of it.
LEASE = 3
REDIS = {"lease": f"{LEASE}s", "answer_timeout": "1500ms"}
SHUTDOWN = {"propagation": "0s", "window": "1s", "timeout": "5s"}


class Cluster:
    """`nodes` servers that share `settings` and a Redis: their own unless one is given."""

    def __init__(self, nodes=3, settings=None, redis=None):
        self.settings = settings or {}
        self.nodes = []
        with contextlib.ExitStack() as started:
            self.redis = redis or started.enter_context(RedisServer())
            started.callback(self.stop_nodes)
            for _ in range(nodes):
                self.add()
            self.started = started.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.show_logs()
        self.stop()

    def node(self, index):
        return self.nodes[index]

    def add(self, settings=None):
        """Starts one more node."""
        node = Server(merge(self.node_settings(), settings or {}))
        self.nodes.append(node)
        return node

    def node_settings(self):
        """What a node has over the configuration that all suites share."""
        engine = {"type": "redis", "redis": {"address": self.redis.address, **REDIS}}
        name = {"name": f"node-{len(self.nodes)}"}
        return merge({"engine": engine, "shutdown": SHUTDOWN, "server": name}, self.settings)

    def front(self, proxy=Nginx, **more):
        """A new proxy in front of the nodes of this moment; to be used by `with`."""
        return proxy(self.nodes, **more)

    def stop(self):
        self.started.close()

    def stop_nodes(self):
        for node in self.nodes:
            # What is paused does not hear that it should stop.
            node.resume()
            node.stop()

    def show_logs(self):
        for node in self.nodes:
            node.show_log()
