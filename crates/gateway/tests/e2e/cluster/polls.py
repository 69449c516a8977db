"""Clients that poll, by `curl` in a shell and PyPI `httpx`, through proxies over three nodes: each poll reaches another
node than the one before, and clients stay members of their topics in between."""

import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from client import Client
from cluster import LEASE
from front import Haproxy, Nginx
from harness import DEADLINE, until

SETTINGS = {"subscribe": {"poll_grace": "3s"}}
# Fewer than the namespaces of these topics keep.
EACH = 60
# What docs/transports.md has, at another address. The last answer of a client that is killed is not printed in part.
LOOP = r"""
cursor= session=
field() { printf '%s' "$answer" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
poll() { curl -sf --retry 5 --noproxy '*' "$ADDRESS&cursor=$cursor&session=$session"; }
while answer=$(poll); do
  printf '%s\n' "$answer"
  next=$(field cursor) cursor=${next:-$cursor} session=$(field session)
done
"""


@pytest.fixture(params=[Nginx, Haproxy], ids=lambda proxy: proxy.program, scope="module")
def front(cluster, request):
    with cluster.front(request.param) as front:
        yield front


class Poller:
    """A client that polls, in a thread of its own, and the answers that it got."""

    def __init__(self, front, topics, token):
        self.answers, self.over = [], threading.Event()
        query = [("topic", topic) for topic in topics] + [("token", token), ("wait", "2")]
        self.address = httpx.URL(f"{front.http}/subscribe", params=query)
        self.begin()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def begin(self):
        """Prepares for the first poll."""

    def messages(self, topic):
        return [one["data"] for answer in list(self.answers) for one in answer["messages"] if one["topic"] == topic]

    def sessions(self):
        """The sessions that it has had, without the numbers of their answers."""
        return list(dict.fromkeys(answer["session"].split(".")[0] for answer in list(self.answers)))

    def recovered(self):
        """What each session after the first says of its topics."""
        begins = [answer["subscribed"] for answer in list(self.answers) if "subscribed" in answer]
        return [topic["recovered"] for topics in begins[1:] for topic in topics]


class CurlPoller(Poller):
    """A loop of `curl` in a shell."""

    def begin(self):
        environment = {"ADDRESS": str(self.address), "PATH": "/usr/bin:/bin"}
        self.shell = subprocess.Popen(["sh", "-c", LOOP], stdout=subprocess.PIPE, text=True, env=environment)

    def run(self):
        for line in self.shell.stdout:
            self.answers.append(json.loads(line))

    def stop(self):
        self.shell.kill()
        self.shell.wait()
        self.thread.join(DEADLINE)


class HttpxPoller(Poller):
    """PyPI `httpx`, with a connection that is kept."""

    def run(self):
        here = self.address
        with httpx.Client(timeout=DEADLINE, trust_env=False) as client:
            while not self.over.is_set():
                response = client.get(here)
                if response.status_code != 200:
                    continue
                self.answers.append(answer := response.json())
                more = {name: answer[name] for name in ("cursor", "session") if name in answer}
                here = here.copy_merge_params(more)

    def stop(self):
        self.over.set()
        self.thread.join(DEADLINE)


POLLERS = {"curl": CurlPoller, "httpx": HttpxPoller}


@pytest.fixture(params=POLLERS)
def new_poller(cluster, front, request):
    """Starts a client that polls these topics, which has its first answer when this returns."""
    started = []

    def new(topics):
        poller = POLLERS[request.param](front, topics, cluster.node(0).token(f"poller {len(started)}"))
        started.append(poller)
        until(lambda: poller.answers, "it has its session")
        return poller

    yield new
    for poller in started:
        poller.stop()
    until(lambda: sum(sessions(node) for node in cluster.nodes) == 0, "no session is left")


def sessions(node):
    return node.metric("fanwire_connections", protocol="poll")


def node_of_sessions(cluster):
    """The node of the only session of a client that polls."""
    return next(node for node in cluster.nodes if sessions(node) == 1)


def publish(cluster, topics, begin, end):
    for number in range(begin, end):
        for topic in topics:
            cluster.node(number % 2).publish(topic, number)


def has_all(poller, topics, count):
    return all(len(poller.messages(topic)) >= count for topic in topics)


def test_polls_get_everything_and_their_client_stays_a_member(cluster, new_poller, fresh):
    topics = [fresh("open"), fresh("plain")]
    with Client(cluster.node(0), cluster.node(0).token("watcher")) as watcher:
        watcher.subscribe(topics[0])
        poller = new_poller(topics)
        publish(cluster, topics, 0, EACH)
        until(lambda: has_all(poller, topics, EACH), "everything arrives")
        assert [poller.messages(topic) for topic in topics] == [list(range(EACH))] * 2
        # Answers came from each node, and all of them from one session.
        assert len(poller.answers) > 3
        assert len(poller.sessions()) == 1
        assert watcher.publications(topics[0], EACH) == list(range(EACH))
        assert len(watcher.of("join", topics[0])) == 2
        assert watcher.of("leave", topics[0]) == []
        poller.stop()
        assert watcher.is_told("leave")["channel"] == topics[0]


def test_the_cursor_leads_on_when_the_session_has_died_with_its_node(cluster, new_poller, fresh):
    topics = [fresh("open"), fresh("wish")]
    poller = new_poller(topics)
    publish(cluster, topics, 0, EACH // 2)
    until(lambda: has_all(poller, topics, EACH // 2), "half of it arrives")
    node = node_of_sessions(cluster)
    node.kill()
    publish_from = next(one for one in cluster.nodes if one is not node)
    for number in range(EACH // 2, EACH):
        for topic in topics:
            publish_from.publish(topic, number)
    until(lambda: has_all(poller, topics, EACH), "the other half arrives")
    assert [poller.messages(topic) for topic in topics] == [list(range(EACH))] * 2
    assert len(poller.sessions()) == 2
    assert poller.recovered() == [True, True]
    node.launch()


def poll_topics(client, node, topic, session=""):
    """A poll of `/subscribe`. Returns the answer, and the session for the next poll."""
    query = {"topic": topic, "token": node.token("waiting"), "session": session, "wait": 60 if session else 1}
    answer = client.get(f"{node.http}/subscribe", params=query)
    return answer, answer.json().get("session")


def poll_commands(client, node, topic, session=None):
    """A poll of the Centrifuge protocol, whose first one connects."""
    connect = json.dumps({"id": 1, "connect": {"token": node.token("waiting"), "subs": {topic: {}}}})
    query = {"wait": 60, **({"session": session} if session else {})}
    answer = client.post(f"{node.http}/connection/http_stream", params=query, content="" if session else connect)
    return answer, answer.headers.get("fanwire-session")


@pytest.mark.parametrize("poll", [poll_topics, poll_commands])
def test_a_poll_that_waits_elsewhere_is_told_when_the_node_of_its_session_dies(cluster, fresh, poll):
    (holder, other), topic = cluster.nodes[:2], fresh("plain")
    with httpx.Client(timeout=2 * DEADLINE, trust_env=False) as client, ThreadPoolExecutor(1) as threads:
        _, session = poll(client, holder, topic)
        calls = lambda: holder.metric("fanwire_session_calls_total", **{"from": "node"})
        before = calls()
        waiting = threads.submit(poll, client, other, topic, session)
        until(lambda: calls() > before, "its session has been asked")
        holder.kill()
        began = time.monotonic()
        answer, _ = waiting.result()
    # The lease of the node, and two seconds; the rest is what a busy machine takes.
    assert time.monotonic() - began < LEASE + 2 + 3
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
    assert "has just ended" in answer.text
    holder.launch()
