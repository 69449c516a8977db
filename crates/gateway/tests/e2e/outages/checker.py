"""Finds what a cluster must never do in the record of one run: every publish, and what each client saw, in order.

Pure: it knows neither servers nor clocks, only the record. A client may miss what nobody promised (topics without
history), and what it was told it missed: a resubscription that says `recovered: false`. Everything else that is
missing, twice, out of order or invented is a violation. Positions may jump, so an acknowledged publication is what
tells a gap, not a hole in the numbers."""

import graphlib
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

ACKNOWLEDGED, FAILED, UNKNOWN = "acknowledged", "failed", "unknown"


class Publish(NamedTuple):
    """One publish, in the order in which publishes were answered. Of an UNKNOWN one nobody knows whether it was done:
    it may appear, at most once. A FAILED one may not."""

    topic: str
    payload: str
    publisher: str
    outcome: str = ACKNOWLEDGED
    epoch: str = ""
    offset: int = 0


class Subscribed(NamedTuple):
    """A subscription was made. `asked` is the offset that it was to be recovered from, None if from nowhere; what was
    recovered follows as publications."""

    epoch: str = ""
    offset: int = 0
    asked: int | None = None
    recovered: bool = False


class Publication(NamedTuple):
    payload: str
    offset: int = 0


class Ended(NamedTuple):
    """The subscription, or the connection under it, has ended."""

    code: int


class Join(NamedTuple):
    client: str


class Leave(NamedTuple):
    client: str


@dataclass
class History:
    """What one listener saw of one topic."""

    listener: str
    topic: str
    recoverable: bool = False
    events: list = field(default_factory=list)

    def sequences(self):
        """The publications of which none may come again or before another: all of them where there are positions, and
        otherwise those between two ends, since who comes back elsewhere may find a node that is still behind."""
        sequences = [[]]
        for event in self.events:
            if isinstance(event, Publication):
                sequences[-1].append(event)
            elif isinstance(event, Ended) and not self.recoverable:
                sequences.append([])
        return sequences


class Snapshot(NamedTuple):
    """Who was present at that time, as somebody was told."""

    time: float
    topic: str
    clients: frozenset


class Departure(NamedTuple):
    """A client that was subscribed to the topic has gone for good at that time. Leaves are said once and kept nowhere,
    so nobody can rely on one that is not `promised`: it was said while somebody's node was cut off."""

    time: float
    topic: str
    client: str
    promised: bool = True


class Violation(NamedTuple):
    kind: str
    what: str


def violations(publishes, histories, snapshots=(), departures=(), ghost_seconds=4.0):
    """Everything that is wrong with the run. `ghost_seconds` is how long who has gone may still be present."""
    found = []
    topics = defaultdict(list)
    for publish in publishes:
        topics[publish.topic].append(publish)
    for history in histories:
        published = topics[history.topic]
        found += phantoms_and_duplicates(published, history)
        if history.recoverable:
            found += gaps(published, history)
    for topic in {history.topic for history in histories}:
        of_topic = [history for history in histories if history.topic == topic]
        found += reorders(topic, topics[topic], of_topic)
        gone = {departure.client: departure.promised for departure in departures if departure.topic == topic}
        for history in of_topic:
            found += wrong_joins_and_leaves(history, gone)
    return [*found, *ghosts(snapshots, departures, ghost_seconds)]


def phantoms_and_duplicates(published, history):
    outcomes = {publish.payload: publish.outcome for publish in published}
    for sequence in history.sequences():
        for payload, times in Counter(publication.payload for publication in sequence).items():
            where = f"{payload} on {history.topic} at {history.listener}"
            if outcomes.get(payload, FAILED) == FAILED:
                yield Violation("phantom", f"{where} was never published")
            if times > 1:
                yield Violation("duplicate", f"{where} came {times} times")


def gaps(published, history):
    """Walks the positions of one listener: what lies between two of them and was acknowledged must have come."""
    acknowledged = [publish for publish in published if publish.outcome == ACKNOWLEDGED]
    received = {publication.payload for sequence in history.sequences() for publication in sequence}
    missed = {}
    epoch, offset, is_open = None, 0, False

    def must_have(until):
        for publish in acknowledged:
            inside = publish.epoch == epoch and offset < publish.offset and (until is None or publish.offset <= until)
            if inside and publish.payload not in received:
                missed[publish.payload] = publish.offset

    for event in history.events:
        if isinstance(event, Subscribed):
            if event.asked is not None and event.recovered:
                if event.epoch != epoch:
                    yield Violation("gap", f"{history.listener} recovered {history.topic} across epochs")
                elif event.asked > offset:
                    raise ValueError(f"{history.listener} asked for more than it had seen of {history.topic}")
                # It goes on from where it was, so what it misses is found with its next publication.
                epoch, is_open = event.epoch, True
            else:
                epoch, offset, is_open = event.epoch, event.offset, True
        elif isinstance(event, Publication):
            if event.offset <= offset:
                text = f"{history.listener} saw {history.topic} go from offset {offset} back to {event.offset}"
                yield Violation("reorder", text)
            must_have(event.offset)
            offset = max(offset, event.offset)
        elif isinstance(event, Ended):
            is_open = False
    if is_open:
        # Whoever still listens has everything, up to the very last.
        must_have(None)
        if acknowledged and acknowledged[-1].epoch != epoch:
            yield Violation("gap", f"{history.listener} listens to an epoch of {history.topic} that is over")
    for payload, at in missed.items():
        yield Violation("gap", f"{history.listener} missed {payload} (offset {at}) of {history.topic} and was not told")


def reorders(topic, published, histories):
    """There must be one order that every listener and every publisher agrees with."""
    order = graphlib.TopologicalSorter()
    sequences = [sequence for history in histories for sequence in history.sequences()]
    publishers = defaultdict(list)
    for publish in published:
        if publish.outcome == ACKNOWLEDGED:
            publishers[publish.publisher].append(publish.payload)
    # An offset belongs to one publication, whoever tells of it. Epochs are told apart by the acknowledgement.
    acknowledged = {publish.payload: publish.offset for publish in published if publish.offset}
    for history in histories:
        for publication in itertools.chain(*history.sequences()):
            offset = acknowledged.setdefault(publication.payload, publication.offset)
            if publication.offset != offset:
                text = f"{publication.payload} of {topic} has offset {offset}, and {publication.offset}"
                yield Violation("reorder", f"{text} for {history.listener}")
    payloads = [[publication.payload for publication in sequence] for sequence in sequences]
    for sequence in [*payloads, *publishers.values()]:
        # A repeated payload is a duplicate already, and would be a circle here.
        once = list(dict.fromkeys(sequence))
        for before, after in itertools.pairwise(once):
            order.add(after, before)
    try:
        order.prepare()
    except graphlib.CycleError as error:
        yield Violation("reorder", f"{topic} has no single order: {' before '.join(reversed(error.args[1][:6]))}")


def wrong_joins_and_leaves(history, gone):
    """Whoever goes is said to leave, once; `gone` says of whom that is promised. What happened while the listener was
    away is not counted."""
    where = f"{history.topic} at {history.listener}"
    is_present, was_away = {}, False
    for event in history.events:
        if isinstance(event, Ended):
            is_present, was_away = {}, True
        elif isinstance(event, Join):
            # Again is no harm: a Redis that lost its data cannot tell whose leave is to be said in between.
            is_present[event.client] = True
        elif isinstance(event, Leave):
            if is_present.get(event.client) is False:
                yield Violation("double leave", f"{event.client} left {where} again")
            is_present[event.client] = False
    for client, present in is_present.items():
        if not present and client not in gone:
            yield Violation("false leave", f"{client} was said to leave {where} and is still there")
    for client, promised in gone.items():
        if promised and is_present.get(client) is not False and not was_away:
            yield Violation("missing leave", f"{client} has gone and was not said to leave {where}")


def ghosts(snapshots, departures, ghost_seconds):
    gone = {(departure.topic, departure.client): departure.time for departure in departures}
    for snapshot in snapshots:
        for client in snapshot.clients:
            since = snapshot.time - gone.get((snapshot.topic, client), snapshot.time)
            if since > ghost_seconds:
                yield Violation("ghost", f"{client} is present in {snapshot.topic} {since:.1f} s after it has gone")
