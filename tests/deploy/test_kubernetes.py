"""The manifests: valid ones, that refer to each other rightly, with times and limits that fit the server's."""

from __future__ import annotations

import copy
import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from server.commands.doctor import examine
from server.config.sources import load
from server.doctor.finding import Verdict
from tests.deploy import DEPLOY, REPOSITORY, documents, find
from tests.deploy.dockerfile import stages
from tests.doctor.kernels import MIB, make
from tests.documents import blocks
from tests.harness import serve

FOLDER = DEPLOY / "kubernetes"
# The oldest that the manifests are for, and a recent one.
VERSIONS = ("1.30", "1.33")
LABEL = {"app.kubernetes.io/name": "stentor"}

[KUSTOMIZATION] = documents(FOLDER / "kustomization.yaml")
MANIFESTS: dict[str, dict[str, Any]] = {}
for file_name in KUSTOMIZATION["resources"]:
    [document] = documents(FOLDER / file_name)
    MANIFESTS[file_name.removesuffix(".yaml")] = document
DEPLOYMENT = MANIFESTS["deployment"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [name for name in MANIFESTS if name != "servicemonitor"])
def test_a_manifest_is_of_its_kind(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


@pytest.mark.parametrize(
    ("at", "key", "value"),
    [(POD, "terminationGracePeriod", 45), (CONTAINER["livenessProbe"], "periodSecond", 1), (POD, "hostNetwork", "no")],
)
def test_what_is_not_is_found(at: dict[str, Any], key: str, value: object) -> None:
    whole = {"deployment": DEPLOYMENT, "at": at}
    planted = copy.deepcopy(whole)
    planted["at"][key] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(planted["deployment"], VERSIONS[-1], strict=True)


def test_every_file_is_applied() -> None:
    files = {file.stem for file in FOLDER.glob("*.yaml")} - {"kustomization"}
    assert files == set(MANIFESTS)
    kinds = {manifest["kind"] for manifest in MANIFESTS.values()}
    assert kinds == {
        "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "HorizontalPodAutoscaler", "ServiceMonitor",
    }  # fmt: skip


# They know each other


def test_whoever_selects_pods_finds_them() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        MANIFESTS["service"]["spec"]["selector"],
        MANIFESTS["service-internal"]["spec"]["selector"],
        MANIFESTS["networkpolicy"]["spec"]["podSelector"]["matchLabels"],
        MANIFESTS["poddisruptionbudget"]["spec"]["selector"]["matchLabels"],
        POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector == LABEL
        assert selector.items() <= labels.items()


def test_ports_have_the_same_names_everywhere() -> None:
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    settings = load({}, {}, FOLDER).settings
    assert ports == {"public": settings.port, "internal": settings.internal_port}
    for name in ("service", "service-internal"):
        assert {port["targetPort"] for port in MANIFESTS[name]["spec"]["ports"]} <= set(ports)
    policy = MANIFESTS["networkpolicy"]["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy] == [["public"], ["internal"]]
    assert "from" in policy[1], "the internal port is not for everybody"
    assert MANIFESTS["service"]["spec"]["ports"][0]["name"] == "public"


def test_prometheus_finds_the_internal_service_and_not_the_other() -> None:
    monitor, service = MANIFESTS["servicemonitor"], MANIFESTS["service-internal"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) == {"selector", "jobLabel", "endpoints"}
    selector = monitor["spec"]["selector"]["matchLabels"]
    assert selector.items() <= service["metadata"]["labels"].items()
    assert not selector.items() <= MANIFESTS["service"]["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["path"] == "/metrics"
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "stentor"


def test_the_rules_reach_the_operator_of_prometheus_as_they_are(tmp_path: Path) -> None:
    """The command of docs/operations.md, with a kubectl that keeps what it is given."""
    page = (REPOSITORY / "docs/operations.md").read_text()
    [command] = [block.text for block in blocks(page) if block.kind == "sh" and "PrometheusRule" in block.text]
    given = tmp_path / "given.yml"
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\necho --- >>{given}\nexec cat >>{given}\n")
    kubectl.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", command], cwd=REPOSITORY, env={**os.environ, "PATH": path}, timeout=20, check=True)
    assert [(rules["kind"], rules["metadata"], rules["spec"]) for rules in documents(given)] == [
        ("PrometheusRule", {"name": f"stentor-{name}"}, *documents(REPOSITORY / f"dashboards/prometheus/{name}.yml"))
        for name in ("recording", "alerts")
    ]


def test_the_autoscaler_scales_what_is_there_by_what_is_measured() -> None:
    scaler = MANIFESTS["horizontalpodautoscaler"]["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (DEPLOYMENT["kind"], DEPLOYMENT["metadata"]["name"])
    assert "replicas" not in DEPLOYMENT["spec"], "each kubectl apply would undo what the autoscaler did"
    [metric] = scaler["metrics"]
    with serve() as server:
        assert f"{metric['pods']['metric']['name']}{{" in server.get("/metrics")[1].decode()
    settings = load({}, {}, FOLDER).settings
    aim, most = int(metric["pods"]["target"]["averageValue"]), settings.max_connections
    assert aim * scaler["minReplicas"] / (scaler["minReplicas"] - 1) <= most * 1.5
    assert aim < most


def test_configuration_and_secret_are_where_the_pod_looks_for_them() -> None:
    [generated] = KUSTOMIZATION["configMapGenerator"]
    [volume] = POD["volumes"]
    [mount] = CONTAINER["volumeMounts"]
    assert volume["configMap"]["name"] == generated["name"]
    assert mount["name"] == volume["name"]
    [name] = generated["files"]
    assert f"{mount['mountPath']}/{name}" in CONTAINER["args"]
    [secret] = [source["secretRef"]["name"] for source in CONTAINER["envFrom"]]
    assert f"create secret generic {secret} " in (FOLDER / "kustomization.yaml").read_text()
    assert [image["name"] for image in KUSTOMIZATION["images"]] == [CONTAINER["image"]]


def test_pods_can_be_told_apart_by_their_services_variables(tmp_path: Path) -> None:
    """Kubernetes would add STENTOR_PORT=tcp://…; the server knows them, but better without."""
    assert POD["enableServiceLinks"] is False
    links = {"STENTOR_SERVICE_HOST": "10.0.0.1", "STENTOR_SERVICE_PORT": "80", "STENTOR_PORT": "tcp://10.0.0.1:80"}
    assert load({}, links, tmp_path).settings.port == 8000


# Times, limits, rights


def test_there_is_time_to_drain() -> None:
    settings = load({}, {}, FOLDER).settings
    program, seconds = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    grace = POD["terminationGracePeriodSeconds"]
    assert grace >= int(seconds) + settings.drain_timeout + 5
    # And as much for each of the pods that are replaced, one after another.
    assert DEPLOYMENT["spec"]["progressDeadlineSeconds"] >= 20 * grace


def test_probes_ask_the_internal_port() -> None:
    asked = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {get["port"] for get in asked.values()} == {"internal"}
    assert [get["path"] for get in asked.values()] == ["/healthz", "/healthz", "/readyz"]
    with serve() as server:
        assert [server.get(get["path"])[0] for get in asked.values()] == [200, 200, 200]


def test_one_pod_at_a_time() -> None:
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert MANIFESTS["poddisruptionbudget"]["spec"]["maxUnavailable"] == 1


def test_a_pod_may_do_nothing_but_serve() -> None:
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert str(pod["runAsUser"]) == stages(DEPLOY / "Dockerfile")[-1].last("USER")
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["allowPrivilegeEscalation"] is False
    assert container["readOnlyRootFilesystem"] is True
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False
    for manifest in MANIFESTS.values():
        for key in ("privileged", "hostNetwork", "hostPID", "hostPath"):
            assert list(find(manifest, key)) == []


def test_what_is_let_in_fits_into_the_memory(tmp_path: Path) -> None:
    """`stentor doctor`, in a container with that limit and a usual machine around it."""
    limit = CONTAINER["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{int(limit.removesuffix('Mi')) * MIB}\n",
        "sys/fs/cgroup/memory.current": "0\n",
    }
    report = examine(load({}, {"STENTOR_API_KEY": "k"}, FOLDER), root=make(tmp_path, files))
    assert report.fits
    assert not report.is_default
    assert not [finding for finding in report.findings if finding.verdict == Verdict.BAD]
    assert "cpu" not in CONTAINER["resources"]["limits"]
