"""Compares the events of a run with what people did, and says what does not fit.

People know exactly when they asked for something, and when they were answered. What they cannot know is bounded in time:

- Whoever was answered becomes a member within `LATE`, unless its node had a fault within `SOON`: a node that is killed
  may not have written the member, nor one that is fenced. Whoever was not answered may have become a member or not.
- Whoever goes is a member no longer within `LATE`, and not before it goes. If its node has a fault meanwhile it may count
  as gone from the beginning of the fault on, and does once the node has lost its lease and another has removed its
  members: within `gone_by`.
- A fault of a node is from its kill until it is ready again, or from its stop until it goes on. That a node is fenced
  which nobody stopped, because the machine is too busy, is a fault too; nodes say in their logs whom they fenced.
- An offline is said in time if some node was well for long enough to take over the work of a dead one: by `worked_by`.

All else is exact: each member comes once and goes once, the first is preceded by online or occupied, and the last followed
by offline or vacated, unless another comes within the delay."""

import collections
from dataclasses import dataclass

# All in milliseconds. The time after which a node has written what it answered; how late that may be on a machine that does
# far too much; and how much two readings of one clock may differ.
SOON, LATE, CLOCK = 5000, 20_000, 5
# A node that reaps and dies lets another do so after this time; one that works on outboxes, after that one.
REAPING_MAX, WORKING_MAX = 5000, 17_000
# What a member and its node say when they end a membership themselves.
UNSUBSCRIBED, NODE_DIED, REFUSED, GONE = 0, 1, 2, 3000


@dataclass
class Fault:
    node: str
    kind: str
    begin: float
    end: float | None = None


@dataclass
class Words:
    join: str
    leave: str
    first: str
    last: str


OF_USER = Words("connected", "disconnected", "user_online", "user_offline")
OF_TOPIC = Words("subscribed", "unsubscribed", "topic_occupied", "topic_vacated")


class Judge:
    """`reaps` are node and time of each fencing; `delay` and `lease` in milliseconds."""

    def __init__(self, nodes, faults, reaps, delay, lease):
        self.delay, self.lease = delay, lease
        self.faults = {node: [] for node in nodes}
        for fault in faults:
            self.faults[fault.node].append(fault)
        self.reaps = collections.defaultdict(list)
        self.unasked = []
        for node, time in reaps:
            self.reaps[node].append(time)
            if not any(fault.begin <= time <= fault.end + SOON for fault in self.faults[node]):
                self.unasked.append(Fault(node, "fenced", time - lease, time))
        for fault in self.unasked:
            self.faults[fault.node].append(fault)
        for of_node in self.faults.values():
            of_node.sort(key=lambda fault: fault.begin)
        self.problems = []
        self.uncertain = self.latest = 0
        self.reasons = collections.Counter()

    def faults_between(self, node, begin, end):
        # After a stop a node needs a moment to learn that it was fenced.
        return [fault for fault in self.faults[node] if fault.begin <= end and fault.end + SOON >= begin]

    def well_for(self, length, since):
        """The time until which some node, since then, was well for that long."""

        def first(faults):
            start = since
            for fault in faults:
                if fault.begin - start >= length:
                    break
                start = max(start, fault.end)
            return start + length

        return min(first(faults) for faults in self.faults.values())

    def gone_by(self, time):
        """The members of a node that was lost at that time have been removed."""
        return self.well_for(self.lease + REAPING_MAX + SOON, time + self.lease)

    def worked_by(self, time):
        """What is due at that time has been said."""
        return self.well_for(WORKING_MAX + SOON, time)

    def judge(self, visits, events):
        """`events` are all events in the order of their first arrival."""
        users, topics = collections.defaultdict(list), collections.defaultdict(list)
        last_ids = {}
        for event in events:
            key = ("topic", event["topic"]) if "topic" in event else ("user", event["user"])
            (topics if "topic" in event else users)[key[1]].append(event)
            number = numbers(event)
            if number <= last_ids.get(key, (0, 0)):
                self.problems.append(f"{key}: {event} came after a newer one")
            last_ids[key] = number
        of_users, of_topics = collections.defaultdict(list), collections.defaultdict(list)
        for visit in visits:
            of_users[visit.user].append((visit.client, visit.spell))
            for topic, spell in visit.stays:
                of_topics[topic].append((visit.client, spell))
        for words, told, done in [(OF_USER, users, of_users), (OF_TOPIC, topics, of_topics)]:
            for name in sorted(told.keys() | done.keys()):
                before = len(self.problems)
                self.judge_states(name, words, told[name])
                self.judge_members(name, words, told[name], done[name])
                self.judge_last(name, words, told[name], done[name])
                if len(self.problems) > before:
                    self.problems.append(story(name, told[name], done[name], self.faults))

    def judge_states(self, name, words, events):
        """Of the events alone: first and last alternate, around those of members."""
        is_on, members, left, some_died = False, set(), {}, False

        def complain(event, what):
            self.problems.append(f"{name}: {event['event']} {event['id']} {event.get('client', '')}: {what}")

        for index, event in enumerate(events):
            kind, client, time = event["event"], event.get("client"), event["time"]
            if left and not members and kind in (words.join, words.last):
                due = max(left.values())
                # The members of a dead node are gone since its last heartbeat, whoever of them left after it.
                earliest = due - (self.lease / 3 if some_died else 0) - CLOCK
                if kind == words.last and time < earliest:
                    complain(event, f"{due - time:.0f} ms too early")
                if time > self.worked_by(due):
                    complain(event, f"it was to be {words.last} at {due:.0f}")
            if kind == words.first:
                follows = events[index + 1]["event"] if index + 1 < len(events) else "nothing"
                if is_on or members:
                    complain(event, "it was so already")
                if follows != words.join:
                    complain(event, f"followed by {follows}")
                is_on, left, some_died = True, {}, False
            elif kind == words.join:
                if not is_on:
                    complain(event, f"no {words.first} before it")
                if client in members:
                    complain(event, "it is a member already")
                members.add(client)
            elif kind == words.leave:
                if client not in members:
                    complain(event, "it is no member")
                members.discard(client)
                died = event["reason"]["code"] == NODE_DIED
                some_died |= died
                left[client] = time + (max(0, self.delay - self.lease) if died else self.delay)
            elif kind == words.last:
                if not is_on or members:
                    complain(event, f"members: {members}")
                is_on, left = False, {}
            else:
                complain(event, "unknown")
        if is_on or members:
            self.problems.append(f"{name}: at the end {members} are members, {'on' if is_on else 'off'}")

    def judge_members(self, name, words, events, spells):
        """Each spell of a client has a join and a leave, in time."""
        told, done, unanswered = collections.defaultdict(list), collections.defaultdict(list), []
        for event in events:
            if event["event"] == words.join:
                told[event["client"]].append([event, None])
            elif event["event"] == words.leave and told[event["client"]]:
                told[event["client"]][-1][1] = event
        for client, spell in spells:
            if client:
                done[client].append(spell)
            else:
                unanswered.append(spell)
        for client, of_client in done.items():
            pairs = told.pop(client, [])
            for spell in of_client:
                why = self.does_not_fit(words, *pairs[0], spell) if pairs else "there is no event"
                if why is None:
                    pairs.pop(0)
                else:
                    self.miss(name, words, client, spell, why)
            self.problems += [f"{name}: {join} did not happen" for join, _ in pairs]
        # These are clients of connects that were not answered.
        for join, leave in sum(told.values(), []):
            fits = [spell for spell in unanswered if self.does_not_fit(words, join, leave, spell) is None]
            if fits:
                unanswered.remove(fits[0])
            else:
                self.problems.append(f"{name}: {join} did not happen")

    def miss(self, name, words, client, spell, why):
        """A spell has no events: that may be if its node had a fault."""
        begins = spell.asked if spell.answered is None else spell.answered
        if spell.answered is None or self.faults_between(spell.node, spell.asked, begins + SOON):
            self.uncertain += 1
        else:
            self.problems.append(f"{name}: {client} on {spell.node} was {words.join} at {spell.answered:.0f}: {why}")

    def does_not_fit(self, words, join, leave, spell):
        """Why these are not the events of that spell, if they are not."""
        if leave is None:
            return f"{join['id']} has no {words.leave}"
        begun, ended, code = join["time"], leave["time"], leave["reason"]["code"]
        until = spell.answered or spell.ended
        faults = self.faults_between(spell.node, spell.asked, until + SOON)
        latest = max([until, *(fault.end for fault in faults)]) + LATE
        if not spell.asked - CLOCK <= begun <= latest:
            return f"{join['event']} {join['id']} is not within {spell.asked:.0f} and {latest:.0f}"
        faults = self.faults_between(spell.node, spell.asked, spell.ended + SOON)
        earliest, latest = spell.ended, spell.ended + LATE
        if faults:
            earliest = min(earliest, max(spell.asked, faults[0].begin))
            gone = [max(fault.end, self.gone_by(fault.begin)) for fault in faults]
            latest = max([latest, *(time + LATE for time in gone)])
        elif spell.ended_by == "error":
            earliest = spell.asked
        if not earliest - CLOCK <= ended <= latest:
            return f"{leave['event']} {leave['id']} is not within {earliest:.0f} and {latest:.0f}"
        expected = {"unsubscribe": UNSUBSCRIBED, "error": REFUSED}.get(spell.ended_by, GONE)
        if code != expected and not faults:
            return f"reason {leave['reason']} of {leave['id']}, it was {spell.ended_by}"
        fencings = [time for time in self.reaps[spell.node] if abs(ended - time) < 2 * SOON + REAPING_MAX]
        if code == NODE_DIED and not fencings and not any(fault.kind == "restart" for fault in faults):
            return f"reason {leave['reason']} of {leave['id']}, and nobody had fenced {spell.node}"
        self.reasons[code] += 1
        if not faults:
            self.latest = max(self.latest, begun - until, ended - spell.ended)
        return None

    def judge_last(self, name, words, events, spells):
        """Nobody is offline who has been there for a while, and whose node is well."""
        for event in events:
            if event["event"] != words.last:
                continue
            for client, spell in spells:
                there = spell.answered is not None and spell.answered + SOON < event["time"] < spell.ended
                if there and not self.faults_between(spell.node, spell.asked, event["time"]):
                    self.problems.append(f"{name}: {words.last} {event['id']} while {client} is on {spell.node}")


def numbers(event):
    """What grows in the ids of a user and of a topic."""
    return tuple(int(part) for part in event["id"].split("-")[-2:])


def story(name, events, spells, faults):
    """All that is known of a user or a topic, by time."""
    lines = []
    for event in events:
        reason = event.get("reason", {}).get("code", "")
        lines.append((event["time"], f"{event['id']} {event['event']} {event.get('client', '')[:8]} {reason}"))
    for client, spell in spells:
        who = f"    {(client or 'unknown')[:8]} on {spell.node}"
        lines.append((spell.asked, f"{who} asks"))
        if spell.answered:
            lines.append((spell.answered, f"{who} is answered"))
        lines.append((spell.ended, f"{who} ends by {spell.ended_by}"))
    for node, of_node in faults.items():
        for fault in of_node:
            lines.append((fault.begin, f"        {fault.kind} of {node}"))
            lines.append((fault.end, f"        {node} is back"))
    lines.sort()
    return "\n".join([f"--- {name}", *(f"{time:.0f} {line}" for time, line in lines)])
