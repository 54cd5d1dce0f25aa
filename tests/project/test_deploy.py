"""What can be checked of deploy/ without a container engine or a cluster."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.paths import ROOT
from tracker.settings import Settings, load_settings

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS = sorted(KUBERNETES.glob("*.yaml"))
NOT_OF_KUBERNETES = {"Kustomization", "ScaledObject"}  # kinds that its schemas do not have


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for _, document in documents() if document["kind"] == kind]


def tool(name: str) -> str:
    """Return the path of a program that the test extra installs; skip where it has no wheel."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing; the extra 'test' installs it")
        pytest.skip(f"{name} is not installed")
    return found


def pod_specs() -> Iterator[dict[str, Any]]:
    for document in of_kind("StatefulSet") + of_kind("Job"):
        yield document["spec"]["template"]["spec"]
    for document in of_kind("CronJob"):
        yield document["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def image_environment() -> dict[str, str]:
    text = (DEPLOY / "Dockerfile").read_text()
    return dict(re.findall(r"\b(TRACKER_[A-Z_]+)=(\S+)", text))


def image_environment_of(name: str) -> str:
    (value,) = re.findall(rf"\b{name}=(\S+)", (DEPLOY / "Dockerfile").read_text())
    return str(value)


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_dockerfile_passes_the_linter() -> None:
    done = subprocess.run(
        [tool("hadolint"), "--no-color", str(DEPLOY / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_image_runs_as_somebody_who_is_not_root() -> None:
    last_stage = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")[-1]
    assert re.search(r"^USER 10001$", last_stage, re.MULTILINE)


def test_everything_the_dockerfile_copies_exists_and_is_let_through_by_dockerignore() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", (DEPLOY / "Dockerfile").read_text(), re.M):
        copied.update(line.split()[:-1])
    assert copied == allowed
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_compose_file_follows_its_schema() -> None:
    package = importlib.metadata.distribution("check-jsonschema")
    path = package.locate_file("check_jsonschema/builtin_schemas/vendor/compose-spec.json")
    schema = json.loads(Path(str(path)).read_text())
    # Its "$schema" is written in a form that the library does not recognise: draft 7 it is.
    jsonschema_rs.Draft7Validator(schema).validate(compose())


def test_compose_file_is_understood_by_docker_where_it_is_installed() -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no 'docker' in PATH")
    known = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    if known.returncode != 0:
        pytest.skip("docker without its plug-in 'compose'")
    done = subprocess.run(
        [docker, "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_compose_file_builds_the_image_from_the_projects_root() -> None:
    build = compose()["services"]["tracker"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


@pytest.mark.xdist_group("kubernetes")  # the schemas load for seconds, in one process only
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest_follows_the_schemas_of_kubernetes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rfc3987_syntax", None)  # no grammar of URLs, for a second
    import kubernetes_validate

    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] not in NOT_OF_KUBERNETES:
            kubernetes_validate.validate(
                document, kubernetes_validate.latest_version(), strict=True
            )


def test_kustomization_lists_every_manifest_that_can_be_applied_as_it_is() -> None:
    listed = set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"])
    others = {"kustomization.yaml", "secret.example.yaml", "autoscaler.yaml"}
    assert listed == {path.name for path in MANIFESTS} - others


def test_all_settings_in_image_compose_and_manifests_are_settings_of_the_tracker() -> None:
    (config,) = of_kind("ConfigMap")
    secret, secret_files = of_kind("Secret")
    image = image_environment()
    in_cluster = load_settings(image | config["data"] | secret["stringData"])
    assert in_cluster.security_protocol == "SASL_SSL"
    files = {f"/run/secrets/tracker/{name}" for name in secret_files["stringData"]}
    assert {
        value for name, value in secret["stringData"].items() if name.endswith("_FILE")
    } == files
    assert load_settings(image | config["data"]).web_host == "0.0.0.0"
    for service in compose()["services"].values():
        environment = service.get("environment", {})
        if "KAFKA_NODE_ID" not in environment:
            load_settings(image | environment)


def test_no_pod_gets_service_links_root_or_more_rights() -> None:
    for spec in pod_specs():
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for container in spec.get("initContainers", []) + spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            assert "memory" in container["resources"]["limits"]


def test_pods_that_are_told_of_secrets_have_their_files() -> None:
    told = 0
    for spec in pod_specs():
        for container in spec["containers"]:
            names = [one.get("secretRef", {}).get("name") for one in container.get("envFrom", [])]
            if "tracker-secrets" in names:
                told += 1
                mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
                volumes = {one["name"]: one for one in spec["volumes"]}
                secret = volumes[mounts["/run/secrets/tracker"]]["secret"]
                assert secret["secretName"] == of_kind("Secret")[1]["metadata"]["name"]
    assert told == 2


def test_no_container_of_ours_can_write_to_the_image_or_gets_more_rights() -> None:
    services = compose()["services"]
    for name in ("topics", "tracker", "indexer"):
        service = services[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["tmpfs"] == ["/tmp"], name
    cache = image_environment_of("NUMBA_CACHE_DIR")
    assert all(cache in services[name]["volumes"] for name in ("tracker", "indexer"))


def test_nothing_in_image_or_pods_needs_a_shell() -> None:
    last_stage = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")[-1]
    told = re.findall(r"^\s*(?:ENTRYPOINT|CMD) (.*)$", last_stage, re.MULTILINE)
    assert len(told) == 3  # one of them of the health check
    assert all(isinstance(json.loads(words), list) for words in told)
    for spec in pod_specs():
        for container in spec.get("initContainers", []) + spec["containers"]:
            words = container.get("command", []) + container.get("args", [])
            assert words
            assert not {"sh", "bash", "/bin/sh", "-c"} & set(words)


def test_worker_has_a_volume_of_its_own_probes_and_time_to_commit() -> None:
    (stateful_set,) = of_kind("StatefulSet")
    (config,) = of_kind("ConfigMap")
    settings = load_settings(image_environment() | config["data"])
    spec = stateful_set["spec"]["template"]["spec"]
    (worker,) = spec["containers"]
    paths = {probe: worker[probe]["httpGet"]["path"] for probe in worker if probe.endswith("Probe")}
    assert paths == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert worker["ports"][0]["containerPort"] == settings.web_port
    assert spec["terminationGracePeriodSeconds"] > settings.shutdown_seconds + 5
    claims = {claim["metadata"]["name"] for claim in stateful_set["spec"]["volumeClaimTemplates"]}
    mounts = {mount["mountPath"]: mount for mount in worker["volumeMounts"]}
    assert mounts["/data"]["name"] in claims
    assert settings.data_dir.is_relative_to("/data")
    assert mounts[settings.artifacts]["readOnly"] is True


def test_kernels_are_compiled_to_a_volume_that_the_image_fills() -> None:
    (stateful_set,) = of_kind("StatefulSet")
    spec = stateful_set["spec"]["template"]["spec"]
    (worker,), (kernels,) = spec["containers"], spec["initContainers"]
    (cache,) = [one["value"] for one in worker["env"] if one["name"] == "NUMBA_CACHE_DIR"]
    mounts = {mount["mountPath"]: mount["name"] for mount in worker["volumeMounts"]}
    assert mounts[cache] == kernels["volumeMounts"][0]["name"]
    assert image_environment_of("NUMBA_CACHE_DIR") in kernels["command"][2]
    assert "/tmp" in mounts


def test_only_who_is_named_reaches_the_workers() -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind("NetworkPolicy")}
    (stateful_set,) = of_kind("StatefulSet")
    labels = stateful_set["spec"]["template"]["metadata"]["labels"]
    assert policies["tracker"]["podSelector"]["matchLabels"].items() <= labels.items()
    (rule,) = policies["tracker"]["ingress"]
    (worker,) = stateful_set["spec"]["template"]["spec"]["containers"]
    assert rule["ports"][0]["port"] == worker["ports"][0]["name"]
    assert len(rule["from"]) == 3
    assert policies["others"] == {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_workers_memory_holds_the_rows_it_may_keep() -> None:
    (stateful_set,) = of_kind("StatefulSet")
    (worker,) = stateful_set["spec"]["template"]["spec"]["containers"]
    gibibytes = int(worker["resources"]["requests"]["memory"].removesuffix("Gi"))
    rows = Settings.model_fields["state_rows"].default
    assert rows * 8 * 1024 < 0.6 * gibibytes * 2**30


def test_disruptions_and_the_headless_service_select_the_workers() -> None:
    (stateful_set,) = of_kind("StatefulSet")
    (service,) = of_kind("Service")
    (budget,) = of_kind("PodDisruptionBudget")
    labels = stateful_set["spec"]["template"]["metadata"]["labels"]
    assert stateful_set["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    for selector in (
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
        stateful_set["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


def test_autoscaler_follows_the_lag_of_the_trackers_group_up_to_its_partitions() -> None:
    (scaler,) = of_kind("ScaledObject")
    (config,) = of_kind("ConfigMap")
    (stateful_set,) = of_kind("StatefulSet")
    settings = load_settings(config["data"])
    spec = scaler["spec"]
    target = spec["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", stateful_set["metadata"]["name"])
    assert spec["minReplicaCount"] == stateful_set["spec"]["replicas"]
    assert spec["maxReplicaCount"] == settings.event_partitions
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "kafka"
    metadata = trigger["metadata"]
    assert all(isinstance(value, str) for value in metadata.values())
    assert metadata["bootstrapServers"] == settings.brokers
    assert metadata["consumerGroup"] == settings.name
    assert metadata["topic"] == f"{settings.name}-events"
