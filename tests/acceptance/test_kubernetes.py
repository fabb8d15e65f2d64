"""deploy/kubernetes against the schemas of Kubernetes, and against dream's own settings and time-outs."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from dream.observe import metrics
from dream.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
#: The newest version whose schemas the validator has, and the oldest one that still got fixes when this was written.
VERSIONS = ["1.37", "1.34"]
#: No resources of a cluster: one file for kubectl, and one for the adapter.
OTHERS = {"kustomization.yaml", "adapter.yaml"}


class _Strict(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, as kubectl does; PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), (node.start_mark, keys)
        return super().construct_mapping(node, deep)


def _resources() -> Iterator[dict[str, Any]]:
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.name not in OTHERS:
            yield from yaml.load_all(path.read_text(), _Strict)


RESOURCES = list(_resources())
PODS = {
    each["metadata"]["name"]: each["spec"]["template"] for each in RESOURCES if each["kind"] in {"Deployment", "Job"}
}
SETTINGS = next(each["data"] for each in RESOURCES if each["kind"] == "ConfigMap")


def _named(kind: str, name: str) -> dict[str, Any]:
    return next(each for each in RESOURCES if (each["kind"], each["metadata"]["name"]) == (kind, name))


def _container(name: str) -> dict[str, Any]:
    [container] = PODS[name]["spec"]["containers"]
    return container  # type: ignore[no-any-return]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_each_resource_fits_the_schema_of_kubernetes(resource: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def test_the_schema_refuses_a_misspelt_field() -> None:
    wrong = copy.deepcopy(_named("Deployment", "dream-worker"))
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 60
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_there_is_what_a_site_needs() -> None:
    found = {(each["kind"], each["metadata"]["name"]) for each in RESOURCES}
    assert found == {
        ("ConfigMap", "dream-settings"),
        ("Job", "dream-migrate"),
        ("Deployment", "dream-worker"),
        ("HorizontalPodAutoscaler", "dream-worker"),
        ("PodDisruptionBudget", "dream-worker"),
        ("Deployment", "dream-scheduler"),
        ("Deployment", "dream-gateway"),
        ("PodDisruptionBudget", "dream-gateway"),
        ("Service", "dream-gateway"),
        ("Ingress", "dream-gateway"),
    }
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert {*kustomization["resources"], "migrate.yaml"} | OTHERS == {path.name for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_no_root_and_can_write_to_tmp_alone(name: str) -> None:
    spec, container = PODS[name]["spec"], _container(name)
    image_user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE)
    assert image_user
    who = spec["securityContext"]
    assert (who["runAsNonRoot"], who["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert [str(who["runAsUser"]), str(who["runAsGroup"])] == list(image_user.groups())
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", PODS)
def test_a_pod_gets_dreams_settings_and_no_variable_of_kubernetes_own(name: str) -> None:
    """A Service called `dream` would set DREAM_PORT=tcp://… in each pod of its namespace."""
    container = _container(name)
    assert PODS[name]["spec"]["enableServiceLinks"] is False
    known = {f"DREAM_{field}".upper() for field in Settings.model_fields} | {"DREAM_SECRETS_DIR"}
    assert {each["name"] for each in container.get("env", ())} | set(SETTINGS) <= known
    assert container["envFrom"] == [{"configMapRef": {"name": "dream-settings"}}]
    [secrets] = [each for each in container["volumeMounts"] if each["name"] == "secrets"]
    assert secrets["mountPath"] == SETTINGS["DREAM_SECRETS_DIR"]
    assert container["args"] == [name.removeprefix("dream-")]


def test_a_worker_gets_its_time_to_stop_and_a_pool_of_its_processors() -> None:
    """dream counts the processors of the node: without the setting 64 of them would mean 64 processes of a pool."""
    container = _container("dream-worker")
    grace_s = PODS["dream-worker"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= Settings.model_fields["shutdown_timeout_s"].default + 15
    pool = next(each["value"] for each in container["env"] if each["name"] == "DREAM_POOL_SIZE")
    assert pool == container["resources"]["requests"]["cpu"]


@pytest.mark.parametrize("name", ["dream-worker", "dream-scheduler"])
def test_a_part_without_a_port_is_probed_as_in_the_image(name: str) -> None:
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    check = json.loads(dockerfile.split("HEALTHCHECK")[1].partition(" CMD ")[2].splitlines()[0])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert _container(name)[probe]["exec"]["command"][:2] == check[:2]
        assert _container(name)[probe]["exec"]["command"][2].replace('"', "'") == check[2].replace('"', "'")


def test_a_gateway_is_probed_by_its_own_addresses() -> None:
    container = _container("dream-gateway")
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert paths == {"readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert {"name": "http", "containerPort": Settings.model_fields["port"].default} in container["ports"]


def test_selectors_find_their_pods() -> None:
    for each in RESOURCES:
        selector = each["spec"].get("selector") if "spec" in each else None
        if selector is None or each["kind"] == "Job":
            continue
        labels = selector.get("matchLabels", selector)
        assert labels.items() <= PODS[each["metadata"]["name"]]["metadata"]["labels"].items()


def test_the_ingress_takes_bodies_as_large_as_nginx_does_and_leads_to_the_gateway() -> None:
    ingress = _named("Ingress", "dream-gateway")
    nginx = (ROOT / "deploy/nginx/dream.conf").read_text()
    size = re.search(r"client_max_body_size (\w+);", nginx)
    assert size
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == size[1]
    [path] = ingress["spec"]["rules"][0]["http"]["paths"]
    service = _named(*("Service", path["backend"]["service"]["name"]))
    assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] == _container("dream-gateway")["ports"][0]["name"]


@pytest.mark.parametrize("name", ["dream-worker", "dream-scheduler", "dream-gateway"])
def test_prometheus_finds_the_metrics_of_each_pod(name: str) -> None:
    port = SETTINGS["DREAM_METRICS_PORT"]
    assert PODS[name]["metadata"]["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": port}
    assert {"name": "metrics", "containerPort": int(port)} in _container(name)["ports"]


def test_the_number_of_workers_follows_a_metric_that_dream_has_and_the_adapter_knows() -> None:
    [metric] = _named("HorizontalPodAutoscaler", "dream-worker")["spec"]["metrics"]
    [rule] = yaml.safe_load((FOLDER / "adapter.yaml").read_text())["rules"]["external"]
    assert {metric["external"]["metric"]["name"], rule["name"]["as"], rule["seriesQuery"]} == {
        metrics.QUEUE_OLDEST.name
    }
    assert "replicas" not in _named("Deployment", "dream-worker")["spec"]
