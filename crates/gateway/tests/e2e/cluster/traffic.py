"""Publishers that go on until they are ended."""

import http.client
import itertools
import threading

from harness import ApiError, until


class Traffic:
    """Publishes numbers in their order on the nodes of `serving`, in turn, until the end."""

    # Between messages, in seconds; not for anything to happen.
    pause = 0.005

    def __init__(self, cluster, topic):
        self.cluster, self.topic, self.turns = cluster, topic, itertools.count()
        self.serving, self.count, self.failure = [0, 1, 2], 0, None
        self.ended, self.thread = threading.Event(), threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def run(self):
        while not self.ended.wait(self.pause):
            try:
                self.publish(self.count + 1)
            except Exception as failure:
                self.failure = failure
                return
            self.count += 1

    def next_node(self):
        serving = self.serving
        return self.cluster.node(serving[next(self.turns) % len(serving)])

    def publish(self, number):
        self.next_node().publish(self.topic, number)

    def goes_on(self):
        """Some more is published, after whatever was asked before."""
        wanted = self.count + 50

        def is_enough():
            assert self.failure is None, self.failure
            return self.count >= wanted

        until(is_enough, f"{wanted} messages are published")


class StubbornTraffic(Traffic):
    """Publishes numbers to several topics, with the name of the topic, on all nodes, whichever of them die: what one does
    not confirm is published on the next, once."""

    pause = 0.1
    internal_error = 100

    def __init__(self, cluster, topics):
        super().__init__(cluster, None)
        self.topics = topics

    def publish(self, number):
        for topic in self.topics:
            while not self.is_published(topic, number):
                assert not self.ended.is_set(), "no node publishes"

    def is_published(self, topic, number):
        try:
            data = {"topic": topic, "number": number}
            self.next_node().publish(topic, data, idempotency_key=str(number))
        except (OSError, http.client.HTTPException):
            return False
        except ApiError as error:
            if error.code != self.internal_error:
                raise
            return False
        return True
