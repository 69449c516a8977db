"""A client that speaks the protocol by hand, so that a test knows exactly what was said before what."""

import contextlib
import json

from harness import RawSocket


class Closed(Exception):
    """The server closed the connection."""


class Client(RawSocket):
    """A connected client of a node, or of what stands in front of nodes. Keeps every push in the order of arrival."""

    def __init__(self, place, token):
        super().__init__(place)
        self.pushes, self.pings, self.replies, self.command, self.close_code = [], 0, {}, 0, None
        self.id = self.ask(connect={"token": token})["client"]

    def ask(self, **command):
        """Sends a command and gives its result; an error fails the test."""
        (method,) = command
        reply = self.reply_to(**command)
        assert method in reply, reply
        return reply[method]

    def reply_to(self, **command):
        self.command += 1
        self.send_commands({"id": self.command, **command})
        self.wait(lambda: self.command in self.replies)
        return self.replies.pop(self.command)

    def subscribe(self, topic, **more):
        return self.ask(subscribe={"channel": topic, **more})

    def unsubscribe(self, topic):
        self.ask(unsubscribe={"channel": topic})

    def of(self, event, topic):
        """What was pushed of one kind, such as `pub` or `join`, from one topic."""
        return [push[event] for push in self.pushes if push.get("channel") == topic and event in push]

    def data(self, topic):
        return [publication["data"] for publication in self.of("pub", topic)]

    def publications(self, topic, count):
        """The data of all publications that came as pushes, once there are `count`; more are an error."""
        self.wait(lambda: len(self.of("pub", topic)) >= count)
        data = self.data(topic)
        assert len(data) == count, data
        return data

    def closed(self):
        """The code with which the server closes the connection."""
        with contextlib.suppress(Closed):
            self.wait(lambda: False)
        return self.close_code

    def is_told(self, event):
        """The first push of a kind that comes, or has come."""
        self.wait(lambda: any(event in push for push in self.pushes))
        return next(push for push in self.pushes if event in push)

    def wait(self, condition):
        """Reads until the condition holds; the socket's time limit is the deadline."""
        while not condition():
            self.receive()

    def receive(self):
        opcode, payload = self.read_frame()
        if opcode != 0x1:
            assert opcode == 0x8, f"expected a text or a close frame, got {opcode}: {payload!r}"
            self.close_code = int.from_bytes(payload[:2], "big")
            raise Closed(self.close_code)
        for line in payload.decode().split("\n"):
            reply = json.loads(line)
            if "push" in reply:
                self.pushes.append(reply["push"])
            elif reply:
                self.replies[reply["id"]] = reply
            else:
                self.pings += 1
                self.send_text("{}")
