"""New names without end. Memory is bounded, and the topics of others keep their history."""

import itertools

from attackers import commands

INNOCENT = "wild:innocent"
NAMES_IN_FRAME = 180


def visit(topic):
    """Returns the commands that make a topic and leave it."""
    subject = {"channel": topic}
    return [
        {"id": 2, "subscribe": subject},
        {"id": 3, "publish": {**subject, "data": 1}},
        {"id": 4, "unsubscribe": subject},
    ]


def test_subscribe_publish_unsubscribe_of_new_names(trial):
    server = trial.serve({"engine": {"memory": {"history_bytes_max": "16MiB"}}})
    for number in range(20):
        server.publish(INNOCENT, number)
    before = server.api("history", {"channel": INNOCENT, "limit": 100})
    numbers = itertools.count()

    def make_names():
        raw = attack.websocket()
        attack.send_and_drain(raw.socket, frames())

    def frames():
        while True:
            names = [f"wild:{next(numbers):x}" for _ in range(NAMES_IN_FRAME)]
            yield commands(*(command for name in names for command in visit(name)))

    with trial.attack("subscribe, publish, unsubscribe of new names, 8 clients") as attack:
        attack.crowd(8, make_names)
    after = server.api("history", {"channel": INNOCENT, "limit": 100})
    assert after == before, "the innocent topic lost history or epoch"
