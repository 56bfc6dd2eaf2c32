"""A broker with a network in between: it answers and tells when a test lets it, late, out of turn, or not at all.

    broker = LateBroker(node)
    node.broker = broker
    broker.process()      # the broker comes to the next thing that it was asked
    broker.answer(0)      # its answer, any of `answers`, arrives; answer(0, fails=True): an error arrives
    broker.deliver()      # the next publication under way arrives; lose() it; repeat() one that came
    broker.reset("news")  # its memory is lost: a new epoch
    broker.settle()       # all that is under way arrives

What it is asked it does in turn, as over one connection; what it tells comes over another, and so does the word that it
tells of a channel from now on: after what it told when the channel was subscribed to before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.brokers.base import Attendance, BrokerError, Done, Ear, Published, Retention, Slice, Stream, Terms
from server.core.history import History, Position
from server.core.publication import ClientInfo, Publication

Told = tuple[str, Publication, str]


@dataclass
class LateBroker:
    """See the module. The times of the streams are all the same: nothing expires."""

    ear: Ear
    heard: set[str] = field(default_factory=set)
    streams: dict[str, History] = field(default_factory=dict)
    asked: deque[Callable[[], None]] = field(default_factory=deque)
    answers: list[Callable[[BrokerError | None], None]] = field(default_factory=list)
    underway: deque[Told | Callable[[], None]] = field(default_factory=deque)
    came: list[Told] = field(default_factory=list)
    histories: int = 0  # how often one was asked for
    epochs: int = 0
    is_up: bool = True

    # What a test calls

    def process(self) -> None:
        self.asked.popleft()()

    def answer(self, which: int = 0, *, fails: bool = False) -> None:
        self.answers.pop(which)(BrokerError("away") if fails else None)

    def deliver(self) -> None:
        told = self.underway.popleft()
        if callable(told):
            told()
            return
        self.came.append(told)
        self.ear.hear(*told)

    def lose(self) -> None:
        self.underway.remove(next(told for told in self.underway if not callable(told)))

    def repeat(self, which: int = -1) -> None:
        self.ear.hear(*self.came[which])

    def deliver_all(self) -> None:
        while self.underway:
            self.deliver()

    def settle(self) -> None:
        while self.asked or self.answers or self.underway:
            self.deliver_all()
            while self.asked:
                self.process()
            if self.answers:
                self.answer()

    def reset(self, channel: str) -> None:
        self.streams.pop(channel, None)

    def stream(self, channel: str, size: int = 10) -> History:
        if channel not in self.streams:
            self.epochs += 1
            self.streams[channel] = History(f"epoch{self.epochs}", size, 300.0)
        return self.streams[channel]

    def say(self, channel: str, payload: bytes, size: int = 10) -> Publication:
        """Publish from another node; `size` is what the channel keeps."""
        stream = self.stream(channel, size)
        publication = stream.append(Publication(payload, is_json=True), 0.0)
        if channel in self.heard:
            self.underway.append((channel, publication, stream.epoch))
        return publication

    # The broker

    def publish(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:
        position, epoch = Position(0, ""), ""
        if terms.retention.keeps:
            stream = self.stream(channel, terms.retention.size)
            publication, epoch = stream.append(publication, 0.0), stream.epoch
            position = stream.position
        if channel in self.heard:
            self.underway.append((channel, publication, epoch))
        self._answer(done, Published(position))

    def subscribe(self, channel: str, done: Done[None]) -> None:
        def process() -> None:
            if channel in self.heard or not self.underway:
                self._answer(done, None)
            else:
                self.underway.append(lambda: self._answer(done, None))
            self.heard.add(channel)

        self.asked.append(process)

    def unsubscribe(self, channel: str) -> None:
        self.asked.append(lambda: self.heard.discard(channel))

    def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
        self.histories += 1

        def process() -> None:
            stream = self.stream(channel, retention.size)
            kept = stream.read(
                0.0, limit=wanted.limit, since=wanted.since, reverse=wanted.reverse, most_bytes=wanted.most_bytes
            )
            self._answer(done, Stream(kept, stream.position))

        self.asked.append(process)

    def _answer(self, done: Done[Any], result: object) -> None:
        self.answers.append(lambda error: done(result if error is None else error))

    def publish_join(self, channel: str, info: ClientInfo) -> None:
        self.ear.hear_join(channel, info)

    def publish_leave(self, channel: str, info: ClientInfo) -> None:
        self.ear.hear_leave(channel, info)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        raise AssertionError("no node asks for this")

    def add_presence(self, channel: str, info: ClientInfo, done: Done[None]) -> None:
        raise AssertionError("no node asks for this")

    def remove_presence(self, channel: str, info: ClientInfo) -> None:
        raise AssertionError("no node asks for this")

    def presence(self, channel: str, done: Done[Mapping[str, ClientInfo]]) -> None:
        raise AssertionError("no node asks for this")

    def presence_stats(self, channel: str, done: Done[Attendance]) -> None:
        raise AssertionError("no node asks for this")
