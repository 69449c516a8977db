"""A publisher that goes on until it is ended."""

import itertools
import threading

from harness import until


class Traffic:
    """Publishes numbers in their order on the nodes of `serving`, in turn, until the end."""

    def __init__(self, cluster, topic):
        self.cluster, self.topic = cluster, topic
        self.serving, self.count, self.failure = [0, 1, 2], 0, None
        self.ended, self.thread = threading.Event(), threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def run(self):
        turns = itertools.count()
        # A pause between messages, not for anything to happen.
        while not self.ended.wait(0.005):
            serving = self.serving
            try:
                self.cluster.node(serving[next(turns) % len(serving)]).publish(self.topic, self.count + 1)
            except Exception as failure:
                self.failure = failure
                return
            self.count += 1

    def goes_on(self):
        """Some more is published, after whatever was asked before."""
        wanted = self.count + 50

        def is_enough():
            assert self.failure is None, self.failure
            return self.count >= wanted

        until(is_enough, f"{wanted} messages are published")
