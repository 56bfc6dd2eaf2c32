"""What is said of a Redis that refuses what is written: once when it begins, and once when it is over."""

from __future__ import annotations

import logging

import pytest

from server.brokers.redis.writing import Writing

OOM = "OOM command not allowed when used memory > 'maxmemory'."


@pytest.fixture(autouse=True)
def at_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stentor.redis")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}
    return [record.getMessage() for record in caplog.records]


def test_nothing_is_said_while_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    writing = Writing("redis://h:1/0")
    writing.taken()
    assert (writing.refusal, said(caplog)) == ("", [])


def test_a_refusal_is_said_once_in_the_words_of_redis_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    writing = Writing("redis://h:1/0")
    for _ in range(3):
        writing.refused(OOM)
    assert writing.refusal == OOM
    for _ in range(3):
        writing.taken()
    assert writing.refusal == ""
    begin, end = f"redis://h:1/0: it refuses what is written: {OOM}", "redis://h:1/0: it takes again what is written"
    assert said(caplog) == [begin, end]
    writing.refused(OOM)
    assert said(caplog) == [begin, end, begin], "another time"


def test_each_kind_of_refusal_is_said(caplog: pytest.LogCaptureFixture) -> None:
    writing = Writing("redis://h:1/0")
    for words in ("OOM 1", "NOPERM 1", "OOM 2", "NOPERM 2"):
        writing.refused(words)
        assert writing.refusal == words
    assert [line.rpartition(": ")[2] for line in said(caplog)] == ["OOM 1", "NOPERM 1"]
