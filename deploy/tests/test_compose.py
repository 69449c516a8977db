"""The parts of the cluster that compose.yaml starts fit together, and the gateway takes their configuration."""

import ipaddress
import os
import pathlib
import re
import subprocess
import tomllib

import yaml

FOLDER = pathlib.Path(__file__).resolve().parent.parent
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SETTINGS = tomllib.loads((FOLDER / "fanwire.toml").read_text())
CHECK_DEADLINE = 30


def nodes():
    return {name: service for name, service in COMPOSE["services"].items() if name.startswith("fanwire-")}


def seconds(text):
    return int(text.removesuffix("s"))


def test_the_gateway_takes_the_configuration():
    # Every variable that the nodes get, with some value.
    variables = dict.fromkeys(nodes()["fanwire-1"]["environment"], "some-secret-for-a-test")
    assert len(variables) == 2
    done = subprocess.run(
        [os.environ["GATEWAY_BIN"], "check", FOLDER / "fanwire.toml"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=CHECK_DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_three_nodes_which_nginx_knows():
    upstream = (FOLDER / "nginx/upstream.conf").read_text()
    assert sorted(nodes()) == sorted(re.findall(r"server (fanwire-\d):8000", upstream)) == [
        "fanwire-1",
        "fanwire-2",
        "fanwire-3",
    ]
    for name, node in nodes().items():
        assert node["hostname"] == name


def test_nodes_trust_nginx_to_name_clients():
    address = COMPOSE["services"]["nginx"]["networks"]["clients"]["ipv4_address"]
    assert SETTINGS["server"]["trusted_proxies"] == [address]
    (network,) = COMPOSE["networks"]["clients"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(network["subnet"])
    # Nodes are given addresses before nginx starts.
    assert ipaddress.ip_address(address) not in ipaddress.ip_network(network["ip_range"])


def test_nodes_have_the_time_to_send_their_clients_away():
    needed = sum(seconds(SETTINGS["shutdown"][part]) for part in ("propagation", "window", "timeout"))
    for node in nodes().values():
        assert seconds(node["stop_grace_period"]) > needed


def test_files_that_are_mounted_exist():
    mounted = [
        volume.partition(":")[0]
        for service in COMPOSE["services"].values()
        for volume in service["volumes"]
        if volume.startswith("./")
    ]
    assert len(mounted) == 6
    for file in mounted:
        assert (FOLDER / file).is_file(), file


def test_only_nginx_is_open_to_others():
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert name == "nginx" or port.startswith("127.0.0.1:"), f"{name}: {port}"
    assert "ports" not in COMPOSE["services"]["redis"]
    assert SETTINGS["api"]["on"] == "internal"


def test_redis_keeps_what_it_was_given():
    command = COMPOSE["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    host, _, port = SETTINGS["engine"]["redis"]["address"].partition(":")
    assert host in COMPOSE["services"] and port == "6379"
