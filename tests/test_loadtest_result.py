from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest import result
from tests import loadtest_samples


def test_a_result_survives_the_file(tmp_path: Path) -> None:
    made = loadtest_samples.result()
    path = result.write(made, tmp_path / "new" / "directory")
    assert path.name == "result.json"
    assert result.read(path) == made
    assert [each.name for each in path.parent.iterdir()] == ["result.json"], "no draft is left"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "not a load test result"),
        ("{}", "not a load test result"),
        ('{"schema": 99}', "schema 99, this program reads 1"),
        ('{"schema": 1, "run": "ab12"}', "incomplete, started, ended"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(result.ResultError) as caught:
        result.read(path)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(result.ResultError, match="No such file"):
        result.read(tmp_path / "result.json")


def test_a_figure_that_json_does_not_have_is_not_written(tmp_path: Path) -> None:
    made: Any = loadtest_samples.result()
    made["latency"]["p50"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        result.write(made, tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_progress_is_a_line_at_a_time(tmp_path: Path) -> None:
    line: Any = {"phase": "connecting", "elapsed": 1.0, "connected": 3, "asked": 5, "row": None}
    result.append_progress(line, tmp_path)
    result.append_progress({**line, "phase": "done"}, tmp_path)
    lines = (tmp_path / "progress.jsonl").read_text().splitlines()
    assert [json.loads(each)["phase"] for each in lines] == ["connecting", "done"]


def test_the_directory_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STENTOR_LOADTEST_DIR", str(tmp_path))
    assert result.directory() == tmp_path
    monkeypatch.delenv("STENTOR_LOADTEST_DIR")
    assert result.directory() is None


def test_verdicts_have_exit_codes() -> None:
    assert result.EXIT_CODES == {"pass": 0, "fail": 1, "unknown": 2}
