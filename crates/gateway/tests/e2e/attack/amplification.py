"""Small requests with large answers. Memory and waits are bounded, whether the client reads or not."""

import json

from attackers import Attackers, commands, drain

LARGE = 100, 2_000_000
SMALLER = 300, 60_000
TOPIC = "wild:large"


def fill(server, count, size, topic=TOPIC):
    """Gives a topic a history of large publications."""
    publications = [{"publish": {"channel": topic, "data": "x" * size}}]
    for _ in range(count):
        server.post("/api/batch", json.dumps({"commands": publications}).encode())
    assert len(server.api("history", {"channel": topic, "limit": 1})["publications"]) == 1


def ask(attack, request, reads=True):
    """Sends commands as one client, which reads all answers or none."""
    raw = attack.websocket()
    raw.send(request)
    if reads:
        drain(raw.socket)
    attack.over.wait()


def history_commands(count):
    return commands(*({"id": 2 + at, "history": {"channel": TOPIC, "limit": 300}} for at in range(count)))


def test_16_histories_of_200_mb_by_one_client_that_does_not_read(trial):
    server = trial.serve()
    fill(server, *LARGE)
    with trial.attack("16 histories of 100 x 2 MB, one client, unread") as attack:
        attack.crowd(1, lambda: ask(attack, history_commands(16), reads=False))


def test_16_histories_of_18_mb_by_16_clients(trial):
    server = trial.serve()
    fill(server, *SMALLER)
    with trial.attack("16 histories of 300 x 60 KB, 16 clients, read") as attack:
        attack.crowd(16, lambda: ask(attack, history_commands(16), reads=True))


def test_recovery_of_200_mb_by_16_clients(trial):
    server = trial.serve()
    fill(server, *LARGE)
    epoch = server.api("history", {"channel": TOPIC})["epoch"]
    recover = {"channel": TOPIC, "recoverable": True, "recover": True, "epoch": epoch, "offset": 0}
    request = commands({"id": 2, "subscribe": recover})
    with trial.attack("recovery of 100 x 2 MB, 16 clients, read") as attack:
        attack.crowd(16, lambda: ask(attack, request, reads=True))


def test_presence_of_a_large_topic(trial):
    """300 members with 12 KB of info each are 4 MB an answer."""
    server = trial.serve()
    info = {"name": "n" * 12_000}
    presence = commands(*({"id": 2 + at, "presence": {"channel": TOPIC}} for at in range(400)))
    with Attackers(server) as crowd:
        for number in range(300):
            member = crowd.websocket(f"member{number}", info=info)
            member.send(commands({"id": 2, "subscribe": {"channel": TOPIC}}))
            member.read_reply(2)
        with trial.attack("400 presences of 4 MB, 16 clients, unread") as attack:
            attack.crowd(16, lambda: ask(attack, presence, reads=False))
