"""What supervisor and workers say to each other: whole messages, in order, however they are cut on the way."""

from __future__ import annotations

import asyncio

import pytest

from server.brokers.link import (
    MAX_MESSAGE,
    Fields,
    Kind,
    Link,
    encode,
    pack_info,
    pack_publication,
    pack_publications,
    unpack_info,
    unpack_publication,
    unpack_publications,
)
from server.core.publication import ClientInfo, Publication
from tests.fakes import Transport

INFO = ClientInfo("user", "client", b'{"a":1}', b"")
PUBLICATIONS = (
    Publication(b"text"),
    Publication(b"\xff\x00", is_binary=True, offset=7),
    Publication(b'{"a":"\xc3\xa9"}', offset=2**40, info=INFO, tags={"key": "k"}, published_at=5, is_json=True),
    Publication(b""),
)


class End:
    """One end of a link, with what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[Kind, Fields, bytes]] = []
        self.ends = 0
        self.link = Link(lambda link, kind, fields, body: self.got.append((kind, fields, body)), self._ended)

    def _ended(self, link: Link) -> None:
        self.ends += 1


MESSAGES: list[tuple[Kind, Fields, bytes]] = [
    (Kind.HELLO, [0, 1234], b""),
    (Kind.HEAR, ["news", "epoch", [1, 0, None, None, 0]], b"payload \x00\xff" * 100),
    (Kind.LOST, [None], b""),
]


@pytest.mark.parametrize("step", [1, 2, 7, 64, 100_000])
def test_messages_arrive_whole_and_in_order_however_they_are_cut(step: int) -> None:
    end = End()
    wire = b"".join(encode(*message) for message in MESSAGES)
    for start in range(0, len(wire), step):
        end.link.data_received(wire[start : start + step])
    assert end.got == MESSAGES


async def test_what_one_turn_says_goes_out_in_one_write() -> None:
    end, transport = End(), Transport()
    end.link.connection_made(transport)  # type: ignore[arg-type]
    for message in MESSAGES:
        end.link.say(*message)
    assert transport.writes == []
    assert end.link.backlog == sum(len(encode(*message)) for message in MESSAGES)
    await asyncio.sleep(0)
    assert transport.writes == [b"".join(encode(*message) for message in MESSAGES)]


async def test_what_is_done_in_one_turn_is_said_at_its_end_in_one_message() -> None:
    end, transport = End(), Transport()
    end.link.connection_made(transport)  # type: ignore[arg-type]
    end.link.settle(1)
    end.link.say(Kind.HEAR, ["news"])
    end.link.settle(2)
    await asyncio.sleep(0)
    end.link.settle(3)
    await asyncio.sleep(0)
    assert transport.writes == [
        encode(Kind.HEAR, ["news"]) + encode(Kind.DONE, [1, 2]),
        encode(Kind.DONE, [3]),
    ]


async def test_what_the_transport_holds_waits_until_it_has_drained() -> None:
    end = End()
    transport = Transport(end.link, room=3)
    end.link.connection_made(transport)  # type: ignore[arg-type]
    size = len(encode(Kind.HEAR, ["news"]))
    end.link.say(Kind.HEAR, ["news"])
    await asyncio.sleep(0)
    assert end.link.backlog == size - 3
    end.link.say(Kind.HEAR, ["news"])
    assert end.link.backlog == 2 * size - 3
    await asyncio.sleep(0)
    transport.drain()
    assert end.link.backlog == 0


def test_a_message_that_is_too_large_ends_the_link_unread() -> None:
    end, transport = End(), Transport()
    end.link.connection_made(transport)  # type: ignore[arg-type]
    end.link.data_received((MAX_MESSAGE + 1).to_bytes(4, "big") + bytes(100))
    assert transport.is_closing()
    assert end.got == []


def test_the_end_is_told_once_and_nothing_is_said_after_it() -> None:
    end, transport = End(), Transport()
    end.link.connection_made(transport)  # type: ignore[arg-type]
    assert end.link.is_open
    end.link.connection_lost(None)
    end.link.say(Kind.BEAT, [])
    end.link.settle(1)
    end.link.close()
    assert (end.ends, end.link.is_open, end.link.backlog) == (1, False, 0)


@pytest.mark.parametrize("publication", PUBLICATIONS)
def test_a_publication_arrives_as_it_was(publication: Publication) -> None:
    assert unpack_publication(pack_publication(publication), publication.payload) == publication


def test_many_arrive_as_they_were() -> None:
    packed, payloads = pack_publications(PUBLICATIONS)
    assert unpack_publications(packed, payloads) == PUBLICATIONS
    assert unpack_publications(*pack_publications(())) == ()


def test_who_somebody_is_arrives_too() -> None:
    assert unpack_info(pack_info(INFO)) == INFO
    assert unpack_info(pack_info(None)) is None
