"""What an application has to receive events with. It may be killed, and repeats then what it had begun."""

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


READERS = {"stream": StreamReader}
