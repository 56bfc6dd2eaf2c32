"""A client that publishes faster than its broker answers, or sooner: it is read from no more until answers come."""

from __future__ import annotations

import pytest

from server.brokers.base import Retention
from server.edge.session import MOST_UNANSWERED
from server.node.namespaces import ChannelOptions
from tests import wire
from tests.house import House, house
from tests.late_broker import LateBroker

KEPT = ChannelOptions(retention=Retention(10, 300.0))


def late_house(options: ChannelOptions | None = None) -> tuple[House, LateBroker]:
    home = house(options=options)
    broker = LateBroker(home.node)
    home.node.broker = broker
    return home, broker


def words(path: str, count: int) -> bytes:
    if path == "/ws/news":
        return wire.text("x") * count
    lines = [f'{{"id":{number},"publish":{{"channel":"news","data":1}}}}' for number in range(2, count + 2)]
    return b"".join(wire.text(line) for line in lines)


@pytest.mark.parametrize("path", ["/ws/news", "/connection/websocket"])
def test_with_too_much_unanswered_it_is_not_read_from(path: str) -> None:
    home, broker = late_house()
    connection, transport = home.open(path)
    if path != "/ws/news":
        connection.data_received(wire.text('{"id":1,"connect":{}}'))
    broker.settle()
    connection.data_received(words(path, MOST_UNANSWERED - 1))
    assert transport.is_reading
    connection.data_received(words(path, 1))
    assert not transport.is_reading
    assert len(broker.answers) == MOST_UNANSWERED
    broker.answer()
    assert transport.is_reading
    connection.data_received(words(path, 1))
    assert not transport.is_reading
    broker.answer(fails=True)
    assert transport.is_reading
    broker.settle()
    assert transport.is_reading


def test_what_one_read_brought_waits_too() -> None:
    home, broker = late_house()
    connection, transport = home.open("/ws/news")
    broker.settle()
    connection.data_received(words("/ws/news", 20_000))
    asked = len(broker.answers)
    assert MOST_UNANSWERED <= asked < 2000
    answered = 0
    while broker.answers:
        broker.answer()
        answered += 1
        assert len(broker.answers) < 2000
    assert answered == 20_000
    assert transport.is_reading


@pytest.mark.parametrize("path", ["/ws/news", "/connection/websocket"])
def test_an_answer_that_comes_after_the_end_is_nobodys(path: str) -> None:
    home, broker = late_house()
    connection, transport = home.open(path)
    if path != "/ws/news":
        connection.data_received(wire.text('{"id":1,"connect":{}}'))
    broker.settle()
    connection.data_received(words(path, MOST_UNANSWERED))
    transport.lose()
    broker.settle()
    assert not transport.is_reading


def test_what_a_newcomer_says_waits_until_it_hears_that_itself() -> None:
    home, broker = late_house(KEPT)
    connection, transport = home.open("/ws/news")
    connection.data_received(wire.text("one") + wire.text("two"))
    assert not transport.is_reading
    connection.data_received(wire.text("three"))
    assert home.counters.published == 0
    broker.settle()
    home.loop.settle()
    assert transport.take() == b"\x81\x03one\x81\x03two\x81\x05three"
    assert transport.is_reading
    connection.data_received(words("/ws/news", MOST_UNANSWERED))
    assert not transport.is_reading


@pytest.mark.parametrize("end", ["lost", "refused"])
def test_what_a_newcomer_says_is_published_also_when_it_never_hears(end: str) -> None:
    home, broker = late_house(KEPT)
    connection, transport = home.open("/ws/news")
    connection.data_received(wire.text("one") * (MOST_UNANSWERED + 1))
    assert home.counters.published == 0
    if end == "lost":
        transport.lose()
    else:
        broker.process()
        broker.answer(fails=True)
    assert home.counters.published == MOST_UNANSWERED + 1
    broker.settle()
    assert home.counters.published == MOST_UNANSWERED + 1
