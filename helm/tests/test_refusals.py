"""What would fail later, or silently do nothing, fails when the chart is rendered, in words that name the value."""

import json

import pytest

from rendering import CHART, configuration, refusal, render

REDIS = ("--set=config.engine.type=redis", "--set=config.engine.redis.address=redis:6379")

REFUSED = {
    "misspelt value": (["--set=replicaCount=3"], "replicaCount"),
    "misspelt value further in": (["--set=image.tagg=x"], "tagg"),
    "misspelt section of the configuration": (["--set=config.clients.insecure=true"], "clients"),
    "several pods with the memory engine": (["--set=replicas=2"], "config.engine.type"),
    "autoscaling with the memory engine": (["--set=autoscaling.enabled=true"], "config.engine.type"),
    "unknown engine": (["--set=config.engine.type=nats"], "/config/engine/type"),
    "Redis without an address": (["--set=config.engine.type=redis"], "config.engine.redis.address"),
    "too little time to end": (["--set=terminationGracePeriodSeconds=60"], "Set it to 70 or more"),
    "a window that is longer than the time to end": (["--set=config.shutdown.window=5000s"], "5030 s"),
    "a time that the chart cannot add": (["--set=config.shutdown.window=1m"], "/config/shutdown/window"),
    "two limits of disruption": (["--set=podDisruptionBudget.minAvailable=1"], "exactly one"),
    "no limit of disruption": (["--set=podDisruptionBudget.maxUnavailable=null"], "exactly one"),
    "fewest pods above most": ([*REDIS, "--set=autoscaling.enabled=true,autoscaling.minReplicas=11"], "minReplicas"),
    "autoscaling by nothing": (
        [*REDIS, "--set=autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=0"],
        "needs a target",
    ),
    "a route of no Gateway": (["--set=httpRoute.enabled=true"], "httpRoute.parentRefs"),
    "a rollout that cannot go on": (["--set=rollout.maxSurge=0"], "/rollout/maxSurge"),
    "API keys for everybody to read": (["--set=config.api.keys={key}"], "secret.keys.apiKeys"),
    "a token's secret likewise": (["--set=config.client.token.hmac_secret=s"], "secret.keys.tokenHmacSecret"),
    "that of subscription tokens": (
        ["--set=config.client.subscription_token.hmac_secret=s"],
        "FANWIRE_CLIENT__SUBSCRIPTION_TOKEN__HMAC_SECRET",
    ),
    "Redis' password likewise": ([*REDIS, "--set=config.engine.redis.password=p"], "secret.keys.redisPassword"),
    "a port of the chart's own": (["--set=config.server.port=80"], "service.client.port"),
    "a certificate's place likewise": (["--set=config.server.tls.key_file=/k"], "tls.existingSecret"),
    "a wrong type": (["--set=service.client.port=http"], "/service/client/port"),
    "a wrong digest": (["--set=image.digest=sha256:abc"], "/image/digest"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(arguments, words):
    said = refusal(*arguments)
    assert words in said, said


def test_the_word_that_yaml_takes_for_a_truth_value(tmp_path):
    bare, quoted = tmp_path / "bare.yaml", tmp_path / "quoted.yaml"
    bare.write_text("config: {api: {on: both}}")
    quoted.write_text("config: {api: {'on': both}}")
    assert "in quotes" in refusal("--values", bare)
    assert configuration(render("--values", quoted))["api"] == {"on": "both"}


def test_one_second_more_than_ending_takes_is_enough():
    assert render("--set=terminationGracePeriodSeconds=70")


def test_the_schema_is_closed_wherever_it_names_properties():
    # Sections of the gateway's own configuration, which the gateway itself closes.
    open_ones = {"server", "log", "redis", "memory", "client", "websocket", "endpoint", "api", "topics"}
    found = []

    def walk(schema, path):
        if not isinstance(schema, dict):
            return
        if "properties" in schema and schema.get("additionalProperties") is not False:
            found.append(path[-1])
        for key, inner in schema.items():
            for name, one in inner.items() if isinstance(inner, dict) else []:
                walk(one, [*path, name] if key in ("properties", "definitions") else path)

    walk(json.loads((CHART / "values.schema.json").read_text()), ["values"])
    assert set(found) <= open_ones, found
