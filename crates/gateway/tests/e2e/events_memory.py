"""The events of a node without Redis, as its webhook gets them: in order, after refusals, and at its end."""

import collections
import contextlib

from events_webhook import GONE, HEADER, PREVIOUS_SECRET, SECRET, receiver  # noqa: F401, a fixture
from harness import Server, until
from lifecycle import EVERY_CLIENT, EVERY_TOPIC, Client


@contextlib.contextmanager
def node(url, **events):
    webhook = {
        "url": url,
        "attempts_max": 1,
        "signature_secret": SECRET,
        "signature_previous_secret": PREVIOUS_SECRET,
        "static_headers": {"Authorization": HEADER},
    }
    settings = {
        "client": {"events": EVERY_CLIENT},
        "events": {"deliver": "webhook", "offline_delay": "1s", "webhook": webhook, **events},
        "topics": {"namespaces": [{"name": "room", "allow_subscribe_for_client": True, "events": EVERY_TOPIC}]},
    }
    with Server(settings) as server:
        yield server


def until_topic(receiver, topic, expected):
    def told():
        events = [e for e in list(receiver.events.values()) if e.get("topic") == topic]
        return [f"{e['event']} {e['user']}" if "user" in e else e["event"] for e in events]

    until(lambda: told() == expected, f"{topic}: {expected}")


def test_a_visit_is_told_in_order(receiver):
    with node(receiver.url) as server:
        assert server.log.count("lost when the node stops") == 1
        ann = Client(server, "ann")
        receiver.until_user("ann", ["user_online", "connected"])
        ann.ask(subscribe={"channel": "room:t"})
        until_topic(receiver, "room:t", ["topic_occupied", "subscribed ann"])
        ann.ask(unsubscribe={"channel": "room:t"})
        until_topic(receiver, "room:t", ["topic_occupied", "subscribed ann", "unsubscribed ann", "topic_vacated"])
        ann.close()
        receiver.until_user("ann", GONE)
        events = list(receiver.events.values())
        assert [e["reason"] for e in events if "reason" in e] == [
            {"code": 0, "text": "client unsubscribed"},
            {"code": 3000, "text": "connection closed"},
        ]
        assert (len(events), receiver.repeats) == (8, 0)
        assert events[1]["time"] >= events[0]["time"] > 1_700_000_000_000


def test_who_is_soon_back_was_not_away_and_other_tabs_count(receiver):
    with node(receiver.url) as server:
        first, second = Client(server, "ann"), Client(server, "ann")
        first.close()
        second.close()
        for _ in range(2):
            Client(server, "ann").close()
        until(lambda: "user_offline" in receiver.of_user("ann"), "ann is offline")
        events = receiver.of_user("ann")
        assert (events[0], events[-1]) == ("user_online", "user_offline")
        assert collections.Counter(events) == {"user_online": 1, "connected": 4, "disconnected": 4, "user_offline": 1}


def test_what_is_refused_waits_in_order(receiver):
    users = [f"user{number}" for number in range(20)]
    with node(receiver.url) as server:
        receiver.judge = lambda events: 503
        clients = [Client(server, user) for user in users]
        for client in clients:
            client.ask(subscribe={"channel": "room:t"})
        until(lambda: len(receiver.requests) > 2, "it is told and told again")
        assert receiver.events == {}
        receiver.judge = lambda events: 204
        for user in users:
            receiver.until_user(user, ["user_online", "connected"])
        until_topic(receiver, "room:t", ["topic_occupied", *(f"subscribed {user}" for user in users)])
        for client in clients:
            client.close()
        receiver.until_user(users[0], GONE)
        receiver.until_empty([server])


def test_a_poisoned_event_becomes_a_dead_letter_that_can_be_posted_again(receiver):
    with node(receiver.url) as server:
        receiver.judge = lambda events: 422 if any(e.get("user") == "poison" for e in events) else 204
        Client(server, "poison").close()
        Client(server, "ann").close()
        receiver.until_user("ann", GONE)
        letters = lambda: [letter["event"]["event"] for letter in server.api("dead_letters")["letters"]]
        until(lambda: letters() == GONE, "all of them are dead letters", 40)
        receiver.judge = lambda events: 204
        assert server.api("dead_letters_retry", {"all": True}) == {"count": 4}
        receiver.until_user("poison", GONE)
        assert letters() == []


def test_beyond_their_bytes_the_oldest_are_dropped_and_counted(receiver):
    with node(receiver.url, memory_bytes_max="64KiB") as server:
        receiver.judge = lambda events: 503
        clients = [Client(server, f"user{number}") for number in range(200)]
        until(lambda: server.metric("fanwire_events_dropped_total") > 100, "the dropped ones are counted")
        receiver.judge = lambda events: 204
        clients.append(Client(server, "late"))
        until(lambda: receiver.of_user("user199")[:2] == receiver.of_user("late")[:2] == GONE[:2], "the last are told")
        # Those who do not answer pings leave, and are told of.
        assert "connected" not in receiver.of_user("user0")
        for client in clients:
            client.close()


def test_a_node_that_stops_tells_what_it_has(receiver):
    with node(receiver.url, offline_delay="1h") as server:
        Client(server, "gone").close()
        Client(server, "ann")
        receiver.until_user("ann", GONE[:2])
        assert server.stop() == 0
        assert receiver.of_user("ann") == receiver.of_user("gone") == GONE
        last = [e for e in receiver.events.values() if e["event"] == "disconnected" and e["user"] == "ann"]
        assert [e["reason"] for e in last] == [{"code": 3001, "text": "shutdown"}]
