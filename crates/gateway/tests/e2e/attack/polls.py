"""Polls: sessions that are left behind, sessions that are nobody's, and many polls of one session."""

import base64
import contextlib
import json
import socket
import uuid

from attackers import PATIENCE, drop, get
from harness import until

TOPIC = "wild:polled"
LONG = "x" * 50_000
# Sessions that are left last for as long as this.
SETTINGS = {"subscribe": {"poll_grace": "2s"}}
# The bytes of a session's key: node, shard, slot, generation, client, signature.
NODE, SLOT, SIGNATURE = 16, slice(18, 22), 42
FORGED = 10_000
AT_ONCE = 50
# A topic without history, whose publications are kept for nobody but those who read slowly.
FLOW = "flow"
SLOW = 120
ANSWERS = 5


def poll(server, wait, session="", cursor="", topic=TOPIC):
    token = server.token("rogue")
    return get(f"/subscribe?topic={topic}&wait={wait}&token={token}&session={session}&cursor={cursor}")


def answer(connection):
    """Returns the answer on a connection that ends with it, or `None` if it is refused."""
    received = b""
    while more := connection.recv(1 << 16):
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    return json.loads(body) if head.startswith(b"HTTP/1.1 200 ") else None


def opened(attack, server, topic=TOPIC):
    """Returns the name of a new session that waits for its next poll."""
    connection = attack.socket()
    connection.sendall(poll(server, 1, topic=topic))
    first = answer(connection)
    drop(connection)
    return first["session"]


def no_session_is_left(server):
    until(lambda: server.metric("fanwire_connections", protocol="poll") == 0, "no session is left")


def test_sessions_that_are_left_behind(trial):
    """Half of them before their first answer, half after one that is never confirmed."""
    server = trial.serve(SETTINGS)

    def leave():
        connection = attack.socket()
        connection.sendall(poll(server, 60))
        drop(connection)

    def confirm_nothing():
        connection = attack.socket()
        connection.sendall(poll(server, 60))
        server.publish(TOPIC, LONG)
        answer(connection)
        drop(connection)

    with trial.attack("sessions of polls that are left behind, 30 clients", prompt=True) as attack:
        attack.crowd(15, leave)
        attack.crowd(15, confirm_nothing)
    no_session_is_left(server)


def forged(name):
    """Yields names that resemble that of a session: other slots, other signatures, other nodes, other answers."""
    key, _, number = name.rpartition(".")
    real = base64.urlsafe_b64decode(key)
    for count in range(FORGED):
        key = bytearray(real)
        if count % 4 == 0:
            key[SIGNATURE + count % 18] ^= 1 << count % 8
        elif count % 4 == 1:
            key[SLOT] = (count // 4 + 100_000).to_bytes(4)
        elif count % 4 == 2:
            key[:NODE] = uuid.uuid4().bytes
        yield f"{base64.urlsafe_b64encode(key).decode()}.{int(number) + count + 2}"


def test_forged_sessions(trial):
    """Each is a poll that opens a session of its own, which ends when its client leaves."""
    server = trial.serve(SETTINGS)

    def knock():
        for name in names:
            if attack.over.is_set():
                break
            connection = attack.socket()
            connection.sendall(poll(server, 1, name))
            drop(connection)

    with trial.attack(f"{FORGED:,} forged sessions of polls, 8 clients", prompt=True) as attack:
        names = list(forged(opened(attack, server)))
        attack.crowd(8, knock)
    no_session_is_left(server)


def test_polls_at_once_of_one_session(trial):
    """Each makes the one before it go, so that one waits."""
    server = trial.serve(SETTINGS)

    def crowd_in():
        name = opened(attack, server)
        connections = [attack.socket() for _ in range(AT_ONCE)]
        for connection in connections:
            connection.sendall(poll(server, 60, name))
        for connection in connections[1:]:
            drop(connection)
        drop(connections[0])

    with trial.attack(f"{AT_ONCE} polls at once of one session, 6 clients", prompt=True) as attack:
        attack.crowd(6, crowd_in)
    no_session_is_left(server)


def test_single_looks_at_much(trial):
    """Each look takes what a topic's history holds, and leaves nothing."""
    server = trial.serve(SETTINGS)
    for _ in range(20):
        server.publish(TOPIC, LONG)
    with trial.attack("single looks, pipelined, 20 connections", prompt=True) as attack:
        look = poll(server, 0)
        attack.crowd(20, lambda: attack.flood(look))
    no_session_is_left(server)


def sip(attack, server, begun):
    """Lets much come for a session, and takes a byte of the answer now and then. The kernel keeps little of it.
    `begun` grows with each answer."""
    name = opened(attack, server, FLOW)
    attack.over.wait(2)
    connection = socket.socket()
    attack.hold(connection)
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 88)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(poll(server, 60, name, topic=FLOW))
    begun.append(connection.recv(1))
    while connection.recv(1) and not attack.over.wait(0.5):
        pass
    drop(connection)


def honest_answers(server, count):
    """Polls from another address, and returns the first answers. A refused poll has none."""
    answers, session = [], ""
    while len(answers) < count:
        request = poll(server, 5, session, topic=FLOW).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        address = ("127.0.0.1", server.port)
        with contextlib.closing(socket.create_connection(address, PATIENCE, ("127.0.0.2", 0))) as connection:
            connection.sendall(request)
            answers.append(answer(connection))
        session = answers[-1]["session"] if answers[-1] else ""
    return answers


def test_answers_that_are_taken_slowly(trial):
    """They take their part of the room for answers, and clients of other addresses are answered."""
    server = trial.serve(
        {
            "client": {"queue_bytes_max": "8MiB"},
            "subscribe": {"poll_grace": "5s"},
            "topics": {"default": {"allow_subscribe_for_client": True}},
        }
    )

    def publish():
        server.publish(FLOW, LONG)
        attack.over.wait(0.05)

    with trial.attack(f"answers to polls that are taken slowly, {SLOW} clients") as attack:
        attack.crowd(1, publish)
        begun = []
        attack.crowd(SLOW, lambda: sip(attack, server, begun))
        until(lambda: len(begun) >= SLOW, "they are answered, or refused")
        assert None not in honest_answers(server, ANSWERS), "an honest poll is refused"
