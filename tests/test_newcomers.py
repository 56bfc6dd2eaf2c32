"""Those who come all at once wait in front of the turnstile; what that means for them, and for those who are here."""

from __future__ import annotations

from server.brokers.base import Retention
from server.edge.closing import Close
from server.node.namespaces import ChannelOptions
from tests import wire
from tests.house import House, house
from tests.speaker import CONNECT, PATH, Speaker, connected, dialect_house

RECOVER = '{"id":2,"subscribe":{"channel":"news","recover":true,"epoch":"EPOCH","offset":0}}'


def kept() -> ChannelOptions:
    return ChannelOptions(retention=Retention(10, 300.0))


def fill(home: House) -> None:
    """Let nobody else through in this turn."""
    while home.listener.turnstile.try_pass():
        pass


def test_handshakes_beyond_what_a_turn_can_spare_wait_and_are_read_no_further():
    home = house(per_turn=2)
    peers = [home.accept() for _ in range(5)]
    for connection, _ in peers:
        connection.data_received(wire.request("/ws"))
    assert [connection.is_open for connection, _ in peers] == [True, True, False, False, False]
    assert [transport.is_reading for _, transport in peers] == [True, True, False, False, False]
    home.loop.turn()
    assert [connection.is_open for connection, _ in peers] == [True, True, True, True, False]
    home.loop.settle()
    assert all(connection.is_open and transport.is_reading for connection, transport in peers)
    assert [wire.answer(transport.take()).status for _, transport in peers] == [101] * 5


def test_what_those_say_who_are_here_waits_for_nobody():
    home = house(per_turn=1)
    _, alice = home.open("/ws/news")
    home.loop.settle()
    speaker, _ = home.open("/ws/news")
    fill(home)
    queuing, _ = home.accept()
    queuing.data_received(wire.request("/ws"))
    speaker.data_received(wire.text("hello"))
    home.hub.turn()
    assert wire.texts(alice.take()) == ["hello"]
    assert not queuing.is_open


def test_a_request_in_pieces_is_put_together_in_the_queue():
    home = house(per_turn=1)
    fill(home)
    connection, transport = home.accept()
    request = wire.request("/ws")
    connection.data_received(request[:20])
    connection.data_received(request[20:])
    assert connection.reader.is_queuing
    home.loop.settle()
    assert wire.answer(transport.take()).status == 101
    assert not connection.reader.is_queuing


def test_the_first_frame_of_a_centrifuge_client_waits_and_what_follows_stays_in_order():
    home = dialect_house(per_turn=1)
    alice = Speaker(home)
    home.loop.settle()
    fill(home)
    alice.says(CONNECT)
    alice.says('{"id":2,"subscribe":{"channel":"news"}}')
    assert alice.transport.take() == b""
    assert [frame[0][:8] for frame in alice.frames()] == ['{"id":1,', '{"id":2,']


def test_a_client_that_is_connected_waits_only_to_recover():
    home = dialect_house(per_turn=1, options=kept())
    alice = connected(home)
    home.loop.settle()
    fill(home)
    alice.says('{"id":2,"presence_stats":{"channel":"news"}}')
    assert wire.read(alice.transport.take()) != []
    alice.says(RECOVER)
    assert alice.transport.take() == b""
    assert not alice.transport.is_reading
    assert '"recoverable":true' in alice.hears()[0]
    assert alice.transport.is_reading


def test_recoveries_go_a_few_in_a_turn():
    home = dialect_house(per_turn=2, options=kept())
    clients = []
    for number in range(5):
        clients.append(connected(home, f"c{number}"))
        home.loop.settle()
    for client in clients:
        client.says(RECOVER)
    answered = [bool(client.transport.take()) for client in clients]
    assert answered == [True, True, False, False, False]
    home.loop.turn()
    assert [bool(client.transport.take()) for client in clients] == [False, False, True, True, False]


def test_nobody_is_late_for_the_time_it_queues():
    home = dialect_house(per_turn=1, open_timeout=5.0)
    waiting = Speaker(home)
    home.loop.settle()
    fill(home)
    waiting.says(CONNECT)
    half, _ = home.accept()
    half.data_received(wire.request(PATH))
    home.tick(5.1)
    assert waiting.connection.is_open
    assert not half.transport.is_closing()
    assert waiting.hears()[0].startswith('{"id":1,"connect":')
    assert half.is_open


def test_who_says_nothing_is_late_also_when_others_queue():
    home = dialect_house(per_turn=1, open_timeout=5.0)
    silent = Speaker(home)
    half, _ = home.accept()
    half.data_received(wire.request(PATH)[:20])
    home.loop.settle()
    fill(home)
    home.tick(5.1)
    silent.frames()
    assert silent.close == (3502, "stale")
    assert half.transport.is_closing()


def test_who_is_gone_while_it_queues_is_forgotten():
    home = house(per_turn=1)
    fill(home)
    connection, transport = home.accept()
    connection.data_received(wire.request("/ws"))
    transport.lose()
    home.loop.settle()
    assert home.listener.connections == {}
    assert home.counters.opened == 0


def test_who_is_closed_while_it_queues_gets_its_close_frame_and_its_own_is_heard():
    home = dialect_house(per_turn=1)
    alice = Speaker(home)
    home.loop.settle()
    fill(home)
    alice.says(CONNECT)
    alice.connection.close(Close.GOING_AWAY, "")
    alice.feed(wire.close(3001, "shutdown"))
    assert alice.hears() == []
    assert alice.close == (3001, "shutdown")
    assert alice.transport.has_ended or alice.transport.is_closing()
    assert alice.connection not in home.wheel.opening
