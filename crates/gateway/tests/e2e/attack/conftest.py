"""The fixture `trial`, and the table of all attacks at the end. ATTACK_REPORT names a file for the table."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from figures import table
from trial import Trial

rows = []


@pytest.fixture
def trial():
    """A server with bystanders for one attack. Its row goes into the table."""
    trial = Trial()
    yield trial
    trial.stop()
    rows.extend(trial.rows)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    trial = getattr(item, "funcargs", {}).get("trial")
    if report.failed and trial is not None:
        trial.show_logs()
    return report


def pytest_terminal_summary(terminalreporter):
    if not rows:
        return
    terminalreporter.section("attacks")
    text = table(rows)
    terminalreporter.write(text)
    if path := os.environ.get("ATTACK_REPORT"):
        pathlib.Path(path).write_text(text)
