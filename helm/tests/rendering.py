"""Renders the chart as a user of Helm would, and gives what comes out as objects."""

import functools
import os
import pathlib
import subprocess

import yaml

CHART = pathlib.Path(__file__).resolve().parent.parent / "fanwire"
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
KUBERNETES = ["1.29", "1.33", "1.37"]
RELEASE = "fanwire"
NAMESPACE = "messaging"

HELM_DEADLINE = 30


def helm(*arguments):
    """What the program answers, whether it succeeds or not."""
    return subprocess.run(
        [os.environ["HELM_BIN"], *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HELM_DEADLINE,
        check=False,
    )


@functools.cache
def template(*arguments, kubernetes=KUBERNETES[-1], release=RELEASE):
    return helm(
        "template", release, CHART, "--namespace", NAMESPACE, "--kube-version", f"{kubernetes}.0", *arguments
    )


def render(*arguments, **where):
    """The objects of a rendering that has to succeed."""
    done = template(*arguments, **where)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def example(name):
    return render("--values", CHART / "ci" / f"{name}-values.yaml")


def refusal(*arguments):
    """What Helm says of a rendering that has to fail."""
    done = template(*arguments)
    assert done.returncode != 0, f"{arguments} was rendered"
    return done.stderr


def notes(*arguments):
    """What a user reads after the installation."""
    done = helm("install", RELEASE, CHART, "--namespace", NAMESPACE, "--dry-run=client", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def only(objects, kind):
    found = of_kind(objects, kind)
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]


def pod(objects):
    return only(objects, "Deployment")["spec"]["template"]


def container(objects):
    (one,) = pod(objects)["spec"]["containers"]
    return one


def configuration(objects):
    return yaml.safe_load(only(objects, "ConfigMap")["data"]["fanwire.yaml"])
