"""Who listens: lanes come and go with their listeners, encodings with their lanes."""

from __future__ import annotations

import pytest

from server.brokers.base import Retention
from server.core.history import Position
from server.core.publication import Publication
from server.dialects.centrifuge import fossil
from server.node.audience import UNKNOWN, Audience, Held, Reading
from server.node.namespaces import ChannelOptions
from tests.ears import DELTA, JSON, RAW, Town, numbered
from tests.publications import outbox

KEPT = ChannelOptions(retention=Retention(10, 300.0))
JOINS = JSON._replace(joins=True)


def test_equal_readings_share_a_lane() -> None:
    audience = Audience("news", KEPT)
    lane = audience.enter(JSON)
    assert audience.enter(Reading("json")) is lane
    assert audience.enter(RAW) is not lane
    assert (lane.channel, lane.reading, lane.listeners) == ("news", JSON, 2)


def test_a_lane_ends_with_its_last_listener_and_the_encoding_with_its_last_lane() -> None:
    audience = Audience("news", KEPT)
    for reading in (JSON, JSON, JOINS):
        audience.enter(reading)
    audience.leave(JSON)
    assert set(audience.lanes) == {JSON, JOINS}
    audience.leave(JSON)
    assert set(audience.lanes) == {JOINS}
    assert set(audience.encoders) == {("json", False)}
    assert not audience.is_empty
    audience.leave(JOINS)
    assert audience.lanes == audience.encoders == {}
    assert audience.is_empty


def test_a_lane_that_comes_back_is_another() -> None:
    audience = Audience("news", KEPT)
    first = audience.enter(RAW)
    audience.leave(RAW)
    assert audience.enter(RAW) is not first


def test_who_is_on_the_way_keeps_the_audience() -> None:
    audience = Audience("news", KEPT)
    box, _, _ = outbox()
    audience.holds[box] = Held()
    assert not audience.is_empty
    del audience.holds[box]
    assert audience.is_empty


@pytest.mark.parametrize(
    ("options", "reading", "has_places"),
    [(KEPT, JSON, True), (KEPT, DELTA, True), (KEPT, RAW, False), (ChannelOptions(), JSON, False)],
)
def test_places_take_a_history_and_a_dialect(options: ChannelOptions, reading: Reading, has_places: bool) -> None:
    audience = Audience("news", options)
    assert not audience.has_places
    audience.enter(RAW)
    audience.enter(reading)
    assert audience.has_places is has_places


@pytest.mark.parametrize(
    ("top", "is_behind"),
    [
        (Position(4, "a"), False),
        (Position(5, "a"), False),
        (Position(6, "a"), True),
        (Position(5, "b"), True),
        (Position(1, "b"), True),
    ],
)
def test_behind_is_what_has_heard_less_or_of_another_stream(top: Position, is_behind: bool) -> None:
    audience = Audience("news", KEPT)
    assert audience.top is UNKNOWN
    audience.top = Position(5, "a")
    assert audience.is_behind(top) is is_behind


def test_lanes_that_differ_in_their_news_alone_get_the_same_frame() -> None:
    audience = Audience("news", KEPT)
    plain, curious = audience.enter(JSON), audience.enter(JOINS)
    frames = dict(audience.frames(Publication(b"1")))
    assert frames[plain] is frames[curious]


def test_a_newcomer_gets_a_whole_publication_first_and_the_right_deltas_after() -> None:
    """The ears apply the deltas, and fail on a wrong one; two lanes, one chain."""
    town = Town(KEPT)
    early = town.ear(DELTA)
    early.come()
    town.broker.settle()
    for _ in range(3):
        town.say(deliver=True)
    late = town.ear(DELTA._replace(joins=True))
    late.come()
    town.broker.settle()
    for _ in range(3):
        town.say(deliver=True)
    town.turn()
    assert [place.offset for place in early.heard] == [1, 2, 3, 4, 5, 6]
    assert [place.offset for place in late.heard] == [4, 5, 6]


@pytest.mark.parametrize("codec", ["json", "protobuf"])
def test_deltas_of_a_chain_with_a_newcomer_in_it(codec: str) -> None:
    audience = Audience("news", KEPT)
    reading = Reading(codec, delta=True)
    lane = audience.enter(reading)
    sizes = []
    for offset in range(1, 7):
        if offset == 4:
            audience.enter(reading)
        [(_, frame)] = audience.frames(Publication(numbered(Position(offset, "epoch1")), offset=offset, is_json=True))
        sizes.append(len(frame))
    assert lane.listeners == 2
    whole, delta = sizes[0], sizes[1]
    assert delta < whole
    assert sizes == [whole, delta, delta, whole, delta, delta]
    assert len(fossil.create_delta(numbered(Position(1, "epoch1")), numbered(Position(2, "epoch1")))) < 90
