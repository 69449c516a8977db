"""Content that is no JSON: clients that watch in JSON stay connected and receive everything else."""

import json

import jwt

from harness import RawSocket, frame

TOPIC = "watched:topic"
def watch(server, poison):
    """Returns what a JSON client receives while a topic is poisoned."""
    with RawSocket(server) as watcher:
        watcher.connect(server, "watcher")
        watcher.send_commands({"id": 2, "subscribe": {"channel": TOPIC}})
        watcher.read_reply(2)
        server.publish(TOPIC, "before")
        poison()
        server.publish(TOPIC, "after")
        got = []
        while "after" not in got:
            for reply in watcher.read_replies():
                if not reply:
                    watcher.send_text("{}")
                elif "pub" in reply.get("push", {}):
                    got.append(reply["push"]["pub"].get("data"))
    return got


def join(server, token):
    """Joins the topic with this token, or is refused."""
    with RawSocket(server) as raw:
        raw.send_commands({"id": 1, "connect": {"token": token}}, {"id": 2, "subscribe": {"channel": TOPIC}})
        while (opcode := raw.read_frame()) and opcode[0] == 0x1:
            if any(json.loads(line).get("id") == 2 for line in opcode[1].decode().split("\n")):
                return


def check(trial, name, poison):
    server = trial.serve()
    with trial.attack(name) as attack:
        got = watch(server, lambda: poison(server, attack))
        assert (got[0], got[-1]) == ("before", "after"), got


def test_info_that_nests_5500_deep(trial):
    def poison(server, attack):
        claims = json.dumps({"sub": "rogue", "info": 0})
        claims = claims.replace("0}", "[" * 5500 + "]" * 5500 + "}")
        join(server, jwt.api_jws.encode(claims.encode(), server.token_secret, "HS256"))

    check(trial, "info that nests 5,500 deep", poison)


def test_a_publication_of_two_bytes_by_a_protobuf_client(trial):
    def poison(server, attack):
        with RawSocket(server, "/connection/websocket?format=protobuf") as raw:
            raw.send(binary(1, field(4, field(1, server.token("rogue").encode()))))
            raw.read_frame()
            raw.send(binary(2, field(7, field(1, TOPIC.encode()) + field(2, b"\xff\xfe"))))
            raw.read_frame()

    check(trial, "a Protobuf publication of two bytes", poison)


def binary(command_id, request):
    """A binary frame with one command of the Protobuf protocol."""
    command = b"\x08" + bytes([command_id]) + request
    return frame(0x2, varint(len(command)) + command)


def field(number, content):
    """A field of bytes."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(number):
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])
