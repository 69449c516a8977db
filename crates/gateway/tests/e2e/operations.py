"""The commands of docs/operations.md work as they stand, but for the ports and the program's place."""

import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile

import harness

ROOT = harness.FOLDER.parents[3]
PAGE = (ROOT / "docs/operations.md").read_text()


def commands():
    """The page's first block of commands, on ports of this run."""
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[:1]
    ports = {port: harness.free_port() for port in dict.fromkeys(re.findall(r"\b(?:6379|[89]00\d)\b", block))}
    return re.sub(r"\b(?:6379|[89]00\d)\b", lambda found: str(ports[found[0]]), block)


def test_three_nodes_by_hand():
    script = commands()
    lines = script.strip().splitlines()
    assert len(lines) <= 10
    servers = [line for line in lines if line.endswith("&") or line.startswith("export")]
    questions = [line for line in lines if line not in servers]
    assert len(questions) == 3, lines
    with tempfile.TemporaryDirectory(prefix="fanwire-e2e-") as folder:
        (pathlib.Path(folder) / "fanwire").symlink_to(harness.BINARY)
        environment = harness.environment()
        environment["PATH"] = f"{folder}:{environment['PATH']}"
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join([*servers, "wait"])],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:

            def ask(line):
                asked = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
                return asked.stdout

            def all_ready():
                text = ask(questions[0])
                return text and len(json.loads(text).get("result", {}).get("nodes", [])) == 3

            harness.until(all_ready, "info lists three nodes", 30)
            assert json.loads(ask(questions[1]))["result"]["offset"] == 1
            assert "[+] redis ok" in ask(questions[2])
        finally:
            # All of them are in one session of their own.
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
