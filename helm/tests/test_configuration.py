"""The gateway itself takes the configuration and the variables that the chart gives it."""

import os
import subprocess

from rendering import container, notes, of_kind, only, pod, render

SECRET_FOLDER = "/etc/fanwire/secret/"
CHECK_DEADLINE = 30


def check(objects, folder):
    """`fanwire check` on what a pod of these objects would read, its secrets being files of `folder`."""
    file = folder / "fanwire.yaml"
    file.write_text(only(objects, "ConfigMap")["data"]["fanwire.yaml"])
    variables = {one["name"]: one["value"] for one in container(objects).get("env", [])}
    for name, value in variables.items():
        if value.startswith(SECRET_FOLDER):
            secret = folder / value.removeprefix(SECRET_FOLDER)
            secret.write_text("a secret of some length, with a line break\n")
            variables[name] = str(secret)
    return subprocess.run(
        [os.environ["GATEWAY_BIN"], "check", file],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=CHECK_DEADLINE,
        check=False,
    )


def test_the_gateway_takes_it(objects, tmp_path):
    done = check(objects, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gateway_would_refuse_a_misspelt_key(tmp_path):
    done = check(render("--set=config.client.ping_intervall=1s"), tmp_path)
    assert done.returncode == 1
    assert "ping_intervall" in done.stdout + done.stderr


def test_a_release_called_like_the_program_is_not_disturbed_by_its_own_services(tmp_path):
    # A release `fanwire` has a Service `fanwire`, whose variables begin as the gateway's do.
    objects = render()
    service = of_kind(objects, "Service")[0]["metadata"]["name"]
    assert service == "fanwire"
    links = {"FANWIRE_SERVICE_HOST": "10.0.0.1", "FANWIRE_PORT": "tcp://10.0.0.1:80"}
    container(objects).setdefault("env", []).extend({"name": name, "value": value} for name, value in links.items())
    assert check(objects, tmp_path).returncode == 0


def test_every_secret_that_is_read_is_mounted_and_no_other():
    secret = ["--set=secret.existingSecret=mine,secret.keys.redisPassword=redis-password,secret.keys.apiKeys="]
    objects = render(*secret)
    read = {one["value"].removeprefix(SECRET_FOLDER) for one in container(objects)["env"]}
    (volume,) = [one["secret"] for one in pod(objects)["spec"]["volumes"] if "secret" in one]
    assert volume["secretName"] == "mine"
    assert {item["path"] for item in volume["items"]} == read == {"token-hmac-secret", "redis-password"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(objects)["volumeMounts"]}
    assert mounts["secret"] + "/" == SECRET_FOLDER


def test_without_a_secret_nothing_is_mounted():
    objects = render()
    assert "env" not in container(objects)
    assert [one["name"] for one in pod(objects)["spec"]["volumes"]] == ["config"]


def test_notes_tell_how_to_publish_and_what_may_not_be_meant():
    said = notes()
    for words in ("memory engine forgets", "There is no Secret", "allowed_origins is empty", "no NetworkPolicy"):
        assert words in said
    assert "/publish" not in said

    said = notes(
        "--set=secret.existingSecret=mine",
        "--set=config.engine.type=redis,config.engine.redis.address=redis:6379",
        "--set=config.client.allowed_origins={*}",
        "--set=autoscaling.enabled=true,ingress.enabled=true,serviceMonitor.enabled=true,networkPolicy.enabled=true",
    )
    for words in (
        "http://127.0.0.1:9000/api/publish",
        'allowed_origins has "*"',
        "CPU only",
        "The Ingress has no annotations",
        "serviceMonitor.enabled needs monitoring.coreos.com/v1",
    ):
        assert words in said
    for words in ("memory engine", "There is no Secret", "no NetworkPolicy"):
        assert words not in said


def test_a_certificate_is_mounted_and_taken(tmp_path):
    objects = render("--set=tls.existingSecret=mine")
    (volume,) = [one for one in pod(objects)["spec"]["volumes"] if one["name"] == "tls"]
    assert volume["secret"]["secretName"] == "mine"
    (folder,) = [one["mountPath"] for one in container(objects)["volumeMounts"] if one["name"] == "tls"]
    protocols = {one["metadata"]["name"]: one["spec"]["ports"][0]["appProtocol"] for one in of_kind(objects, "Service")}
    assert protocols == {"fanwire": "https", "fanwire-internal": "http"}
    make_certificate(tmp_path)
    file = only(objects, "ConfigMap")["data"]
    assert file["fanwire.yaml"].count(f"{folder}/tls.") == 2
    file["fanwire.yaml"] = file["fanwire.yaml"].replace(f"{folder}/", f"{tmp_path}/")
    done = check(objects, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TLS until" in done.stdout


def test_notes_name_the_protocol_that_pods_speak():
    encrypted = "--set=tls.existingSecret=mine"
    port = "--set=service.client.port=443"
    assert "to ws://fanwire.messaging/connection/websocket." in notes()
    assert "to ws://fanwire.messaging:443/connection/websocket." in notes(port)
    assert "to wss://fanwire.messaging:80/connection/websocket." in notes(encrypted)
    assert "to wss://fanwire.messaging/connection/websocket." in notes(encrypted, port)
    assert "must speak TLS as well" in notes(encrypted, "--set=ingress.enabled=true")

    # The internal port speaks plain HTTP in any case. Behind a forwarded port, no certificate has the right name.
    keys = "--set=secret.existingSecret=mine"
    for arguments, service, command in (
        ([], "fanwire-internal 9000:internal &", "curl http://127.0.0.1:9000/api/publish"),
        ([encrypted], "fanwire-internal 9000:internal &", "curl http://127.0.0.1:9000/api/publish"),
        (["--set=config.api.on=client"], "fanwire 8000:client &", "curl http://127.0.0.1:8000/api/publish"),
        (
            ["--set=config.api.on=client", encrypted],
            "fanwire 8000:client &",
            "curl --insecure https://127.0.0.1:8000/api/publish",
        ),
    ):
        said = notes(keys, *arguments)
        assert f"port-forward service/{service}" in said
        assert command in said


def make_certificate(folder):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "tls.key"]
    certificate = ["openssl", "req", "-x509", *key, "-subj", "/CN=fanwire", "-days", "30", "-out", folder / "tls.crt"]
    subprocess.run(certificate, check=True, capture_output=True, timeout=CHECK_DEADLINE)
