"""`GET /subscribe` by clients without a library of ours: PyPI `httpx-sse`, `httpx` and `curl -N`."""

import contextlib
import itertools
import json
import subprocess
import uuid

import httpx
import pytest
from httpx_sse import connect_sse

from harness import DEADLINE, Server, until

TOPICS = 3
# Fewer than the namespaces of these topics keep.
EACH = 40


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture
def topics():
    return [f"{namespace}:{uuid.uuid4().hex[:12]}" for namespace in ["open", "wish", "open"]]


@pytest.fixture
def client():
    with httpx.Client(timeout=DEADLINE, trust_env=False) as client:
        yield client


def query(server, topics, **more):
    return [("topic", topic) for topic in topics] + [("token", server.token("reader")), *more.items()]


def publish(server, topics, numbers):
    for number in numbers:
        for topic in topics:
            server.publish(topic, number)


def check_complete(received, topics):
    for topic in topics:
        assert [data for of, data in received if of == topic] == list(range(1, EACH + 1)), topic


def events(client, server, topics, cursor):
    """Yields the messages and their cursors as Server-Sent Events bring them."""
    headers = {"Last-Event-ID": cursor} if cursor else {}
    params = query(server, topics)
    with connect_sse(client, "GET", f"{server.http}/subscribe", params=params, headers=headers) as source:
        # A block that says only when to come back has no data.
        for event in filter(lambda event: event.data, source.iter_sse()):
            message = json.loads(event.data)
            assert (event.event == "subscribed") == ("subscribed" in message)
            yield message, event.id


def lines(client, server, topics, cursor):
    """The same as lines of JSON."""
    params = query(server, topics, **({"cursor": cursor} if cursor else {}))
    headers = {"Accept": "application/x-ndjson"}
    with client.stream("GET", f"{server.http}/subscribe", params=params, headers=headers) as stream:
        assert stream.status_code == 200
        for line in filter(None, stream.iter_lines()):
            message = json.loads(line)
            yield message, message["cursor"]


def read(messages, count):
    """Reads so many publications, and leaves in the middle of the stream."""
    received, recovered = [], None
    with contextlib.closing(messages):
        for message, cursor in messages:
            if "subscribed" in message:
                recovered = [topic.get("recovered") for topic in message["subscribed"]]
            else:
                received.append((message["topic"], message["data"]))
            if len(received) == count:
                break
    return received, cursor, recovered


@pytest.mark.parametrize("readers", [[events], [lines], [events, lines]])
def test_a_reader_that_leaves_and_comes_back_gets_everything_once(server, client, topics, readers):
    received, cursor, recovered = read(readers[0](client, server, topics, None), 0)
    assert (received, recovered) == ([], [None] * TOPICS)
    publish(server, topics, range(1, EACH + 1))
    for turn in itertools.count():
        left = TOPICS * EACH - len(received)
        if left == 0:
            break
        messages = readers[turn % len(readers)](client, server, topics, cursor)
        more, cursor, recovered = read(messages, min(left, 7 + turn))
        assert recovered == [True] * TOPICS
        received += more
    check_complete(received, topics)


def curl(server, topics, *arguments):
    address = str(httpx.URL(f"{server.http}/subscribe", params=query(server, topics)))
    options = ["--silent", "--no-buffer", "--noproxy", "*", "--max-time", str(DEADLINE)]
    return subprocess.Popen(["curl", *options, *arguments, address], stdout=subprocess.PIPE, text=True)


def line_of(running):
    line = running.stdout.readline()
    assert line, "curl has ended"
    return line


@pytest.mark.parametrize("accepted", ["text/event-stream", "application/x-ndjson"])
def test_curl_prints_each_message_as_it_comes(server, topics, accepted):
    running = curl(server, topics, "--header", f"Accept: {accepted}")
    try:
        beginning = ""
        while "subscribed" not in beginning:
            beginning = line_of(running)
        received = []
        for number in range(1, EACH + 1):
            publish(server, topics, [number])
            while len(received) < TOPICS * number:
                line = line_of(running).strip().removeprefix("data: ")
                if line.startswith("{") and '"topic"' in line and '"subscribed"' not in line:
                    message = json.loads(line)
                    received.append((message["topic"], message["data"]))
        check_complete(received, topics)
    finally:
        running.kill()
        running.wait()
    until(lambda: not server.api("presence", {"channel": topics[0]})["presence"], "the reader has gone")


def test_a_cursor_that_is_none_is_refused_in_words(server, client, topics):
    answer = client.get(f"{server.http}/subscribe", params=query(server, topics, cursor="nonsense!"))
    message = "cursor: send one as an answer of this server had it"
    assert (answer.status_code, answer.json()) == (400, {"error": {"code": 107, "message": message}})
