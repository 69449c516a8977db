"""What an application has to receive events with. It may be killed, and repeats then what it had begun."""

import random

from events_webhook import HEADER, PREVIOUS_SECRET, SECRET, Receiver
from lifecycle import Reader


class StreamReader:
    """The reader of streams that the documentation has."""

    settings = {"deliver": "stream"}

    def begin(self, redis):
        self.reader = Reader(redis)
        self.kill, self.start = self.reader.kill, self.reader.start

    @property
    def repeats(self):
        return self.reader.repeats

    def arrived(self):
        """All events, once each, in the order in which they came first."""
        return list(self.reader.events.values())


class WebhookReader(Receiver):
    """A receiver of the webhook, some of whose answers are lost."""

    LOST_SHARE = 0.05

    def __init__(self):
        super().__init__()
        self.kill = self.stop
        secrets = {"signature_secret": SECRET, "signature_previous_secret": PREVIOUS_SECRET}
        webhook = {"url": self.url, "timeout": "2s", "static_headers": {"Authorization": HEADER}, **secrets}
        self.settings = {"deliver": "webhook", "webhook": webhook}

    def begin(self, _redis):
        """It listens already, before there are nodes."""

    def receive(self, headers, body):
        status = super().receive(headers, body)
        return 503 if random.random() < self.LOST_SHARE else status

    def arrived(self):
        with self.lock:
            return list(self.events.values())


READERS = {"stream": StreamReader, "webhook": WebhookReader}
