"""The log: its two forms, its manners with a pipe that nobody reads, and its silence about repetition."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server import logs
from server.logs import QUEUE_LINES, REPEATS_PER_SECOND, JsonFormatter, LineWriter, Repeats, TextFormatter
from tests.harness import wait_until

AT = 1_700_000_000.25  # 2023-11-14T22:13:20.250Z


def record(message: object, *values: object, level: int = logging.WARNING, at: float = AT) -> logging.LogRecord:
    line = logging.LogRecord("stentor.edge", level, __file__, 1, message, values, None)
    line.created, line.msecs = at, round((at % 1) * 1000)
    return line


def failure() -> logging.LogRecord:
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        line = record("it failed")
        line.exc_info = sys.exc_info()
        return line


# Forms


def test_a_line_for_people() -> None:
    line = TextFormatter().format(record("slow %s: %d", "192.0.2.1", 7))
    assert line.endswith(".250 WARNING stentor.edge: slow 192.0.2.1: 7")
    assert line[:8].count(":") == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x00\x07\x08\r", "\\x00\\x07\\x08\\x0d"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("tab\tand é 😀", "tab\tand é 😀"),
    ],
)
def test_nobody_s_controls_reach_the_terminal(text: str, shown: str) -> None:
    assert TextFormatter().format(record("%s", text)).endswith(": " + shown)


def test_a_traceback_keeps_its_lines() -> None:
    lines = TextFormatter().format(failure()).splitlines()
    assert lines[0].endswith("it failed")
    assert lines[-1] == "ZeroDivisionError: by zero"


def test_a_line_for_machines() -> None:
    line = JsonFormatter().format(record("slow %s", "é\n\x1b"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "stentor.edge",
        "message": "slow é\n\x1b",
    }


def test_a_traceback_is_a_field() -> None:
    fields = json.loads(JsonFormatter().format(failure()))
    assert fields["message"] == "it failed"
    assert fields["traceback"].endswith("ZeroDivisionError: by zero")


# Repetition


def test_a_line_that_repeats_is_said_so_often_a_second() -> None:
    repeats = Repeats()
    said = [repeats.filter(record("slow %s", number)) for number in range(REPEATS_PER_SECOND + 5)]
    assert sum(said) == REPEATS_PER_SECOND, "by its template: the values differ"
    assert repeats.filter(record("something else"))
    assert repeats.filter(record("slow %s", 1, at=AT + 1))


def test_debug_lines_are_not_counted() -> None:
    repeats = Repeats()
    assert all(repeats.filter(record("open", level=logging.DEBUG)) for _ in range(100))


# Writing


class Blocked(io.StringIO):
    """A pipe that nobody reads: a write does not come back until it is unblocked."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reached = threading.Event()
        self.unblocked = threading.Event()

    def write(self, text: str) -> int:
        self.is_reached.set()
        self.unblocked.wait(20)
        return super().write(text)


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise BrokenPipeError


Open = Callable[[io.StringIO], LineWriter]


@pytest.fixture
def open_writer() -> Iterator[Open]:
    writers: list[LineWriter] = []

    def open_one(stream: io.StringIO) -> LineWriter:
        writer = LineWriter(stream)
        writer.setFormatter(logging.Formatter("%(message)s"))
        writers.append(writer)
        return writer

    yield open_one
    for writer in writers:
        writer.close()


def test_lines_are_written_in_order_by_the_time_it_is_closed(open_writer: Open) -> None:
    stream = io.StringIO()
    writer = open_writer(stream)
    for number in range(100):
        writer.handle(record("line %d", number))
    writer.close()
    assert stream.getvalue().splitlines() == [f"line {number}" for number in range(100)]
    assert writer.dropped == 0
    writer.close()


def test_a_pipe_that_nobody_reads_holds_up_nobody(open_writer: Open) -> None:
    stream = Blocked()
    writer = open_writer(stream)
    writer.handle(record("first"))
    assert stream.is_reached.wait(10)
    for number in range(QUEUE_LINES + 25):
        writer.handle(record("line %d", number))
    assert writer.dropped == 25
    began = time.monotonic()
    writer.close()
    assert time.monotonic() - began < 5, "it waits for half a second and goes"
    stream.unblocked.set()


def test_what_was_dropped_is_said_as_soon_as_the_pipe_is_read_again(open_writer: Open) -> None:
    stream = Blocked()
    writer = open_writer(stream)
    writer.handle(record("first"))
    assert stream.is_reached.wait(10)
    for number in range(QUEUE_LINES + 25):
        writer.handle(record("line %d", number))
    stream.unblocked.set()
    wait_until(lambda: stream.getvalue().endswith("dropped\n"), what="the log says what it dropped")
    lines = stream.getvalue().splitlines()
    assert lines[-2:] == [f"line {QUEUE_LINES - 1}", "25 lines of this log were dropped"]
    writer.handle(record("last"))
    writer.close()
    assert stream.getvalue().splitlines() == [*lines, "last"], "it is said once"
    assert writer.dropped == 25


def test_a_pipe_whose_reader_has_gone_is_counted_and_forgotten(open_writer: Open) -> None:
    stream = Broken()
    writer = open_writer(stream)
    for _ in range(3):
        writer.handle(record("into the void"))
    writer.close()
    assert (stream.tried, writer.dropped) == (3, 3)


@pytest.mark.parametrize("form", [TextFormatter, JsonFormatter])
@pytest.mark.parametrize(
    ("message", "values", "shown"),
    [("%d clients", ("many",), "%d clients"), ("two %s %s", ("one",), "two %s %s"), ("%s", ("\ud800",), "")],
    ids=["wrong type", "too few", "surrogate"],
)
def test_a_mistake_in_a_line_is_no_reason_to_fail(
    form: type[logging.Formatter], message: str, values: tuple[object, ...], shown: str, open_writer: Open
) -> None:
    stream = io.StringIO()
    writer = open_writer(stream)
    writer.setFormatter(form())
    writer.handle(record(message, *values))
    writer.handle(record("the next one"))
    writer.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert shown in lines[0]
    assert "the next one" in lines[1]
    if form is JsonFormatter:
        assert all(json.loads(line) for line in lines)


# Start


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    logger, access = logging.getLogger(), logging.getLogger("aiohttp.access")
    before = list(logger.handlers), logger.level, access.level
    yield logger
    for handler in logger.handlers:
        if isinstance(handler, LineWriter):
            handler.close()
    logger.handlers[:], level, access_level = before[0], before[1], before[2]
    logger.setLevel(level)
    access.setLevel(access_level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("form", "stream", "formatter"),
    [
        ("text", io.StringIO, TextFormatter),
        ("json", Terminal, JsonFormatter),
        ("auto", Terminal, TextFormatter),
        ("auto", io.StringIO, JsonFormatter),
    ],
)
def test_the_form_is_asked_for_or_follows_the_stream(
    form: str, stream: type[io.StringIO], formatter: type[logging.Formatter], root: logging.Logger
) -> None:
    writer = logs.start("info", form, stream())
    assert root.handlers == [writer]
    assert type(writer.formatter) is formatter


def test_what_is_below_the_level_is_not_written(root: logging.Logger) -> None:
    stream = io.StringIO()
    writer = logs.start("warning", "text", stream)
    log: Any = logging.getLogger("stentor.test")
    log.info("no")
    log.warning("yes")
    for number in range(100):
        log.error("again %d", number)
    writer.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("yes")
    assert REPEATS_PER_SECOND + 1 <= len(lines) <= 2 * REPEATS_PER_SECOND + 1, "a second may have passed"
    assert not logging.getLogger("aiohttp.access").isEnabledFor(logging.INFO)
