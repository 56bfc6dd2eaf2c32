from __future__ import annotations

from typing import Any

import pytest

from loadtest.probe import Scrape, parse
from loadtest.witness import Witness
from tests.test_loadtest_probe import METRICS


class FakeProbe:
    """Gives prepared readings, the last one for ever."""

    def __init__(self, *readings: str | None, rss: int = 1000) -> None:
        self._readings = list(readings)
        self.asked = 0
        self.last: Scrape | None = None
        self._cpu = self._each = 0.0

    def scrape(self) -> Scrape | None:
        self.asked += 1
        text = self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]
        self.last = None if text is None else parse(text)
        return self.last

    def pids(self) -> list[int]:
        return [7]

    def cpu_of_each(self) -> dict[int, float]:
        self._each += 0.25
        return {7: self._each}

    def cpu_seconds(self, scrape: Scrape | None = None) -> float | None:
        self._cpu += 0.5
        return self._cpu

    def rss(self, scrape: Scrape | None = None) -> int | None:
        return 1000


def quiet(offered: int) -> str:
    return (
        f"stentor_messages_offered_total {offered}\n"
        f"stentor_messages_sent_total {offered}\n"
        f"stentor_bytes_sent_total {offered * 10}\n"
    )


def queued(offered: int) -> str:
    return quiet(offered) + "stentor_client_queue_messages_sum 1\n"


def witness(*readings: str | None) -> tuple[Witness, FakeProbe]:
    probe = FakeProbe(*readings)
    return Witness(probe), probe  # type: ignore[arg-type]


def test_the_account_is_read_when_the_server_is_quiet() -> None:
    one, _ = witness(quiet(100), quiet(100), queued(130), quiet(140), quiet(150), quiet(150), quiet(999))
    one.read_before()
    one.read_connected()
    one.read_after()
    one.read_second()
    assert one.delta is not None
    assert (one.delta["offered"], one.delta["sent"]) == (50, 50)
    facts = one.facts(50)
    assert facts["processes"] == [{"pid": 7, "cpu_seconds": 0.25}]
    assert facts["bytes_sent"] == 500
    assert facts["cpu_seconds"] is not None
    assert facts["cpu_us_per_delivery"] == pytest.approx(1e6 * facts["cpu_seconds"] / 50)
    assert (facts["rss_before"], facts["rss_connected"], facts["pids"]) == (1000, 1000, [7])
    assert facts["rss_max"] == 1000


def test_a_server_that_does_not_come_to_rest_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.witness.QUIET_PATIENCE", 0.1)
    monkeypatch.setattr("loadtest.witness._PAUSE", 0.01)
    one, probe = witness(quiet(100), queued(130))
    one.read_before()
    one.read_after()
    assert one.after is not None
    assert one.after["queued"] == 1
    assert probe.asked > 3


@pytest.mark.parametrize("reading", [None, METRICS.replace("stentor_messages_offered", "other_offered")])
def test_without_an_account_there_is_none(reading: str | None) -> None:
    one, _ = witness(reading)
    one.read_before()
    one.read_after()
    assert (one.before, one.after, one.delta) == (None, None, None)
    made: Any = one.facts(10)
    assert made["bytes_sent"] is None
    assert made["cpu_seconds"] is None, "it was not read when everybody was connected"


def test_a_server_that_is_gone_afterwards_has_no_second_account() -> None:
    one, _ = witness(quiet(100), None)
    one.read_before()
    one.read_after()
    assert one.before is not None
    assert one.delta is None
