"""The numbers, and what clients do about them."""

import pytest

from server.dialects.centrifuge import codes


def of(kind: type) -> list[codes.Error | codes.Disconnect | codes.Unsubscribe]:
    return [value for value in vars(codes).values() if isinstance(value, kind)]


def test_errors() -> None:
    errors = {error.code: error.message for error in of(codes.Error)}
    assert errors == {
        100: "internal server error",
        101: "unauthorized",
        102: "unknown channel",
        103: "permission denied",
        104: "method not found",
        105: "already subscribed",
        106: "limit exceeded",
        107: "bad request",
        108: "not available",
        109: "token expired",
        110: "expired",
        111: "too many requests",
        112: "unrecoverable position",
    }


def test_only_these_errors_are_temporary() -> None:
    assert [error.code for error in of(codes.Error) if error.temporary] == [100, 111]


def test_disconnects() -> None:
    disconnects = {disconnect.code: disconnect.reason for disconnect in of(codes.Disconnect)}
    assert disconnects == {
        3000: "connection closed",
        3001: "shutdown",
        3004: "internal server error",
        3005: "connection expired",
        3006: "subscription expired",
        3008: "slow",
        3009: "write error",
        3010: "insufficient state",
        3011: "force reconnect",
        3012: "no pong",
        3013: "too many requests",
        3014: "state invalidated",
        3500: "invalid token",
        3501: "bad request",
        3502: "stale",
        3503: "force disconnect",
        3504: "connection limit",
        3505: "channel limit",
        3506: "inappropriate protocol",
        3507: "permission denied",
        3508: "not available",
        3509: "too many errors",
    }


@pytest.mark.parametrize(
    ("code", "reconnect"),
    [
        (3000, True),
        (3499, True),
        (3500, False),
        (3999, False),
        (4000, True),
        (4499, True),
        (4500, False),
        (4999, False),
    ],
)
def test_who_reconnects(code: int, reconnect: bool) -> None:
    assert codes.Disconnect(code, "").reconnect is reconnect


def test_unsubscribes() -> None:
    assert [(end.code, end.reason, end.resubscribe) for end in of(codes.Unsubscribe)] == [
        (2000, "server unsubscribe", False),
        (2500, "insufficient state", True),
        (2501, "subscription expired", True),
        (2502, "state invalidated", True),
    ]
