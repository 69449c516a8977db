"""Many subscribe and unsubscribe commands in one frame, for suites that need tens of thousands of them."""

import concurrent.futures
import contextlib

from harness import RawSocket

# Below the bound of commands that may wait, and of the bytes of a frame.
FRAME_COMMANDS = 400
# For the clients of such suites: they answer no pings, and give more commands than others may.
BULK = {"ping_interval": "0s", "pong_timeout": "0s", "commands_per_second_max": 0}


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


def subscribe(raw, topics):
    for begin in range(0, len(topics), FRAME_COMMANDS):
        command_all(raw, "subscribe", topics[begin : begin + FRAME_COMMANDS])


def command_all(raw, method, topics):
    """Gives the same command for every topic and waits until each has succeeded. Replies are only counted in what the
    server sends: to read them would take most of the test's time."""
    commands = (f'{{"id":{index + 2},"{method}":{{"channel":"{topic}"}}}}' for index, topic in enumerate(topics))
    raw.send_text("\n".join(commands))
    wanted, missing, rest = f'"{method}":{{'.encode(), len(topics), b""
    while missing:
        received = raw.socket.recv(1 << 20)
        assert received and b'"error"' not in received, received
        missing -= (rest + received).count(wanted)
        # A reply may be cut in two, but must not be counted twice.
        rest = received[-(len(wanted) - 1) :]
    assert missing == 0
