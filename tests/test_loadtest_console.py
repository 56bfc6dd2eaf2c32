"""The terminal shows the same figures to a person and to a log."""

import io
from typing import Any, cast

from rich.console import Console

from loadtest import console
from loadtest.result import Progress
from tests.loadtest_samples import of_two_nodes, result, row


def printed(*, terminal: bool) -> tuple[Console, io.StringIO]:
    """A console of a known width, and what it wrote."""
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=120, highlight=False, color_system=None), out


def progress(phase: str, t: int | None = None) -> Progress:
    second = None if t is None else row(t)
    return cast(Progress, {"phase": phase, "elapsed": 3.2, "connected": 200, "asked": 201, "row": second})


def test_a_log_gets_a_line_per_second_and_each_second_once() -> None:
    out, text = printed(terminal=False)
    with console.shown(out, 8.0) as show:
        for each in (progress("connecting"), progress("publishing", 0), progress("publishing", 0), progress("done")):
            show(each)
    lines = text.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].strip() == "3 s  connecting  200/201 clients"
    assert (
        "published/s 50  delivered/s 10 k  p50 900 µs  p99 4.2 ms  worst 9 ms  server 41 %  generator 32 %" in lines[1]
    )
    assert lines[2].strip() == "3 s  publishing  200/201 clients"


def test_a_long_line_is_not_folded_into_two() -> None:
    out, text = printed(terminal=False)
    second: Any = progress("publishing", 4)
    second["row"] |= {"dropped": 7, "lagging_clients": 3, "queue_bytes": 5}
    with console.shown(out, None) as show:
        show(second)
    (line,) = text.getvalue().splitlines()
    assert line.endswith("lagging 3  dropped 7")
    assert len(line) > 120


def test_a_person_sees_the_same_figures_live() -> None:
    out, text = printed(terminal=True)
    with console.shown(out, 8.0) as show:
        show(progress("connecting"))
        show(progress("publishing", 3))
        show(progress("barrier"))
    seen = text.getvalue()
    for words in ("connecting", "200 of 201 clients", "published/s", "p99", "waiting for the last"):
        assert words in seen


def test_one_run_of_many_is_shown_to_a_person_only() -> None:
    for terminal in (True, False):
        out, text = printed(terminal=terminal)
        with console.briefly(out, "run 2", None) as show:
            show(progress("publishing", 3))
        assert ("run 2" in text.getvalue()) == terminal


def test_the_summary_has_the_verdict_the_figures_and_the_notes() -> None:
    made = result()
    made["verdict"]["notes"] = ["A note."]
    made["troublemakers"] |= {"stalled_asked": 50, "stalled_observed": 50, "stalled_evicted": 49}
    made["troublemakers"] |= {"flapping_asked": 100, "flapping_done": 97}
    out, text = printed(terminal=False)
    console.summary(out, made)
    seen = text.getvalue()
    for words in ("PASS  200 subscribers at 50", "80,601", "0, 0, 0, 0", "50 seen, 49 closed", "97 of 100", "A note."):
        assert words in seen
    assert "All deliveries, none lost." not in seen


def test_the_summary_of_a_failure_has_every_reason() -> None:
    made = result()
    made["verdict"] = {"verdict": "fail", "reasons": ["Seven lost.", "Two twice."], "notes": []}
    out, text = printed(terminal=False)
    console.summary(out, made)
    assert "FAIL  Seven lost." in text.getvalue()
    assert "  Two twice." in text.getvalue()


def test_each_node_has_a_line_and_so_has_redis() -> None:
    out, text = printed(terminal=False)
    console.summary(out, of_two_nodes())
    words = " ".join(text.getvalue().split())
    owed = of_two_nodes()["nodes"][0]["expected"]
    for node in (1, 2):
        assert f"node {node}: delivered {owed:,} of {owed:,}, 11.5 µs each" in words
    assert "Redis CPU 3.1 % of a core" in words
    console.summary(out, result())
    assert text.getvalue().count("node 1:") == 1, "where there is one, it is the server"
