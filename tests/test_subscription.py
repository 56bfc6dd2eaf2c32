"""The four states of an ear on a channel, and what may be called in which."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from websockets.protocol import State

from server.core.channel import Channel
from server.core.subscription import CLOSED, OPEN, Subscription, WriteFaults
from tests.publications import MAIN, batch, outbox


class Ear:
    """A subscription, what was written to it and what was reported of it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.reported: list[str] = []
        self.channel = Channel("news", MAIN.terms, WriteFaults(self.reported.append))
        self.outbox, self.backlog, _ = outbox()
        self.write = self.written.append
        self.subscription = Subscription(self.channel, self.outbox, self.write)


def test_while_its_client_keeps_up_the_way_is_the_transport_s_write_itself() -> None:
    ear = Ear()
    assert ear.subscription.send_text is ear.write
    assert ear.subscription.state is OPEN is State.OPEN
    assert ear.subscription.protocol is ear.subscription


def test_while_its_client_lags_the_way_is_the_outbox() -> None:
    ear = Ear()
    ear.subscription.pause()
    ear.channel.batch = batch(b"a", b"b")
    ear.subscription.send_text(b"ab")
    assert ear.written == []
    assert (ear.outbox.messages, ear.outbox.bytes) == (2, 2)
    assert ear.subscription.state is OPEN


def test_only_a_flush_offers() -> None:
    ear = Ear()
    ear.subscription.pause()
    with pytest.raises(AssertionError, match="only a flush offers"):
        ear.subscription.send_text(b"ab")


def test_pause_and_resume_are_idempotent() -> None:
    ear = Ear()
    ear.subscription.pause()
    ear.subscription.pause()
    assert ear.subscription.send_text == ear.subscription.offer
    ear.subscription.resume()
    ear.subscription.resume()
    assert ear.subscription.send_text is ear.write


@pytest.mark.parametrize("before", [[], ["pause"], ["pause", "resume"], ["gather"], ["gather", "pause"], ["close"]])
@pytest.mark.parametrize("after", ["pause", "resume", "gather", "write_through", "close"])
def test_closed_is_closed_for_ever(before: list[str], after: str) -> None:
    ear = Ear()
    for name in before:
        getattr(ear.subscription, name)()
    ear.subscription.close()
    getattr(ear.subscription, after)()
    assert ear.subscription.state is CLOSED is State.CLOSED
    assert ear.subscription.protocol.state is CLOSED, "broadcast() reads it for ever, and outside its try"
    with pytest.raises(AssertionError, match="closed subscription"):
        ear.subscription.send_text(b"late")
    assert ear.written == []


def test_while_it_gathers_the_way_is_the_outbox_past_the_policy() -> None:
    ear = Ear()
    for _ in range(2):
        ear.subscription.gather()
        assert ear.channel.gatherers == 1
    ear.channel.batch = batch(*[b"a"] * 9)
    ear.subscription.send_text(b"a" * 9)
    assert (ear.written, ear.outbox.messages, list(ear.backlog.dirty)) == ([], 9, [ear.outbox])


def test_a_pause_is_a_pause_whatever_the_mode_and_ends_in_the_mode_that_was_set_last() -> None:
    ear = Ear()
    ear.subscription.gather()
    ear.subscription.pause()
    assert ear.subscription.send_text == ear.subscription.offer
    ear.subscription.write_through()
    ear.subscription.gather()
    assert ear.subscription.send_text == ear.subscription.offer
    ear.subscription.resume()
    assert ear.subscription.send_text == ear.subscription.collect
    ear.subscription.pause()
    ear.subscription.write_through()
    ear.subscription.resume()
    assert ear.subscription.send_text is ear.write


def test_who_gathers_no_more_writes_at_once_if_nothing_waits() -> None:
    ear = Ear()
    ear.subscription.gather()
    for _ in range(2):
        ear.subscription.write_through()
        assert ear.channel.gatherers == 0
    assert ear.subscription.send_text is ear.write


def test_what_was_gathered_goes_before_what_is_written_through() -> None:
    ear = Ear()
    ear.subscription.gather()
    ear.channel.batch = batch(b"a")
    ear.subscription.send_text(b"a")
    ear.subscription.write_through()
    ear.subscription.send_text(b"a")
    assert (ear.written, ear.outbox.messages) == ([], 2)
    ear.outbox.take(1000)
    ear.subscription.send_text(b"b")
    assert ear.written == [b"b"]
    assert ear.subscription.send_text is ear.write


def test_a_new_ear_of_a_client_for_whom_something_waits_queues_behind_it() -> None:
    ear = Ear()
    ear.outbox.gather(batch(b"a"))
    late = Subscription(ear.channel, ear.outbox, ear.write)
    ear.channel.batch = batch(b"b")
    late.send_text(b"b")
    assert (ear.written, ear.outbox.messages) == ([], 2)


def test_after_the_end_there_is_no_cycle_for_the_collector() -> None:
    ear = Ear()
    ear.subscription.gather()
    ear.subscription.close()
    assert ear.subscription.protocol is not ear.subscription
    assert getattr(ear.subscription.send_text, "__self__", None) is None
    assert ear.channel.gatherers == 0


def test_faults_are_counted_and_reported_in_words() -> None:
    ear = Ear()
    ear.subscription.logger.warning("skipped: %s", "broken pipe")
    ear.subscription.logger.warning("100 % sure")
    assert ear.channel.faults.count == 2
    assert ear.reported == ["skipped: broken pipe", "100 % sure"]


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda ear: None, "<Subscription 'news' writing, 0 queued>"),
        (
            lambda ear: (ear.subscription.pause(), ear.outbox.offer(batch(b"a"))),
            "<Subscription 'news' lagging, 1 queued>",
        ),
        (lambda ear: ear.subscription.gather(), "<Subscription 'news' gathering, 0 queued>"),
        (lambda ear: ear.subscription.close(), "<Subscription 'news' closed, 0 queued>"),
    ],
)
def test_it_says_what_it_is(prepare: Callable[[Ear], object], text: str) -> None:
    ear = Ear()
    prepare(ear)
    assert repr(ear.subscription) == text
