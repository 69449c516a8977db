"""What users of npm `centrifuge` do in quick succession works through a proxy too that gives each request to the next of
three nodes: the suite of one node, with the proxy in front of a cluster."""

import json
import os
import re
import subprocess

from harness import FOLDER

SETTINGS = {"client": {"rpc_ping": {"enabled": True, "method": "ping"}}}
DEADLINE = 300


def test_every_case_of_the_suite_of_one_node(cluster, front):
    nodes = {"port": front.port, "apiPort": cluster.node(1).port}
    suite = subprocess.run(
        ["node", "--test", "--test-reporter=spec", "fallbacks.mjs"],
        cwd=FOLDER,
        env={**os.environ, "NODES": json.dumps(nodes)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    print(suite.stdout, suite.stderr)
    assert suite.returncode == 0
    passed = re.search(r"^ℹ pass (\d+)$", suite.stdout, re.MULTILINE)
    # Seven cases, each on five transports and encodings.
    assert int(passed.group(1)) == 35
