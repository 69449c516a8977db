"""Long-lived tasks that die. Each is started again, or ends its node with a word; others are served meanwhile.

Tasks die in a binary with the feature `planted-faults` (`crates/broker/src/planted.rs`), which PLANTED_BIN names.
"""

import contextlib
import http.client
import os
import pathlib

import pytest

from certificate import issue
from harness import BINARY, DEADLINE, RawSocket, Server, get, merge, until
from redis_server import RedisServer
from shared_redis import on

PLANTED = os.environ.get("PLANTED_BIN")
# The name of the variable that `planted.rs` reads.
VARIABLE = "PLANTED_FAULTS"

needs_planted = pytest.mark.skipif(
    not PLANTED, reason="tasks die in a build with the feature planted-faults alone, which --binary does not name"
)

TOPIC = "watched:task"
# A node whose task ended is not called ready for 10 s.
READY_DEADLINE = 60
# Behind the name of a task: it returns, and does not panic.
RETURNS = ".returns"
# Tasks that are started again, one after the other, and what /readyz says then. It tells of the task that clients
# depend on most.
STARTED_AGAIN = [
    ("keys", "[+] tasks ok (fetching the keys of an identity provider ended)"),
    ("certificate", "[+] tasks ok (reading the certificate ended)"),
    ("summary", "[+] tasks ok (the summary ended)"),
    ("internal", "[-] tasks failed (the internal port ended)"),
    ("accept", "[-] tasks failed (accepting clients ended)"),
    ("summary", "[-] tasks failed (accepting clients ended)"),
]
MEMBERSHIP = "the node's part in its cluster ended"
# Tasks that end the node, with its last words.
ENDING = {
    "shard": "shard 0 ended",
    "listener": "the task of its listener ended",
    "topic": "a topic's task panicked",
    "membership": MEMBERSHIP,
    "orders": MEMBERSHIP,
    "redis": "of the Redis engine ended",
    "link": "the task link of the Redis engine ended",
    "subscriptions": "the task subscriptions of the Redis engine ended",
    "presence": "the task presence of the Redis engine ended",
    "reaper": "the task reaper of the Redis engine ended",
    "lease": "the task lease of the Redis engine ended",
}
# The same for tasks that return. Work on a topic may.
RETURNING = {
    "shard": "shard 0 ended",
    "listener": "the task of its listener ended",
    **dict.fromkeys(("membership", "orders", "answers", "letters", "fencing", "links"), MEMBERSHIP),
    "redis": "of the Redis engine ended",
    "lease": "the task lease of the Redis engine ended",
}


class PlantedServer(Server):
    """A server whose tasks end on demand."""

    binary = PLANTED

    def spawn(self, *arguments, **named):
        self.faults = pathlib.Path(self.folder.name) / "faults"
        self.faults.mkdir()
        # A backtrace of a debug build takes 50 MB and 80 ms.
        self.variables = {VARIABLE: str(self.faults), "RUST_BACKTRACE": "0"}
        super().spawn(*arguments, **named)

    def kill_task(self, name):
        (self.faults / name).touch()


def test_no_other_binary_has_planted_faults():
    assert VARIABLE.encode() not in pathlib.Path(BINARY).read_bytes()
    if PLANTED:
        assert VARIABLE.encode() in pathlib.Path(PLANTED).read_bytes()


@needs_planted
@pytest.mark.parametrize(("how", "ends"), [("", "panic"), (RETURNS, "return")])
def test_tasks_that_are_started_again(trial, tmp_path, how, ends):
    # Nothing listens at port 9.
    keys = {"client": {"subscription_token": {"enabled": True, "jwks_url": "http://127.0.0.1:9/keys"}}}
    server = trial.serve(merge(issue(tmp_path), keys), PlantedServer, asking_health=False)
    names = [task for task, _ in STARTED_AGAIN]
    with trial.attack(f"{', '.join(sorted(set(names)))}: tasks {ends} and are started again"):
        for at, (task, words) in enumerate(STARTED_AGAIN):
            server.kill_task(task + how)
            restarts = names[: at + 1].count(task)
            until(lambda: knows(server, task, restarts, words), f"{task} is started again and /readyz says: {words}")
    until(lambda: get(f"{server.internal}/readyz").status == 200, "the node is ready again", READY_DEADLINE)


def knows(server, task, restarts, words):
    # Connections to the internal port end with the task that accepts them.
    with contextlib.suppress(OSError, http.client.HTTPException):
        answer = get(f"{server.internal}/readyz?verbose")
        status = 503 if words.startswith("[-]") else 200
        is_told = answer.status == status and words in answer.text.splitlines()
        return is_told and server.metric("fanwire_task_restarts_total", task=task) == restarts


@needs_planted
@pytest.mark.parametrize(
    ("how", "ends", "ending"), [("", "panics", ENDING), (RETURNS, "returns", RETURNING)], ids=["panics", "returns"]
)
def test_tasks_that_end_their_node(trial, how, ends, ending):
    """What is told to a node that dies is told to another one. Clients of that one notice nothing."""
    with RedisServer() as redis:
        survivor = trial.serve(on(redis))
        with trial.attack(f"{', '.join(ending)}: nodes whose task {ends} end"):
            for task, words in ending.items():
                server = trial.start(on(redis), PlantedServer)
                with RawSocket(server) as client:
                    client.connect(server)
                    server.kill_task(task + how)
                    if task == "topic":
                        # Work on a topic is a task of its own.
                        client.send_commands({"id": 2, "subscribe": {"channel": TOPIC}})
                    assert server.process.wait(DEADLINE) == 1
                assert words in server.log, f"{task}: {server.log}"
                survivor.publish(TOPIC, 1)
