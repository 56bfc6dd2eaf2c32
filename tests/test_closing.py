"""Close codes: the contract's, sendable, and few enough to be a label."""

from __future__ import annotations

import pytest
from websockets.frames import Close as WireClose

from server.edge.closing import ABNORMAL, Close, close_label


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
    ],
)
def test_the_codes_are_the_contract_s(name: str, code: int) -> None:
    assert Close[name] == code


@pytest.mark.parametrize("code", Close)
def test_each_may_be_sent_and_has_a_label_of_its_own(code: Close) -> None:
    assert WireClose(code, "").serialize() == int(code).to_bytes(2, "big")
    assert close_label(code) == str(int(code))


@pytest.mark.parametrize("code", [1000, 1002, 1005, ABNORMAL])
def test_so_have_those_that_are_only_seen(code: int) -> None:
    assert close_label(code) == str(code)


def test_whatever_clients_send_there_are_few_labels() -> None:
    labels = {close_label(code) for code in range(70_000)}
    assert len(labels) <= 16
    assert close_label(4999) == close_label(3000) == close_label(1004) == close_label(65535) == "other"
