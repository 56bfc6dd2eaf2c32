"""The fake transport behaves like uvloop's: the same script on both, and what the protocol and the caller saw."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import Clock, Loop, Transport

MUCH = b"x" * 8_000_000  # more than any socket buffer takes at once


class Diary(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.transport: Any = None
        self.has_ended = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        self.notes.append("pause")

    def resume_writing(self) -> None:
        self.notes.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.notes.append("lost")
        self.has_ended.set()


def tell(diary: Diary, what: Callable[[], object]) -> None:
    try:
        answer = what()
    except RuntimeError as error:
        diary.notes.append(f"RuntimeError {'after write_eof' if 'write_eof' in str(error) else 'closed'}")
    else:
        diary.notes.append(str(answer))


def refuse_after_eof(diary: Diary) -> None:
    diary.transport.write_eof()
    tell(diary, lambda: diary.transport.write(b"late"))
    tell(diary, diary.transport.write_eof)
    tell(diary, diary.transport.is_closing)


def stall_and_abort(diary: Diary) -> None:
    diary.transport.write(MUCH)
    tell(diary, lambda: diary.transport.get_write_buffer_size() > 0)
    tell(diary, diary.transport.is_closing)
    diary.transport.abort()
    tell(diary, diary.transport.is_closing)
    tell(diary, lambda: diary.transport.write(b"late"))
    tell(diary, diary.transport.abort)
    tell(diary, diary.transport.pause_reading)
    tell(diary, diary.transport.resume_reading)


def stall_and_close(diary: Diary) -> None:
    diary.transport.write(MUCH)
    diary.transport.close()
    before = diary.transport.get_write_buffer_size()
    diary.transport.write(b"more")
    tell(diary, lambda: diary.transport.get_write_buffer_size() - before)


def close_and_write(diary: Diary) -> None:
    diary.transport.close()
    tell(diary, lambda: diary.transport.write(b"late"))
    tell(diary, diary.transport.get_write_buffer_size)


def hold_reading(diary: Diary) -> None:
    tell(diary, diary.transport.resume_reading)
    tell(diary, diary.transport.pause_reading)
    tell(diary, diary.transport.pause_reading)
    tell(diary, diary.transport.is_reading if callable(diary.transport.is_reading) else lambda: False)


def use_after_the_end(diary: Diary) -> None:
    tell(diary, lambda: diary.transport.write(b"late"))
    tell(diary, diary.transport.write_eof)
    tell(diary, diary.transport.pause_reading)
    tell(diary, diary.transport.resume_reading)
    tell(diary, diary.transport.abort)
    tell(diary, diary.transport.get_write_buffer_size)


SCRIPTS = [refuse_after_eof, stall_and_abort, stall_and_close, close_and_write, hold_reading]


async def on_uvloop(script: Callable[[Diary], None], after: Callable[[Diary], None] | None = None) -> list[str]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    diary = Diary()
    with theirs:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: diary, ours)
        script(diary)
        if after is not None:
            diary.transport.abort()
            await diary.has_ended.wait()
            await asyncio.sleep(0)
            after(diary)
        notes = list(diary.notes)
        diary.transport.abort()
        await diary.has_ended.wait()
    return notes


def on_the_fake(script: Callable[[Diary], None], after: Callable[[Diary], None] | None = None) -> list[str]:
    diary = Diary()
    diary.connection_made(Transport(diary, room=100_000))
    script(diary)
    if after is not None:
        diary.transport.abort()
        diary.transport.lose()
        after(diary)
    return diary.notes


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_it_answers_as_uvloop_does(script: Callable[[Diary], None]) -> None:
    assert on_the_fake(script) == await on_uvloop(script)


async def test_it_is_as_closed_as_uvloop_is() -> None:
    assert on_the_fake(lambda diary: None, use_after_the_end) == await on_uvloop(lambda diary: None, use_after_the_end)


def test_it_pauses_with_the_first_byte_that_stays_and_resumes_with_the_last_that_goes() -> None:
    diary = Diary()
    transport = Transport(diary, room=3)
    diary.connection_made(transport)
    transport.write(b"abc")
    assert diary.notes == []
    transport.write(b"de")
    assert diary.notes == ["pause"]
    transport.drain(1)
    assert (diary.notes, bytes(transport.received)) == (["pause"], b"abcd")
    transport.drain(1)
    assert (diary.notes, transport.take()) == (["pause", "resume"], b"abcde")


def test_the_loop_turns_when_told_and_its_timers_go_by_the_clock() -> None:
    clock = Clock()
    loop = Loop(clock)
    ran: list[str] = []
    loop.call_soon(lambda: (ran.append("soon"), loop.call_soon(lambda: ran.append("next"))))
    loop.call_later(2.0, lambda: ran.append("later"))
    loop.turn()
    assert (ran, loop.timers) == (["soon"], [1002.0])
    loop.settle()
    assert ran == ["soon", "next"]
    clock.advance(2.0)
    loop.turn()
    assert (ran, loop.timers) == (["soon", "next", "later"], [])
