"""The site of deploy/compose.yml: a valid one, whose parts know each other, and nothing open to the world."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtest.line import without
from server.config import OPTIONS
from server.config.sources import load
from tests.deploy import DEPLOY, DRAIN_TIMEOUT, REPOSITORY, documents, tool
from tests.deploy.dockerfile import stages

FILE = DEPLOY / "compose.yml"
[SITE] = documents(FILE)
SERVICES: dict[str, dict[str, Any]] = SITE["services"]


def judged(file: Path) -> subprocess.CompletedProcess[str]:
    """Hold a file against the schema of the Compose Specification."""
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", file]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_of_the_specification() -> None:
    verdict = judged(FILE)
    assert verdict.returncode == 0, verdict.stdout


def test_what_is_not_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "compose.yml"
    planted.write_text(FILE.read_text().replace("stop_grace_period:", "stop_grace_time:"))
    assert judged(planted).returncode == 1


def environment(service: str) -> dict[str, str]:
    """What is set; `${NAME:-default}` is its default, and what is only passed on is left out."""
    found = {}
    for name, value in SERVICES[service]["environment"].items():
        if value is not None:
            text = str(value)
            found[name] = text[2:-1].partition(":-")[2] if text.startswith("${") else text
    return found


def test_the_parts() -> None:
    assert set(SERVICES) == {"stentor", "redis", "prometheus", "grafana", "loadtest"}
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["loadtest"]


def test_the_server_can_be_started_with_what_it_is_told(tmp_path: Path) -> None:
    told = environment("stentor") | {"STENTOR_HOST": "0.0.0.0"}
    settings = load({}, told, tmp_path).settings
    assert settings.history_size == 100
    variables = {option.variable for option in OPTIONS.values()}
    assert {name for name in SERVICES["stentor"]["environment"] if name.startswith("STENTOR_")} <= variables


def test_there_is_time_to_drain() -> None:
    assert OPTIONS["drain_timeout"].default() == DRAIN_TIMEOUT
    assert int(SERVICES["stentor"]["stop_grace_period"].removesuffix("s")) > DRAIN_TIMEOUT


def test_nothing_is_open_to_the_world() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", SERVICES)
def test_nobody_has_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert "cap_add" not in service


def test_images_are_of_a_version() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            image, _, tag = service["image"].partition(":")
            assert tag, f"{name}: {image} has no version"
            assert tag != "latest"
        else:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert context == REPOSITORY
            names = [stage.name for stage in stages(context / service["build"]["dockerfile"])]
            assert service["build"].get("target", "") in names


def test_what_is_mounted_is_there() -> None:
    sources = []
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                sources.append(source)
                assert (DEPLOY / source).exists(), source
            else:
                assert source in SITE["volumes"], source
    assert len(sources) == 5


def test_whoever_is_waited_for_says_when_it_is_ready() -> None:
    for service in SERVICES.values():
        waited_for = service.get("depends_on", {})
        for name, terms in waited_for.items() if isinstance(waited_for, dict) else ():
            assert terms == {"condition": "service_healthy"}
            # The server's is in its image.
            assert name == "stentor" or "healthcheck" in SERVICES[name]


def test_redis_takes_the_words_that_it_is_given(tmp_path: Path) -> None:
    words = SERVICES["redis"]["command"]
    assert words[0] == "redis-server"
    # On no port at all it says at once what it does not understand, and else goes on until it is told to end.
    command = [tool("redis-server"), *words[1:], "--port", "0", "--unixsocket", str(tmp_path / "socket")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as redis:
        assert redis.stdout is not None
        said = ""
        for line in redis.stdout:
            said += line
            if "ready to accept connections" in line.lower() or "FATAL" in line:
                break
        redis.terminate()
    assert "ready to accept connections" in said.lower()


# Prometheus and Grafana


def test_prometheus_takes_its_configuration_and_the_rules(tmp_path: Path) -> None:
    """As it is mounted: the configuration beside a folder of rules."""
    shutil.copy(DEPLOY / "prometheus/prometheus.yml", tmp_path)
    shutil.copytree(REPOSITORY / "dashboards/prometheus", tmp_path / "rules")
    command = [tool("promtool"), "check", "config", tmp_path / "prometheus.yml"]
    verdict = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert verdict.stdout.count("rules found") == 2


def test_prometheus_asks_who_is_there() -> None:
    [configuration] = documents(DEPLOY / "prometheus/prometheus.yml")
    jobs = {job["job_name"]: job for job in configuration["scrape_configs"]}
    [target] = jobs["stentor"]["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert host in SERVICES
    assert int(port) == OPTIONS["internal_port"].default()
    [run] = jobs["stentor-loadtest"]["dns_sd_configs"]
    assert run["names"] == ["loadtest"]
    assert str(run["port"]) == environment("loadtest")["METRICS_PORT"]


def test_the_rules_are_the_same_as_beside_a_server() -> None:
    [here] = documents(DEPLOY / "prometheus/prometheus.yml")
    [there] = documents(REPOSITORY / "dashboards/prometheus/prometheus.yml")
    assert here["global"] == there["global"]
    assert [Path(name).name for name in here["rule_files"]] == there["rule_files"]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = REPOSITORY / "dashboards/provisioning"
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["../dashboards/provisioning/datasources"] == "/etc/grafana/provisioning/datasources"
    assert mounts["../dashboards/provisioning/dashboards"] == "/etc/grafana/provisioning/dashboards"
    [sources] = documents(provisioning / "datasources/prometheus.yml")
    told = environment("grafana")
    assert sources["datasources"][0]["url"].strip("${}") in told
    assert told["PROMETHEUS_URL"] == "http://prometheus:9090"
    [boards] = documents(provisioning / "dashboards/stentor.yml")
    folder = boards["providers"][0]["options"]["path"]
    assert mounts["../dashboards/grafana"] == folder
    home = Path(told["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (REPOSITORY / "dashboards/grafana" / home.name).is_file()


# The load test


def test_the_load_test_knows_what_it_is_told() -> None:
    told = environment("loadtest")
    assert without(told) == {}
    [image] = [stage for stage in stages(DEPLOY / "Dockerfile") if stage.name == "loadtest"]
    assert "RESULTS" in image.environment()
    assert without({"RESULTS": "", "OTHER": ""}) == {"OTHER": ""}
    assert told["URL"] == "ws://stentor:8000"
    assert told["METRICS"] == "http://stentor:9000/metrics"
