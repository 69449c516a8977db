"""A cluster for each suite of this folder, whose logs are told when a test fails."""

import pathlib
import sys
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from cluster import Cluster
from listeners import Listeners

running = []


@pytest.fixture(scope="module")
def cluster(request):
    """Three nodes; a suite's SETTINGS are merged over what all have."""
    with Cluster(settings=getattr(request.module, "SETTINGS", None)) as cluster:
        running.append(cluster)
        yield cluster
        running.remove(cluster)


@pytest.fixture(scope="module")
def front(cluster):
    """nginx in front of the cluster."""
    with cluster.front() as front:
        yield front


@pytest.fixture(scope="module")
def listeners():
    with Listeners() as listeners:
        yield listeners


@pytest.fixture
def fresh():
    """Makes names that no other test uses."""
    return lambda namespace: f"{namespace}:{uuid.uuid4().hex[:12]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for cluster in running:
            cluster.show_logs()
    return report
