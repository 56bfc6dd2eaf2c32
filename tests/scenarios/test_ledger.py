"""The ledger and the scanner catch what they are for: each is shown a planted fault."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.scenarios.ledger import Account, Ledger
from tests.scenarios.wire import BINARY, TEXT, Scanner, frame, masked


def hear_all(account: Account, payloads: list[bytes]) -> None:
    for payload in payloads:
        account.hear(payload, time.monotonic_ns())


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_a_perfect_account_is_complete(ledger: Ledger) -> None:
    account = ledger.open_account("news")
    hear_all(account, [ledger.stamp("news", 64, publisher=number % 2) for number in range(1000)])
    ledger.assert_complete([account])
    assert account.heard_last(1) == 499
    assert 0 <= ledger.percentile(0.5) <= ledger.percentile(1.0) < 60


def swap(payloads: list[bytes]) -> None:
    payloads[7], payloads[8] = payloads[8], payloads[7]


@pytest.mark.parametrize(
    ("plant", "caught"),
    [
        (lambda payloads: payloads.pop(9_999), "1 lost"),
        (lambda payloads: payloads.pop(0), "1 lost"),
        (lambda payloads: payloads.insert(5, payloads[4]), "1 duplicated"),
        (swap, "1 reordered"),
        (lambda payloads: payloads.append(b"who said this?"), "1 unexpected"),
        (lambda payloads: payloads.append(Ledger().stamp("other", 64)), "1 unexpected"),
        (lambda payloads: payloads.append(payloads[0].replace(b"news", b"mews")), "1 unexpected"),
        (lambda payloads: payloads.clear(), "heard nothing"),
    ],
    ids=["one in ten thousand", "the first", "a double", "a swap", "noise", "a stranger", "a neighbour", "silence"],
)
def test_a_planted_fault_is_caught(ledger: Ledger, plant: Callable[[list[bytes]], object], caught: str) -> None:
    account = ledger.open_account("news")
    payloads = [ledger.stamp("news", 64) for _ in range(10_000)]
    plant(payloads)
    hear_all(account, payloads)
    with pytest.raises(AssertionError, match=caught):
        ledger.assert_complete([account])


def test_no_account_is_no_verdict(ledger: Ledger) -> None:
    with pytest.raises(AssertionError, match="no account"):
        ledger.assert_complete([])


def test_the_scanner_needs_no_whole_frames() -> None:
    stream = b"\x82\x03abc" + b"\x81\x7e\x00\x7e" + b"x" * 126 + b"\x88\x02\x03\xe8" + b"\x8a\x00"
    expected = [(0x2, b"abc"), (0x1, b"x" * 126), (0x8, b"\x03\xe8"), (0xA, b"")]
    for step in (1, 2, 7, len(stream)):
        scanner = Scanner()
        found = [found for at in range(0, len(stream), step) for found in scanner.feed(stream[at : at + step])]
        assert found == expected


@pytest.mark.parametrize("stream", [b"\x82\x83abcdabc", b"\x02\x03abc", b"\xc2\x03abc"])
def test_the_scanner_takes_no_frame_that_a_server_may_not_send(stream: bytes) -> None:
    with pytest.raises(AssertionError):
        Scanner().feed(stream)


def test_frames_are_those_of_the_rfc() -> None:
    # RFC 6455, section 5.7: a single-frame masked text message.
    assert frame(TEXT, b"Hello") == bytes.fromhex("818537fa213d7f9f4d5158")
    assert masked(masked(b"some payload")) == b"some payload"
    assert frame(BINARY, b"", declared=2**63)[:10] == bytes.fromhex("82ff8000000000000000")
    assert frame(BINARY, b"ab", width=2, key=None) == bytes.fromhex("827e00026162")
