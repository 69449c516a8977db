"""TLS handshakes that stop. Clients that connect over TLS are served beside them."""

import socket
import ssl

from certificate import issue

CLIENT = ssl._create_unverified_context()
# Fewer than the kernel keeps for a shard that is busy.
AT_ONCE = 100
ROUNDS = 4


def first_message():
    """Returns what a client sends first in a handshake."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = CLIENT.wrap_bio(received, sent)
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()


def test_handshakes_that_stop(trial, tmp_path):
    """Some stop within the first message. Others send all of it, are answered with a signature, and send no more."""
    server = trial.serve(issue(tmp_path))
    message = first_message()
    with trial.attack(f"{3 * ROUNDS * AT_ONCE:,} TLS handshakes that stop") as attack:
        for _ in range(ROUNDS):
            for begin in (message[:1], message[: len(message) // 2], message):
                for _ in range(AT_ONCE):
                    attack.socket().sendall(begin)
                # All before this one are accepted by now.
                with CLIENT.wrap_socket(socket.create_connection(("127.0.0.1", server.port))):
                    pass
