"""Clients that ask for long answers and take little of them, again and again. Others get theirs."""

import socket

from amplification import TOPIC, fill
from attackers import PATIENCE, commands, drop
from harness import RawSocket, handshake

# A history of 1 MB, close to `client.answer_bytes_max`.
PUBLICATIONS, BYTES = 17, 60_000
# A recovery of 4 MB, close to `client.recovery_bytes_max`.
MISSED = "wild:missed"
MISSED_PUBLICATIONS = 65
CLIENTS_OF_EACH = 20
# Bytes a second. A recovery takes one to four minutes.
RATES = 16_000, 64_000
PIECES = 16


class SlowSocket(RawSocket):
    """Its windows and segments are small, so the kernel keeps little of an answer, and the server sees what is taken."""

    def __init__(self, attack):
        self.socket, self.received = socket.socket(), b""
        attack.hold(self.socket)
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 88)
        self.socket.connect(("127.0.0.1", attack.server.port))
        self.send(handshake("/connection/websocket"))
        self.read_head()

    def has_long_frame(self):
        """The next frame has 64 KiB or more."""
        return self.fill(2) and self.received[1] == 127


def trickle(attack, recovery, rate):
    """Asks to recover until it is answered what it missed, and takes that slowly."""
    raw = SlowSocket(attack)
    raw.connect(attack.server, "rogue")
    raw.send(recovery)
    while not raw.has_long_frame():
        if any("subscribe" in reply for reply in raw.read_replies()):
            # Nothing is recovered: it comes back.
            return drop(raw.socket)
    while raw.socket.recv(rate // PIECES) and not attack.over.wait(1 / PIECES):
        pass


def test_recoveries_that_are_taken_slowly(trial):
    server = trial.serve(reading=(TOPIC, PUBLICATIONS))
    fill(server, PUBLICATIONS, BYTES)
    fill(server, MISSED_PUBLICATIONS, BYTES, MISSED)
    epoch = server.api("history", {"channel": MISSED, "limit": 0})["epoch"]
    recover = {"channel": MISSED, "recoverable": True, "recover": True, "epoch": epoch, "offset": 0}
    recovery = commands({"id": 2, "subscribe": recover})
    with trial.attack(f"{len(RATES) * CLIENTS_OF_EACH} recoveries of 4 MB that are taken at 16 or 64 KB/s") as attack:
        for rate in RATES:
            attack.crowd(CLIENTS_OF_EACH, lambda rate=rate: trickle(attack, recovery, rate))
