"""Every object of every example is one that Kubernetes takes, in the oldest, a middle and the newest version."""

import kubernetes_validate
import pytest

from rendering import EXAMPLES, KUBERNETES, helm, render, template, CHART

# Kinds that a cluster has only when an operator or a gateway brought them. No schema of them is at hand.
CUSTOM = {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("values", EXAMPLES, ids=lambda file: file.name.removesuffix("-values.yaml"))
def test_objects_are_valid(values, kubernetes):
    checked = 0
    for one in render("--values", values, kubernetes=kubernetes):
        if one["apiVersion"] not in CUSTOM:
            kubernetes_validate.validate(one, kubernetes, strict=True)
            checked += 1
    assert checked >= 6


def test_the_check_finds_a_misspelt_field():
    deployment = next(one for one in render() if one["kind"] == "Deployment")
    deployment["spec"]["minReadySecondz"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)


def test_an_old_kubernetes_is_refused():
    done = template(kubernetes="1.28")
    assert done.returncode != 0
    assert "kubeVersion" in done.stderr


def test_a_rendering_is_the_same_each_time():
    again = helm("template", "x", CHART).stdout
    assert again and again == helm("template", "x", CHART).stdout


def test_the_chart_can_be_packaged(tmp_path):
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    assert [file.suffix for file in tmp_path.iterdir()] == [".tgz"]
