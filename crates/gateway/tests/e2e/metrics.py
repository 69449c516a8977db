"""Health, metrics and logs of a server that has seen traffic: well named, well formed, and nothing secret."""

import json
import re
import signal
import subprocess

import pytest

from harness import RawSocket, Server, frame, get, request, until

SECRET_INFO = "very-secret-connection-info"
SECRET_PAYLOAD = "very-secret-payload"
SECRET_USER = "very-secret-user"
SECRET_TOPIC = "open:very-secret-topic"


@pytest.fixture(scope="module")
def server():
    with Server({"log": {"level": "debug"}}) as server:
        traffic(server)
        yield server


def traffic(server):
    """Some of everything: clients, publications, answers, errors, refusals, closes."""
    with RawSocket(server) as raw:
        raw.send_commands({"id": 1, "connect": {"token": server.token(SECRET_USER, info=SECRET_INFO)}})
        raw.read_reply(1)
        raw.send_commands({"id": 2, "subscribe": {"channel": SECRET_TOPIC}})
        raw.read_reply(2)
        raw.send_commands({"id": 3, "publish": {"channel": SECRET_TOPIC, "data": SECRET_PAYLOAD}})
        raw.read_reply(3)
        raw.send_commands({"id": 4, "history": {"channel": "plain:x"}})
        assert raw.read_reply(4)["error"]["code"] == 108
        for number in range(10):
            server.publish(SECRET_TOPIC, [SECRET_PAYLOAD, number])
        raw.send_text("this is no JSON: " + SECRET_PAYLOAD)
        assert raw.read_close()[0] == 3501
    with RawSocket(server) as raw:
        raw.send_commands({"id": 1, "connect": {"token": server.token(SECRET_USER)[:-3]}})
        assert raw.read_close()[0] == 3500
    with RawSocket(server) as raw:
        raw.send(frame(0x1, b"{}", masked=False))
        raw.read_close()
    token = server.token(SECRET_USER)
    stream = f"{server.http}/subscribe?topic=nowhere:x&token={token}"
    assert get(stream).status == 404
    request("POST", f"{server.http}/api/publish?api_key=wrong-{server.api_key}", b"{}", {})
    server.post("/api/publish", SECRET_PAYLOAD.encode())


def test_promtool_finds_nothing_to_mend(server):
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=server.metrics(), text=True, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not checked.stderr.strip() and not checked.stdout.strip()


def test_metrics_are_named_as_ours(server):
    names = re.findall(r"^# TYPE (\S+) (\S+)$", server.metrics(), re.MULTILINE)
    assert len(names) > 10
    for name, _ in names:
        assert name.startswith(("fanwire_", "process_")), name


def test_metrics_count_what_happened(server):
    assert server.metric("fanwire_connections_opened_total") >= 3
    assert server.metric("fanwire_publications_total") >= 11
    assert server.metric("fanwire_messages_delivered_total") >= 11
    for code in (1002, 3500, 3501):
        assert server.metric("fanwire_connections_closed_total", code=code) == 1
    assert server.metric("fanwire_reply_errors_total", code=108) == 1
    until(lambda: server.metric("fanwire_connections") == 0, "the gauge of connections returns to zero")
    until(lambda: server.metric("fanwire_subscriptions") == 0, "the gauge of subscriptions returns to zero")


def test_scrapes_say_their_format(server):
    answer = get(f"{server.internal}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_no_topic_user_or_secret_is_a_label_or_a_log(server):
    token_part = server.token(SECRET_USER).split(".")[1][:20]
    secrets = [SECRET_INFO, SECRET_PAYLOAD, server.token_secret, server.api_key, token_part, "eyJ"]
    for secret in [*secrets, SECRET_USER, SECRET_TOPIC]:
        assert secret not in server.metrics(), f"{secret} is in the metrics"
    for secret in secrets:
        assert secret not in server.log, f"{secret} is in the log"


def test_logs_are_json_lines_when_they_go_to_no_terminal():
    with Server({"log": {"format": "auto"}}) as server:
        server.publish("plain:x", 1)
        lines = server.log.splitlines()
        assert lines
        for line in lines:
            entry = json.loads(line)
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", entry["timestamp"])
            assert entry["level"] in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR")


def test_the_shared_log_has_no_errors(server):
    levels = [json.loads(line)["level"] for line in server.log.splitlines()]
    assert "ERROR" not in levels, "bad input of clients is nobody's error but theirs"


def test_health(server):
    for path in ("/livez", "/readyz"):
        assert get(server.internal + path).status == 200
        assert get(server.http + path).status == 404, "health is on the internal port only"
    assert get(server.http + "/metrics").status == 404
    assert get(server.internal + "/nothing").status == 404
    assert request("POST", server.internal + "/metrics", b"", {}).status == 405


def test_shutdown_tells_clients_and_ends_well():
    with Server() as server:
        with RawSocket(server) as raw:
            raw.connect(server, "alice")
            server.process.send_signal(signal.SIGTERM)
            assert raw.read_close() == (3001, "shutdown")
        assert server.process.wait(20) == 0
