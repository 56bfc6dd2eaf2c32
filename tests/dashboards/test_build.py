"""The files are what the builder writes, and Grafana finds them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import build
from dashboards.build import DASHBOARDS, FOLDER, files
from dashboards.layout import text_of
from dashboards.panels import Panel
from tests.harness import REPOSITORY

PROVISIONING = REPOSITORY / "dashboards" / "provisioning"


def test_to_build_again_changes_nothing() -> None:
    assert {path: path.read_bytes() for path in files()} == {path: text.encode() for path, text in files().items()}
    assert {path for path in FOLDER.iterdir() if path.suffix == ".json"} == set(files())


def test_a_file_that_is_not_up_to_date_is_named_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    assert build.main(["--check"]) == 1
    assert "stentor-overview.json is not up to date" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert build.main([]) == 0
    assert (tmp_path / "stentor-loadtest.json").read_text() == text_of(DASHBOARDS[1])
    (tmp_path / "stentor-loadtest.json").write_text("{}")
    assert build.main(["--check"]) == 1
    assert build.main([]) == build.main(["--check"]) == 0


@pytest.mark.parametrize("panel", [panel for each in DASHBOARDS for panel in each.panels()], ids=lambda it: it.title)
def test_a_description_says_what_to_make_of_a_panel(panel: Panel) -> None:
    text = panel.description
    assert 40 < len(text) < 400
    assert text.endswith(".")
    assert "  " not in text


def test_a_panel_that_is_pointed_at_is_there() -> None:
    """“Like this” names a panel of the same dashboard, “row X” a row."""
    for dashboard in DASHBOARDS:
        titles = {panel.title for panel in dashboard.panels()}
        for panel in dashboard.panels():
            for pointed in panel.description.split("“")[1:]:
                name = pointed.partition("”")[0]
                assert name in titles or name in NO_PANELS, f"{panel.title}: there is no {name}"


# Words between the same quotes.
NO_PANELS = {"in process", "publishing"}


def test_the_first_two_lines_are_for_the_first_glance() -> None:
    """How it goes; then whose fault it is."""
    overview: Any = json.loads((FOLDER / "stentor-overview.json").read_text())
    first = [panel["title"] for panel in overview["panels"] if panel["gridPos"]["y"] == 0]
    assert first == [
        "Connections", "Publications", "Deliveries", "Drops", "Delivery p99", "Lagging clients", "Broker", "Alerts",
    ]  # fmt: skip
    second = [panel["title"].partition(":")[0] for panel in overview["panels"] if panel["gridPos"]["y"] == 4]
    assert second == ["Server"] * 3 + ["Client"] * 2 + ["Broker"] + ["Load"] * 2
    rows = [panel["title"].partition(":")[0] for panel in overview["panels"] if panel["type"] == "row"]
    assert rows == ["Connections", "Fan-out", "Backpressure", "Latency", "Broker", "Workers", "Python runtime"]


def provisioned(name: str) -> Any:
    [file] = (PROVISIONING / name).glob("*.yml")
    content = yaml.safe_load(file.read_text())
    assert content["apiVersion"] == 1
    return content


def test_the_data_source_knows_how_often_prometheus_scrapes() -> None:
    """Else `$__rate_interval` is too short, and graphs of short ranges are empty."""
    [datasource] = provisioned("datasources")["datasources"]
    assert datasource["type"] == "prometheus"
    assert datasource["isDefault"] is True
    prometheus = yaml.safe_load((REPOSITORY / "dashboards" / "prometheus" / "prometheus.yml").read_text())
    assert datasource["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]


def test_the_provider_looks_where_the_dashboards_are_put() -> None:
    [provider] = provisioned("dashboards")["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    path = provider["options"]["path"]
    said = (REPOSITORY / "docs" / "dashboards.md").read_text()
    assert path in said


# What the document sets in italics besides panels and rows: Grafana's own words.
GRAFANA_S = {"Dashboards → New → Import", "Data source", "Job", "Instance", "All"}


def test_the_document_names_panels_that_are_there() -> None:
    text = (REPOSITORY / "docs" / "dashboards.md").read_text()
    known = GRAFANA_S | {panel.title for each in DASHBOARDS for panel in each.panels()}
    for dashboard in DASHBOARDS:
        known |= {row.title for row in dashboard.rows} | {row.title.partition(":")[0] for row in dashboard.rows}
    named = re.findall(r"(?<!\*)\*([A-Z][^*\n]{2,60})\*(?!\*)", text)
    assert len(named) > 20
    assert [name for name in named if name not in known and not name.startswith("Drawn by Stentor")] == []


def test_the_document_names_every_row() -> None:
    text = (REPOSITORY / "docs" / "dashboards.md").read_text()
    for row in DASHBOARDS[0].rows:
        assert f"| **{row.title.partition(':')[0]}**" in text
