"""The four states of an ear on a channel, and what may be called in which."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from websockets.protocol import State

from server.core.hub import Channel
from server.core.subscription import CLOSED, OPEN, Subscription, WriteFaults
from tests.publications import batch, outbox


class Ear:
    """A subscription, what was written to it and what was reported of it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.reported: list[str] = []
        self.channel = Channel("news", WriteFaults(self.reported.append))
        self.outbox, _, _ = outbox()
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


@pytest.mark.parametrize("before", [[], ["pause"], ["pause", "resume"], ["close"]])
@pytest.mark.parametrize("after", ["pause", "resume", "close"])
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


def test_after_the_end_there_is_no_cycle_for_the_collector() -> None:
    ear = Ear()
    ear.subscription.close()
    assert ear.subscription.protocol is not ear.subscription


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
        (lambda ear: ear.subscription.close(), "<Subscription 'news' closed, 0 queued>"),
    ],
)
def test_it_says_what_it_is(prepare: Callable[[Ear], object], text: str) -> None:
    ear = Ear()
    prepare(ear)
    assert repr(ear.subscription) == text
