"""What no schema of Kubernetes knows: how the objects of one release fit together."""

import ipaddress
import re

from rendering import CHART, configuration, container, example, of_kind, only, pod, render

DEFAULTS = (CHART.parent.parent / "docs/configuration.md").read_text()
# Sections with a path, each with its default.
PATHS = dict(re.findall(r'^\[(\w+)\]\n(?:(?!\[).*\n)*?#path = "(.+)"', DEFAULTS, re.MULTILINE))
del PATHS["api"]


def selects(selector, labels):
    return selector.items() <= labels.items()


def test_selectors_find_the_pods(objects):
    labels = pod(objects)["metadata"]["labels"]
    assert selects(only(objects, "Deployment")["spec"]["selector"]["matchLabels"], labels)
    for service in of_kind(objects, "Service"):
        assert selects(service["spec"]["selector"], labels)
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for one in of_kind(objects, kind):
            selector = one["spec"].get("selector") or one["spec"].get("podSelector")
            assert selects(selector["matchLabels"], labels)


def test_selectors_do_not_change_with_the_chart(objects):
    stable = {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    assert set(only(objects, "Deployment")["spec"]["selector"]["matchLabels"]) == stable
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(pod(objects)["metadata"]["labels"])


def test_every_named_port_exists(objects):
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    settings = configuration(objects)
    assert ports == {"client": settings["server"]["port"], "internal": settings["internal"]["port"]}
    for service in of_kind(objects, "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(objects)[probe]["httpGet"]["port"] == "internal"
    for policy in of_kind(objects, "NetworkPolicy"):
        assert {rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]} <= ports.keys()


def test_probes_ask_for_life_and_readiness(objects):
    paths = {
        probe: container(objects)[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


def test_both_ports_listen_on_all_addresses(objects):
    settings = configuration(objects)
    for section in ("server", "internal"):
        assert ipaddress.ip_address(settings[section]["address"]).is_unspecified


def test_a_pod_has_the_time_to_send_its_clients_away(objects):
    shutdown = configuration(objects)["shutdown"]
    needed = sum(int(shutdown[part].removesuffix("s")) for part in ("propagation", "window", "timeout"))
    grace = pod(objects)["spec"]["terminationGracePeriodSeconds"]
    assert grace >= needed + 10
    spec = only(objects, "Deployment")["spec"]
    assert spec["progressDeadlineSeconds"] > grace + spec["minReadySeconds"]


def test_pods_pass_the_restricted_standard(objects):
    spec = pod(objects)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert {"configMap", "secret"} >= {key for volume in spec["volumes"] for key in volume if key != "name"}
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in spec["containers"] + spec.get("initContainers", []):
        context = one["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in one["ports"])


def test_rollouts_never_leave_fewer_pods(objects):
    strategy = only(objects, "Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0
    assert strategy["rollingUpdate"]["maxSurge"] not in (0, "0%")


def test_autoscaling_alone_chooses_the_number_of_pods(objects):
    scalers = of_kind(objects, "HorizontalPodAutoscaler")
    assert ("replicas" in only(objects, "Deployment")["spec"]) != bool(scalers)
    for scaler in scalers:
        spec = scaler["spec"]
        assert spec["scaleTargetRef"]["name"] == only(objects, "Deployment")["metadata"]["name"]
        assert 1 <= spec["minReplicas"] <= spec["maxReplicas"]
        assert spec["metrics"]
        assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_a_budget_has_one_limit(objects):
    budget = only(objects, "PodDisruptionBudget")["spec"]
    assert len({"minAvailable", "maxUnavailable"} & budget.keys()) == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_only_the_paths_of_clients_are_routed():
    routed = render(
        "--set=ingress.enabled=true", "--set=httpRoute.enabled=true", "--set=httpRoute.parentRefs[0].name=public"
    )
    (rule,) = only(routed, "Ingress")["spec"]["rules"]
    assert {path["path"] for path in rule["http"]["paths"]} == set(PATHS.values())
    assert {path["pathType"] for path in rule["http"]["paths"]} == {"Exact"}
    (rule,) = only(routed, "HTTPRoute")["spec"]["rules"]
    assert {match["path"]["value"] for match in rule["matches"]} == set(PATHS.values())
    assert {match["path"]["type"] for match in rule["matches"]} == {"Exact"}
    assert rule["timeouts"] == {"request": "0s"}


def test_routes_follow_the_configuration_and_lead_to_the_service_of_clients():
    objects = example("full")
    settings = configuration(objects)
    paths = {settings.get(section, {}).get("path", path) for section, path in PATHS.items()} - {"/probe"}
    assert paths >= {"/ws", "/events"} and settings["probe"] == {"enabled": False}
    client = next(one for one in of_kind(objects, "Service") if one["metadata"]["name"] == "gateway")
    (port,) = client["spec"]["ports"]
    for rule in only(objects, "Ingress")["spec"]["rules"]:
        assert {path["path"] for path in rule["http"]["paths"]} == paths
        for path in rule["http"]["paths"]:
            assert path["backend"]["service"] == {"name": "gateway", "port": {"name": port["name"]}}
    (rule,) = only(objects, "HTTPRoute")["spec"]["rules"]
    assert {match["path"]["value"] for match in rule["matches"]} == paths
    assert rule["backendRefs"] == [{"name": "gateway", "port": port["port"]}]


def test_the_monitor_finds_the_internal_service_alone():
    objects = example("full")
    spec = only(objects, "ServiceMonitor")["spec"]
    found = [
        one
        for one in of_kind(objects, "Service")
        if selects(spec["selector"]["matchLabels"], one["metadata"]["labels"])
    ]
    (service,) = found
    (endpoint,) = spec["endpoints"]
    assert [endpoint["port"]] == [port["name"] for port in service["spec"]["ports"]]
    assert spec["namespaceSelector"]["matchNames"] == [service["metadata"]["namespace"]]


def test_the_network_policy_lets_redis_and_names_out():
    (dns, redis) = only(example("full"), "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert redis["ports"] == [{"port": 6380}]
    assert redis["to"]


def test_pods_spread_over_zones_and_hosts_among_their_own():
    constraints = pod(render())["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for one in constraints:
        assert selects(one["labelSelector"]["matchLabels"], pod(render())["metadata"]["labels"])
        assert one["whenUnsatisfiable"] == "ScheduleAnyway"


def test_a_change_of_the_configuration_replaces_the_pods_and_a_new_chart_alone_does_not():
    def annotations(*arguments):
        return pod(render(*arguments))["metadata"]["annotations"]

    assert annotations("--set=config.log.level=debug") != annotations()
    assert annotations("--set=commonLabels.a=b", "--set=commonAnnotations.a=b") == annotations()


def test_large_numbers_stay_numbers():
    (clients, *_) = only(example("full"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert clients["pods"]["target"]["averageValue"] == "1000000"
    settings = configuration(render("--set=config.server.connections_max=5000000"))
    assert settings["server"]["connections_max"] == 5_000_000
