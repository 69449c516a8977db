"""The checker finds what is planted, names it, and is content with what is allowed."""

import pytest

from checker import (
    FAILED,
    UNKNOWN,
    Departure,
    Ended,
    History,
    Join,
    Leave,
    Publication,
    Publish,
    Snapshot,
    Subscribed,
    violations,
)

TOPIC = "open:t"
PUBLISHES = [Publish(TOPIC, f"p{offset}", "one", epoch="E", offset=offset) for offset in range(1, 6)]


def seen(*offsets):
    return [Publication(f"p{offset}", offset) for offset in offsets]


def history(*events, listener="anna", recoverable=True):
    return History(listener, TOPIC, recoverable, list(events))


def watching(*events, listener="anna"):
    """Somebody who was subscribed all the time and saw others come and go."""
    return history(Subscribed("E", 5), *events, listener=listener)


def kinds(*histories, publishes=PUBLISHES, **more):
    return sorted(violation.kind for violation in violations(publishes, histories, **more))


CLEAN = {
    "from the beginning": [Subscribed("E", 0), *seen(1, 2, 3, 4, 5)],
    "from the middle": [Subscribed("E", 3), *seen(4, 5)],
    "recovered": [Subscribed("E", 0), *seen(1, 2), Ended(1006), Subscribed("E", 4, 2, True), *seen(3, 4, 5)],
    "nothing to recover": [Subscribed("E", 0), *seen(1, 2, 3, 4, 5), Ended(3001), Subscribed("E", 5, 5, True)],
    "told of a loss": [Subscribed("E", 0), *seen(1), Ended(2500), Subscribed("E", 3, 1, False), *seen(4, 5)],
    "told of another epoch": [Subscribed("D", 9), Ended(2500), Subscribed("E", 0, 9, False), *seen(1, 2, 3, 4, 5)],
    "told, and has not come back": [Subscribed("E", 0), *seen(1, 2), Ended(3010)],
    "an own unsubscribe": [Subscribed("E", 0), *seen(1), Ended(0), Subscribed("E", 4), *seen(5)],
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_history_is_accepted(name):
    assert not violations(PUBLISHES, [history(*CLEAN[name])])


GAPS = {
    "in the middle": [Subscribed("E", 0), *seen(1, 2, 4, 5)],
    "at the beginning": [Subscribed("E", 0), *seen(2, 3, 4, 5)],
    "at the end": [Subscribed("E", 0), *seen(1, 2, 3, 4)],
    "everything": [Subscribed("E", 4)],
    "inside what was recovered": [
        *[Subscribed("E", 0), *seen(1), Ended(1006)],
        *[Subscribed("E", 4, 1, True), *seen(2, 4, 5)],
    ],
    "at the end of what was recovered": [Subscribed("E", 0), *seen(1, 2, 3), Ended(2500), Subscribed("E", 5, 3, True)],
    "behind another epoch": [Subscribed("D", 0)],
}


@pytest.mark.parametrize("name", GAPS)
def test_a_gap_nobody_told_of_is_found(name):
    assert set(kinds(history(*GAPS[name]))) == {"gap"}


def test_a_recovery_cannot_cross_epochs():
    publishes = [Publish(TOPIC, "old", "one", epoch="D", offset=1), *PUBLISHES]
    events = [Subscribed("D", 0), Publication("old", 1), Ended(1006), Subscribed("E", 5, 1, True), *seen(2, 3, 4, 5)]
    assert kinds(history(*events), publishes=publishes) == ["gap"]


def test_a_jump_of_offsets_is_no_gap():
    publishes = [*PUBLISHES, Publish(TOPIC, "later", "one", epoch="E", offset=1 << 20)]
    events = [Subscribed("E", 3), *seen(4, 5), Publication("later", 1 << 20)]
    assert not kinds(history(*events), publishes=publishes)


def test_topics_without_history_promise_no_completeness():
    publishes = [Publish(TOPIC, name, "one") for name in "abcd"]
    some = history(Subscribed(), Publication("a"), Publication("d"), recoverable=False)
    assert not kinds(some, publishes=publishes)


def test_a_duplicate_is_found():
    publishes = [Publish(TOPIC, name, "one") for name in "ab"]
    twice = history(Subscribed(), *[Publication(name) for name in "aba"], recoverable=False)
    assert kinds(twice, publishes=publishes) == ["duplicate"]
    again = history(Subscribed("E", 0), *seen(1, 2, 2, 3, 4, 5))
    assert "duplicate" in kinds(again)
    recovered = [Subscribed("E", 0), *seen(1, 2), Ended(1006), Subscribed("E", 4, 2, True), *seen(2, 3, 4, 5)]
    assert "duplicate" in kinds(history(*recovered))


def test_without_positions_a_client_that_comes_back_may_see_something_again():
    publishes = [Publish(TOPIC, name, "one") for name in "ab"]
    again = [Subscribed(), Publication("a"), Publication("b"), Ended(1006), Subscribed(), Publication("a")]
    assert not kinds(history(*again, recoverable=False), publishes=publishes)


def test_an_offset_that_goes_back_is_found():
    assert "reorder" in kinds(history(Subscribed("E", 0), *seen(1, 3, 2, 4, 5)))


def test_two_orders_are_found():
    publishes = [Publish(TOPIC, "a", "one"), Publish(TOPIC, "b", "two")]
    anna = history(Subscribed(), Publication("a"), Publication("b"), recoverable=False)
    ben = history(Subscribed(), Publication("b"), Publication("a"), listener="ben", recoverable=False)
    assert kinds(anna, ben, publishes=publishes) == ["reorder"]
    assert not kinds(anna, publishes=publishes)


def test_a_circle_of_three_orders_is_found():
    publishes = [Publish(TOPIC, name, name) for name in "abc"]
    listeners = [
        history(Subscribed(), Publication(first), Publication(second), listener=first, recoverable=False)
        for first, second in ["ab", "bc", "ca"]
    ]
    assert kinds(*listeners, publishes=publishes) == ["reorder"]


def test_an_order_that_is_not_the_publishers_is_found():
    publishes = [Publish(TOPIC, "first", "one"), Publish(TOPIC, "second", "one")]
    anna = history(Subscribed(), Publication("second"), Publication("first"), recoverable=False)
    assert kinds(anna, publishes=publishes) == ["reorder"]


def test_another_offset_than_the_acknowledged_one_is_found():
    assert "reorder" in kinds(history(Subscribed("E", 0), *seen(1, 2, 3, 4), Publication("p5", 6)))


def test_a_phantom_is_found():
    assert kinds(history(Subscribed("E", 5), Publication("never published", 6))) == ["phantom"]
    failed = [*PUBLISHES, Publish(TOPIC, "refused", "one", FAILED)]
    assert kinds(history(Subscribed("E", 5), Publication("refused", 6)), publishes=failed) == ["phantom"]


def test_what_nobody_knows_the_outcome_of_may_come_once():
    publishes = [*PUBLISHES, Publish(TOPIC, "maybe", "one", UNKNOWN)]
    assert not kinds(history(Subscribed("E", 5)), publishes=publishes)
    assert not kinds(history(Subscribed("E", 5), Publication("maybe", 6)), publishes=publishes)
    twice = history(Subscribed("E", 5), Publication("maybe", 6), Publication("maybe", 7))
    assert "duplicate" in kinds(twice, publishes=publishes)


GONE = [Departure(100.0, TOPIC, "ben")]


def test_leaves_are_said_once():
    assert not kinds(watching(Leave("ben")), departures=GONE)
    assert not kinds(watching(Join("ben"), Leave("ben"), Join("carl")), departures=GONE)
    assert kinds(watching(Leave("ben"), Leave("ben")), departures=GONE) == ["double leave"]
    assert kinds(watching(Join("ben")), departures=GONE) == ["missing leave"]
    assert kinds(watching(), departures=GONE) == ["missing leave"]
    assert kinds(watching(Leave("ben"))) == ["false leave"]
    assert not kinds(watching(Join("ben"), Join("ben")))


def test_a_leave_that_is_not_promised_may_be_missing_but_not_double():
    unheard = [Departure(100.0, TOPIC, "ben", promised=False)]
    assert not kinds(watching(), departures=unheard)
    assert not kinds(watching(Leave("ben")), departures=unheard)
    assert kinds(watching(Leave("ben"), Leave("ben")), departures=unheard) == ["double leave"]


def test_who_was_away_may_miss_a_leave():
    away = watching(Join("ben"), Ended(1006), Subscribed("E", 5, 5, True), Join("ben"), Leave("ben"))
    assert not kinds(away, departures=GONE)
    assert not kinds(watching(Ended(1006), Subscribed("E", 5, 5, True)), departures=GONE)


def test_a_client_that_subscribes_again_is_no_false_leave():
    assert not kinds(watching(Join("ben"), Leave("ben"), Join("ben")))


def test_a_ghost_is_found():
    def present(time, *clients):
        return Snapshot(time, TOPIC, frozenset(clients))

    watcher = watching(Leave("ben"))
    soon, late = present(103.9, "ben", "anna"), present(104.1, "ben", "anna")
    assert not kinds(watcher, snapshots=[present(99.0, "ben"), soon, present(200.0, "anna")], departures=GONE)
    assert kinds(watcher, snapshots=[soon, late], departures=GONE) == ["ghost"]
