"""Logs that nobody reads. The server serves, and ends when it is told to."""

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time

import pytest

from harness import STOP_DEADLINE, RawSocket, Server


class PipedServer(Server):
    """Its standard output and error are one small pipe, which is read until the server is ready."""

    def spawn(self):
        self.pipe, self.write_end = os.pipe()
        fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, 4096)
        super().spawn(self.write_end)
        os.set_blocking(self.pipe, False)
        self.is_read = True
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        """Copies the pipe into the file of `log`."""
        with open(self.log_file, "ab") as log:
            while self.is_read:
                with contextlib.suppress(BlockingIOError):
                    log.write(os.read(self.pipe, 4096))
                    log.flush()
                time.sleep(0.01)

    def stop_reading(self):
        """Leaves a full pipe that nobody reads."""
        self.is_read = False
        self.reader.join()
        # A description of its own: the server's stays blocking.
        filler = os.open(f"/proc/self/fd/{self.write_end}", os.O_WRONLY | os.O_NONBLOCK)
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(filler, b"x" * size)
        os.close(filler)

    def close_pipe(self):
        """Closes the reader's end, as `head -2` does when it has read enough."""
        self.is_read = False
        self.reader.join()
        os.close(self.write_end)
        os.close(self.pipe)


def provoke_a_line(server):
    """Connects with a token that is refused, which is logged."""
    with RawSocket(server) as raw:
        raw.send_commands({"id": 1, "connect": {"token": "no.token.at-all"}})
        raw.read_frame()


def check_end(trial):
    """The server follows SIGTERM."""
    server = trial.server
    server.process.send_signal(signal.SIGTERM)
    try:
        status = server.process.wait(STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        trial.rows[-1].notes.append("stuck: SIGTERM is not followed")
        server.process.kill()
        raise
    assert status == 0


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_full_pipe_that_nobody_reads(trial, level):
    server = trial.serve({"log": {"level": level}}, PipedServer)
    with trial.attack(f"standard output is a full pipe, level {level}") as attack:
        server.stop_reading()
        attack.crowd(4, lambda: provoke_a_line(server))
    check_end(trial)


def test_a_reader_that_has_gone(trial):
    server = trial.serve({"log": {"level": "debug"}}, PipedServer)
    with trial.attack("standard output and error are closed") as attack:
        server.close_pipe()
        attack.crowd(4, lambda: provoke_a_line(server))
    check_end(trial)
