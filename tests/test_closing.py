"""Close codes: the contract's, sendable, and few enough to be a label."""

from __future__ import annotations

import pytest
from websockets.frames import Close as WireClose

from server.edge.closing import ABNORMAL, Cause, Close, close_label, come_back, seen, standard


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("GOING_AWAY", 1001),
        ("BAD_DATA", 1007),
        ("POLICY", 1008),
        ("TOO_BIG", 1009),
        ("INTERNAL", 1011),
        ("RESTART", 1012),
        ("TOO_SLOW", 1013),
        ("NO_PONG", 3012),
        ("EXPIRED", 3005),
        ("TOO_MANY", 3013),
        ("STALE", 3502),
    ],
)
def test_the_codes_are_the_contract_s(name: str, code: int) -> None:
    assert Close[name] == code


@pytest.mark.parametrize("code", Close)
def test_each_may_be_sent_and_has_a_label_of_its_own(code: Close) -> None:
    assert WireClose(code, "").serialize() == int(code).to_bytes(2, "big")
    assert close_label(code) == str(int(code))


@pytest.mark.parametrize("code", [1000, 1002, 1005, ABNORMAL, 3000, 3001, *range(3003, 3015), *range(3500, 3510)])
def test_so_have_those_that_are_only_seen(code: int) -> None:
    assert close_label(code) == str(code)


def test_whatever_clients_send_there_are_few_labels() -> None:
    labels = {close_label(code) for code in range(70_000)}
    assert len(labels) <= 40
    assert (
        close_label(4999)
        == close_label(3002)
        == close_label(3015)
        == close_label(3510)
        == close_label(1004)
        == close_label(65535)
        == "other"
    )


def test_a_plain_dialect_has_one_code_for_every_policy() -> None:
    assert {cause for cause in Close if standard(cause) == Close.POLICY} == {
        Close.POLICY,
        Close.EXPIRED,
        Close.TOO_MANY,
        Close.STALE,
    }
    assert [standard(code) for code in (1000, 1013, 3012, 4999)] == [1000, 1013, 3012, 4999]


@pytest.mark.parametrize(
    ("received", "sent", "cause"),
    [
        (WireClose(1000, "its own words"), WireClose(1000, "its own words"), Cause(1000, "closed by the client")),
        (None, WireClose(1002, "ours"), Cause(1002, "ours")),
        (None, None, Cause(ABNORMAL, "connection lost")),
    ],
)
def test_what_the_close_frames_tell(received: WireClose | None, sent: WireClose | None, cause: Cause) -> None:
    assert seen(received, sent) == cause


def test_each_is_told_a_time_of_its_own() -> None:
    asked: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        asked.append((low, high))
        return high * len(asked) / 10

    farewell = come_back(Close.RESTART, "", 4.0, draw)
    assert [farewell() for _ in range(2)] == [(1012, "reconnect_after_ms=400"), (1012, "reconnect_after_ms=800")]
    assert come_back(Close.GOING_AWAY, "bye, ", 5.0, draw)() == (1001, "bye, reconnect_after_ms=1500")
    assert asked == [(0.0, 4.0), (0.0, 4.0), (0.0, 5.0)]
    drawn = {come_back(Close.RESTART, "", 300.0)()[1] for _ in range(50)}
    assert len(drawn) > 40
    assert max(map(len, drawn)) < 100, "a close frame has 123 bytes for it"
