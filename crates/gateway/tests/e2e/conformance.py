"""Autobahn's WebSocket cases by PyPI `kosoku` against the echo route, directly and through nginx."""

import asyncio
import collections
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import kosoku
import pytest

from harness import Server, free_port, get, until

CASES = 301
COMPRESSION = ["12.*", "13.*"]
# Of the 18 sizes in which each group sends a thousand messages: short ones, long ones, and fragments. All of them take
# ten minutes and say the same.
COMPRESSION_SIZES = [1, 3, 4, 6, 7, 11, 16]
COMPRESSION_GROUPS = ["12.1", "12.2", "12.3", "12.4", "12.5"] + [f"13.{group}" for group in range(1, 8)]
ECHO = "/echo"

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{target};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
            proxy_buffering off;
            proxy_read_timeout 60s;
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def server():
    # Group 9 sends messages of up to 16 MiB, which must come back whole.
    settings = {
        "websocket": {"echo_path": ECHO, "message_bytes_max": "32MiB"},
        "client": {"queue_bytes_max": "64MiB"},
    }
    with Server(settings) as server:
        yield server


@pytest.fixture(scope="module")
def compressing():
    settings = {
        "websocket": {
            "echo_path": ECHO,
            "message_bytes_max": "32MiB",
            "deflate": {"enabled": True, "min_bytes": "1B"},
        },
        "client": {"queue_bytes_max": "64MiB"},
    }
    with Server(settings) as server:
        yield server


@contextlib.contextmanager
def nginx(target):
    """nginx in front of a port, with its own folder and port; gives the port."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert program, "nginx is not installed"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="fanwire-nginx-") as folder:
        config = pathlib.Path(folder) / "nginx.conf"
        # Started by root, the workers would be of the user nobody, who may not write into the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(NGINX.format(folder=folder, port=port, target=target, user=user))
        process = subprocess.Popen([program, "-p", folder, "-c", str(config)])
        try:
            def answers():
                with contextlib.suppress(OSError):
                    return get(f"http://127.0.0.1:{port}/").status in (200, 404)

            until(answers, "nginx answers")
            yield port
        finally:
            process.terminate()
            process.wait(20)


def run_cases(port, included, excluded, count):
    """Runs the cases; the first of any that failed are told with what was expected and seen."""
    address = f"ws://127.0.0.1:{port}{ECHO}"
    try:
        results = asyncio.run(kosoku.run_fuzzingclient(address, included, excluded, concurrency=2))
    except kosoku.FailureError as failure:
        results = failure.results
        print(failure)
    behaviors = collections.Counter(result.behavior.value for result in results)
    closes = collections.Counter(result.behavior_close.value for result in results)
    print(f"{len(results)} cases: {dict(behaviors)}, closing: {dict(closes)}")
    fine = {"OK", "NON-STRICT", "INFORMATIONAL"}
    bad = [
        (result.case_id, result.behavior.value, result.behavior_close.value, result.result)
        for result in results
        if result.behavior.value not in fine or result.behavior_close.value not in fine
    ]
    assert bad == []
    assert len(results) == count


def test_every_case_directly(server):
    run_cases(server.port, None, COMPRESSION, CASES)


def test_every_case_through_nginx(server):
    with nginx(server.port) as port:
        run_cases(port, None, COMPRESSION, CASES)


def metric(server, name):
    lines = get(f"http://127.0.0.1:{server.internal_port}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def mend_kosoku():
    """Kosoku 0.1.0 hands its cases 12 and 13 a message that came uncompressed as a str, where they expect bytes: text as
    it is, anything else as Latin-1."""
    cases = sys.modules["case12_x_x"]
    for case in cases.Case12_X_X + cases.Case13_X_X:
        def on_message(self, message, binary, judge=case.onMessage):
            if isinstance(message, str):
                message = message.encode("latin-1" if binary else "utf-8")
            judge(self, message, binary)

        case.onMessage = on_message


def test_compression(compressing):
    # Cases are loaded with the first run.
    run_cases(compressing.port, ["1.1.1"], None, 1)
    mend_kosoku()
    included = [f"{group}.{size}" for group in COMPRESSION_GROUPS for size in COMPRESSION_SIZES]
    run_cases(compressing.port, included, None, len(included))
    # Also those that ask for a window of half a kilobyte got it.
    assert metric(compressing, "fanwire_compression_output_bytes_total") > 1_000_000


def test_every_case_that_is_not_about_it_with_compression(compressing):
    run_cases(compressing.port, None, COMPRESSION, CASES)
