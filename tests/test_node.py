"""Between broker and hub: the race of coming and publishing, recovery, positions, and what is let go of.

The broker is either the memory broker, who answers at once, or one with a network in between (``late_broker``).
`test_node_laws` holds all this in any order.
"""

from __future__ import annotations

from typing import Any

import pytest

from server.brokers.base import BrokerError, Published, Retention, Terms
from server.brokers.memory import MemoryBroker
from server.core.history import UP_TO_DATE, Position, Recovery
from server.core.hub import CONGESTION_BYTES
from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import json_codec
from server.node.audience import UNKNOWN
from server.node.namespaces import ChannelOptions, RecoveryMode
from server.node.node import Node, Seat, Unrecovered
from tests import wire
from tests.ears import DELTA, JSON, RAW, Ear, Town, numbered
from tests.fakes import Clock
from tests.late_broker import LateBroker
from tests.speaker import dialect_house, quiet

KEPT = ChannelOptions(retention=Retention(10, 300.0))
PLAIN = ChannelOptions()


def arrived(town: Town, ear: Ear, since: Position | None = None, **wishes: Any) -> Ear:
    """Let a client come, and the broker answer."""
    ear.come(since, **wishes)
    town.broker.settle()
    return ear


def offsets(ear: Ear) -> list[int]:
    return [place.offset for place in ear.heard]


def look_twice(town: Town) -> None:
    """Check the positions as the chores do, with time for all that is under way."""
    town.node.check_positions()
    town.broker.settle()
    town.node.check_suspects()
    town.broker.settle()
    town.turn()


# The race


def test_a_client_on_an_empty_channel_starts_at_the_beginning() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    assert ear.seat.top == Position(0, "epoch1")
    assert ear.seat.recovery is None


def test_what_is_published_before_the_answer_is_recovered_once() -> None:
    town = Town(KEPT)
    arrived(town, town.ear())
    before = [town.say(deliver=True) for _ in range(2)][-1]
    ear = town.ear()
    ear.come(since=Position(1, before.epoch))
    town.broker.process()  # it is heard
    town.broker.answer()
    town.say(deliver=True)  # before the history is read
    town.broker.process()
    town.say(deliver=True)  # between history and answer
    town.broker.answer()
    town.say(deliver=True)  # after it
    town.turn()
    assert ear.seat.top.offset == 4
    assert offsets(ear) == [2, 3, 4, 5]


def test_what_the_broker_has_but_is_on_its_way_comes_to_all_alike() -> None:
    town = Town(KEPT)
    first = arrived(town, town.ear())
    town.say(deliver=True)
    late, last = town.say(), town.say()
    ear = arrived_before_delivery(town, Position(0, late.epoch))
    assert ear.seat.top.offset == 1
    assert ear.seat.recovery is not None
    assert [publication.offset for publication in ear.seat.recovery.publications] == [1]
    town.broker.deliver_all()
    town.turn()
    assert offsets(first) == offsets(ear) == [1, 2, 3]
    assert ear.position == last
    look_twice(town)
    assert first.gaps == ear.gaps == 0


def arrived_before_delivery(town: Town, since: Position) -> Ear:
    ear = town.ear()
    ear.come(since)
    for _ in range(2):  # heard, placed
        town.broker.process()
        town.broker.answer()
    return ear


def test_a_first_client_hears_nothing_that_its_answer_counted_already() -> None:
    town = Town(KEPT)
    ear = town.ear()
    ear.come()
    town.broker.process()
    town.broker.answer()
    town.say()
    town.broker.process()
    town.broker.answer()  # the position: 1
    town.broker.deliver()  # and now the publication
    town.turn()
    assert ear.seat.top.offset == 1
    assert ear.heard == []
    town.say(deliver=True)
    town.turn()
    assert offsets(ear) == [2]


def test_answers_out_of_turn_are_no_harm() -> None:
    town = Town(KEPT)
    early, late = town.ear(), town.ear()
    early.come(since=Position(0, ""))
    late.come(since=Position(0, ""))
    town.broker.process()
    town.broker.process()
    town.broker.answer()
    town.broker.answer()
    town.say()
    town.broker.process()  # what the first asked
    town.say()
    town.broker.process()  # what the second asked
    town.broker.answer(1)
    town.broker.answer(0)
    town.broker.settle()
    town.say(deliver=True)
    town.turn()
    assert late.seat.top.offset == early.seat.top.offset == 2
    assert offsets(late) == [1, 2, 3]
    # Its answer is older than what the other was told: that is no recovery, and it says so.
    assert early.seat.recovery == Recovery(False)
    assert offsets(early) == [3]


@pytest.mark.parametrize("which", [-1, 0])
def test_what_comes_twice_is_heard_once(which: int) -> None:
    town = Town(KEPT)
    ears = [arrived(town, town.ear(reading)) for reading in (JSON, RAW, DELTA)]
    town.say(deliver=True)
    town.say(deliver=True)
    town.broker.repeat(which)
    town.turn()
    assert [offsets(ear) for ear in ears] == [[1, 2]] * 3


def test_a_gap_is_told_to_those_with_a_position_and_to_nobody_else() -> None:
    town = Town(KEPT)
    ears = [arrived(town, town.ear(reading)) for reading in (JSON, DELTA, RAW)]
    town.say(deliver=True)
    town.turn()
    town.say()
    town.broker.lose()
    town.say(deliver=True)
    town.turn()
    assert [ear.gaps for ear in ears] == [1, 1, 0]
    assert [offsets(ear) for ear in ears] == [[1], [1], [1, 3]]
    back = arrived(town, town.ear(), since=ears[0].position)
    assert offsets(back) == [2, 3]


def test_another_epoch_is_a_gap() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    town.say(deliver=True)
    town.turn()
    town.broker.reset("news")
    town.say(deliver=True)  # an offset that was heard, of a stream that was not
    town.turn()
    assert ear.gaps == 1
    back = arrived(town, town.ear(), since=ear.position)
    assert back.seat.recovery == Recovery(False)
    assert back.seat.top == Position(1, "epoch2")


def test_a_gap_while_a_client_comes_is_no_recovery() -> None:
    town = Town(KEPT)
    arrived(town, town.ear())
    epoch = town.say(deliver=True).epoch
    ear = town.ear()
    ear.come(since=Position(0, epoch))
    town.broker.process()
    town.broker.answer()
    town.broker.process()
    town.say()
    town.broker.lose()
    town.say(deliver=True)
    town.broker.answer()
    assert ear.seat.recovery == Recovery(False)
    assert ear.seat.top.offset == 3
    town.say(deliver=True)
    town.turn()
    assert offsets(ear) == [4]


def test_an_epoch_that_changes_while_a_client_comes_is_no_recovery() -> None:
    town = Town(KEPT)
    epoch = town.say().epoch
    ear = town.ear()
    ear.come(since=Position(0, epoch))
    town.broker.process()
    town.broker.answer()
    town.broker.process()  # read of the old stream
    town.broker.reset("news")
    town.say(deliver=True)  # of the new one
    town.broker.answer()
    assert ear.seat.recovery == Recovery(False)
    assert ear.seat.top == Position(1, "epoch2")
    town.say(deliver=True)
    town.turn()
    assert offsets(ear) == [2]
    look_twice(town)
    assert ear.gaps == 0  # the old position was only late news


@pytest.mark.parametrize("step", [0, 1])
def test_an_error_on_the_way_is_told_and_lets_go(step: int) -> None:
    town = Town(KEPT)
    ear = town.ear()
    ear.come()
    for number in range(step + 1):
        town.broker.process()
        town.broker.answer(fails=number == step)
    [answer] = ear.answers
    assert isinstance(answer, BrokerError)
    assert town.node.audiences == {}
    town.broker.settle()
    assert town.broker.heard == set()


def test_an_error_for_one_is_none_for_another() -> None:
    town = Town(KEPT)
    unlucky, lucky = town.ear(), town.ear()
    unlucky.come()
    lucky.come()
    town.broker.process()
    town.broker.process()
    town.broker.answer(fails=True)
    town.broker.settle()
    town.say(deliver=True)
    town.turn()
    assert isinstance(unlucky.answers[-1], BrokerError)
    assert offsets(lucky) == [1]


@pytest.mark.parametrize("answered", [0, 1])
def test_who_turns_back_leaves_nothing(answered: int) -> None:
    town = Town(KEPT)
    ear = town.ear()
    ear.come()
    for _ in range(answered):
        town.broker.process()
        town.broker.answer()
    ear.go()
    town.broker.settle()
    assert ear.answers == []
    assert town.node.audiences == {}
    assert town.node.hub.subscriptions == 0
    assert town.broker.heard == set()


@pytest.mark.parametrize("first_answer", [0, 1])
def test_who_turns_back_and_comes_again_is_seated_once(first_answer: int) -> None:
    town = Town(KEPT)
    ear = town.ear()
    ear.come()
    ear.go()
    ear.come()
    town.broker.process()
    town.broker.process()
    town.broker.answer(first_answer)
    town.broker.settle()
    town.say(deliver=True)
    town.turn()
    assert offsets(ear) == [1]
    assert town.node.hub.subscriptions == 1
    ear.go()
    town.broker.settle()
    assert town.node.audiences == {}
    assert town.broker.heard == set()


def test_raw_and_plain_need_no_history() -> None:
    for options, reading in ((PLAIN, JSON), (PLAIN, RAW)):
        town = Town(options)
        ear = arrived(town, town.ear(reading))
        assert ear.seat.top is UNKNOWN
        assert town.broker.histories == 0


def test_raw_subscribers_miss_nothing_when_the_first_with_a_position_comes() -> None:
    """The raw one learns where the stream stands, so that what is on its way is not taken for old."""
    town = Town(KEPT)
    raw = arrived(town, town.ear(RAW))
    town.say()
    arrived_before_delivery(town, Position(0, ""))
    town.broker.deliver_all()
    town.turn()
    assert offsets(raw) == [1]
    arrived(town, town.ear(RAW))
    assert town.broker.histories == 2  # and nobody asks what is known


def test_a_channel_is_let_go_of_with_its_last_listener() -> None:
    town = Town(KEPT)
    one, other = arrived(town, town.ear()), arrived(town, town.ear(DELTA))
    audience = town.node.audiences["news"]
    assert len(audience.lanes) == len(audience.encoders) == 2
    one.go()
    assert len(audience.lanes) == len(audience.encoders) == 1
    assert not town.broker.asked
    other.go()
    other.go()
    town.broker.settle()
    assert town.node.audiences == {}
    assert town.broker.heard == set()
    assert town.node.hub.channels == {}


def test_what_is_left_over_from_an_earlier_subscription_says_nothing_about_the_new_one() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    left_over = town.say()
    ear.go()
    town.broker.process()  # nobody listens
    last = town.say()
    ear.come(since=Position(0, left_over.epoch))
    town.broker.process()
    town.broker.deliver()  # to nobody who is there yet
    town.broker.settle()
    assert ear.position == last
    assert offsets(ear) == [1, 2]
    look_twice(town)
    assert ear.gaps == 0


def test_a_channel_that_was_let_go_of_starts_afresh() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    town.say(deliver=True)
    town.turn()
    position = ear.position
    ear.go()
    town.broker.settle()
    town.say()
    assert not town.broker.underway
    arrived(town, ear, since=position)
    assert offsets(ear) == [1, 2]


@pytest.mark.parametrize("path", ["/ws/news", "/connection/websocket"])
@pytest.mark.parametrize("answered", [0, 1])
def test_a_connection_that_ends_before_the_broker_answers_leaves_nothing(path: str, answered: int) -> None:
    home = dialect_house(options=KEPT)
    broker = LateBroker(home.node)
    home.node.broker = broker
    connection, transport = home.open(path)
    if path != "/ws/news":
        lines = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"news","recover":true}}'
        connection.data_received(wire.text(lines))
    assert home.node.audiences
    for _ in range(answered):
        broker.process()
        broker.answer()
    transport.lose()
    broker.settle()
    home.loop.settle()
    quiet(home)
    assert broker.heard == set()


# Positions


def test_the_loss_of_the_last_message_is_found() -> None:
    town = Town(KEPT)
    ears = [arrived(town, town.ear(reading)) for reading in (JSON, DELTA)]
    position = town.say(deliver=True)
    town.turn()
    last = town.say()
    town.broker.lose()
    look_twice(town)
    assert [ear.gaps for ear in ears] == [1, 1]
    town.broker.settle()
    back = arrived(town, ears[0], since=position)
    assert back.position == last
    assert offsets(back) == [1, 2]
    look_twice(town)
    assert back.gaps == 1


def test_a_new_epoch_of_a_silent_stream_is_found() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    town.broker.reset("news")
    look_twice(town)
    assert ear.gaps == 1


def test_a_publication_in_flight_is_no_false_alarm() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    for _ in range(3):
        for look in (town.node.check_positions, town.node.check_suspects):
            town.broker.deliver_all()  # what was under way has come when it is looked at again
            town.say()  # but the channel is busy, and the broker always ahead
            look()
            while town.broker.asked:
                town.broker.process()
                town.broker.answer()
    town.broker.deliver_all()
    town.turn()
    assert ear.gaps == 0
    assert offsets(ear) == [1, 2, 3, 4, 5, 6]


def test_a_client_that_comes_finds_what_the_others_have_lost() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    town.say(deliver=True)
    town.turn()
    epoch = town.say().epoch
    town.broker.lose()
    other = arrived(town, town.ear(), since=Position(0, epoch))
    assert offsets(other) == [1]
    town.node.check_suspects()
    town.broker.settle()
    assert ear.gaps == other.gaps == 1


def test_what_the_broker_cannot_say_is_asked_again() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    town.say()
    town.broker.lose()
    for look in (town.node.check_positions, town.node.check_positions, town.node.check_suspects):
        look()
        town.broker.process()
        town.broker.answer(fails=look == town.node.check_suspects)
    assert ear.gaps == 0
    town.node.check_suspects()
    town.broker.settle()
    assert ear.gaps == 1


@pytest.mark.parametrize("channel", [None, "news", "elsewhere"])
def test_a_broker_that_may_have_lost_something_makes_us_look(channel: str | None) -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    town.say()
    town.broker.lose()
    town.node.lost(channel)
    town.broker.settle()
    town.node.check_suspects()
    town.broker.settle()
    assert ear.gaps == (0 if channel == "elsewhere" else 1)


def test_nobody_asks_about_channels_without_positions() -> None:
    town = Town(KEPT, {"plain": PLAIN})
    arrived(town, town.ear(RAW))
    arrived(town, town.ear(JSON, "plain:news"))
    asked = town.broker.histories
    look_twice(town)
    town.node.lost(None)
    assert town.broker.histories == asked


def test_an_answer_for_an_audience_that_has_gone_is_for_nobody() -> None:
    town = Town(KEPT)
    ear = arrived(town, town.ear())
    town.say()
    town.broker.lose()
    town.node.check_positions()
    town.broker.process()
    ear.go()
    arrived_anew = town.ear()
    arrived_anew.come()
    town.broker.settle()
    look_twice(town)
    assert arrived_anew.gaps == 0


# Recovery, with the memory broker


def remembering(options: ChannelOptions = KEPT, *, is_cache: bool = False) -> tuple[Town, Clock]:
    clock = Clock()

    def broker(node: Node) -> MemoryBroker:
        epochs = iter(range(1, 100))
        return MemoryBroker(node, clock, lambda: f"epoch{next(epochs)}")

    return Town(options, broker=broker, is_cache=is_cache), clock


def publish(town: Town, count: int) -> None:
    """Publish numbered publications; the first epoch is the only one."""
    for _ in range(count):
        stream = town.broker._streams.get("news")
        offset = stream.top + 1 if stream else 1
        town.publish(numbered(Position(offset, stream.epoch if stream else "epoch1")), is_json=True)


@pytest.mark.parametrize(
    ("published", "since", "recovered", "count"),
    [
        pytest.param(0, Position(0, ""), True, 0, id="empty"),
        pytest.param(10, Position(8, "epoch1"), True, 2, id="two missed"),
        pytest.param(20, Position(8, "epoch1"), False, 0, id="too many missed"),
        pytest.param(20, Position(10, "epoch1"), True, 10, id="all that is kept"),
        pytest.param(20, Position(9, "epoch1"), False, 0, id="one more than is kept"),
        pytest.param(10, Position(108, "epoch1"), False, 0, id="from the future"),
        pytest.param(10, Position(10, "epoch1"), True, 0, id="same position"),
        pytest.param(4, Position(0, "epoch1"), True, 4, id="from the beginning"),
        pytest.param(4, Position(0, ""), True, 4, id="from the beginning, of any epoch"),
        pytest.param(10, Position(8, "epoch0"), False, 0, id="another epoch"),
        pytest.param(10, Position(10, "epoch0"), False, 0, id="another epoch, same offset"),
    ],
)
def test_recovery(published: int, since: Position, recovered: bool, count: int) -> None:
    town, _ = remembering()
    publish(town, published)
    ear = town.ear()
    ear.come(since)
    assert ear.seat.recovery is not None
    assert ear.seat.recovery.recovered is recovered
    assert offsets(ear) == list(range(since.offset + 1, since.offset + 1 + count))
    assert ear.seat.top == Position(published, "epoch1")
    publish(town, 1)
    town.turn()
    assert offsets(ear)[-1] == published + 1


@pytest.mark.parametrize(("offset", "recovered"), [(8, False), (10, True)])
def test_recovery_of_an_expired_stream(offset: int, recovered: bool) -> None:
    town, clock = remembering()
    publish(town, 10)
    clock.advance(301)
    ear = town.ear()
    ear.come(Position(offset, "epoch1"))
    assert ear.seat.recovery == Recovery(recovered)


@pytest.mark.parametrize(("missing", "recovered"), [(0, True), (1, False)])
def test_more_than_a_client_may_hold_is_not_recovered(missing: int, recovered: bool) -> None:
    town, _ = remembering()
    publish(town, 3)
    size = sum(json_codec.sizes(town.broker._streams["news"].read(town.clock())))
    ear = town.ear()
    ear.come(Position(0, "epoch1"), most_bytes=size - missing)
    assert len(ear.heard) == (3 if recovered else 0)
    assert ear.seat.recovery is not None
    assert ear.seat.recovery.recovered is recovered


@pytest.mark.parametrize(("offset", "is_seated"), [(1, True), (0, False)])
def test_rather_no_place_than_one_that_has_not_recovered(offset: int, is_seated: bool) -> None:
    town, _ = remembering()
    publish(town, 11)
    ear = town.ear()
    ear.come(Position(offset, "epoch1"), needs_recovery=True)
    [answer] = ear.answers
    assert isinstance(answer, Seat if is_seated else Unrecovered)
    assert bool(town.node.audiences) is is_seated
    assert town.broker._heard == ({"news"} if is_seated else set())


def test_who_wants_the_latest_or_nothing_comes_to_a_place_where_nothing_was_said() -> None:
    options = ChannelOptions(retention=Retention(10, 300.0), recovery_mode=RecoveryMode.CACHE)
    town, _ = remembering(options, is_cache=True)
    ear = town.ear()
    ear.come(Position(0, ""), needs_recovery=True)
    assert ear.seat.recovery == Recovery(False)


@pytest.mark.parametrize(("limit", "since", "recovered"), [(2, 1, True), (2, 0, False), (None, 0, True)])
def test_more_than_may_be_recovered_in_number_is_not_recovered(limit: int | None, since: int, recovered: bool) -> None:
    town, _ = remembering(ChannelOptions(retention=Retention(10, 300.0), recovery_limit=limit))
    publish(town, 3)
    ear = town.ear()
    ear.come(Position(since, "epoch1"))
    assert ear.seat.recovery is not None
    assert ear.seat.recovery.recovered is recovered
    assert len(ear.heard) == (3 - since if recovered else 0)


@pytest.mark.parametrize(
    ("published", "since", "recovery"),
    [
        (0, Position(0, ""), Recovery(False)),
        (3, Position(0, ""), [3]),
        (3, Position(1, "epoch1"), [3]),
        (3, Position(3, "epoch1"), UP_TO_DATE),
        (3, Position(3, "epoch0"), [3]),
        (30, Position(3, "epoch1"), [30]),
    ],
)
def test_cache_recovery(published: int, since: Position, recovery: Recovery | list[int]) -> None:
    options = ChannelOptions(retention=Retention(10, 300.0), recovery_mode=RecoveryMode.CACHE)
    town, _ = remembering(options, is_cache=True)
    publish(town, published)
    ear = town.ear()
    ear.come(since)
    if isinstance(recovery, Recovery):
        assert ear.seat.recovery == recovery
    else:
        assert ear.seat.recovery is not None
        assert ear.seat.recovery.recovered
        assert [publication.offset for publication in ear.seat.recovery.publications] == recovery
    publish(town, 1)
    town.turn()
    assert offsets(ear) == [published + 1]


def test_cache_recovery_takes_what_came_with_the_answer() -> None:
    options = ChannelOptions(retention=Retention(10, 300.0), recovery_mode=RecoveryMode.CACHE)
    town = Town(options, is_cache=True)
    town.say()
    ear = town.ear()
    ear.come(Position(0, ""))
    town.broker.process()
    town.broker.answer()
    town.broker.process()
    town.say(deliver=True)
    town.broker.answer()
    assert ear.seat.recovery is not None
    assert [publication.offset for publication in ear.seat.recovery.publications] == [2]


# The rest of what a node does


def test_a_publication_without_history_on_a_channel_with_one_is_heard_without_an_offset() -> None:
    town, _ = remembering()
    ear = town.ear()
    ear.come()
    publish(town, 1)
    said: list[Published | BrokerError] = []
    town.node.publish("news", Publication(numbered(Position(0, "epoch0"))), said.append, Terms())
    publish(town, 1)
    town.turn()
    assert offsets(ear) == [1, 0, 2]
    assert said == [Published()]
    assert ear.position == Position(2, "epoch1")


def test_relief_waits_for_every_lane() -> None:
    town, _ = remembering(PLAIN)
    called: list[str] = []
    town.node.on_relief("news", lambda: called.append("nobody there"))
    town.ear(RAW).come()
    town.ear().come()
    town.node.on_relief("news", lambda: called.append("free"))
    assert called == ["nobody there", "free"]
    heavy = numbered(Position(0, "epoch0")).replace(b".", b"." * CONGESTION_BYTES, 1)
    said: list[Published | BrokerError] = []
    town.node.publish("news", Publication(heavy), said.append)
    assert said == [Published(keeps_up=False)]
    town.node.on_relief("news", lambda: called.append("relief"))
    assert called == ["nobody there", "free"]
    town.turn()
    assert called == ["nobody there", "free", "relief"]


def test_joins_reach_those_who_asked_for_them() -> None:
    town, _ = remembering(ChannelOptions(join_leave=True))
    curious, other, raw = town.ear(JSON._replace(joins=True)), town.ear(), town.ear(RAW)
    for ear in (curious, other, raw):
        ear.come()
    info = ClientInfo("ann", "c1")
    town.node.hear_join("news", info)
    town.node.hear_leave("news", info)
    town.node.hear_join("empty", info)
    town.turn()
    who = {"user": "ann", "client": "c1"}
    assert curious.news == [
        {"channel": "news", "join": {"info": who}},
        {"channel": "news", "leave": {"info": who}},
    ]
    assert other.news == []
    assert raw.writes == 0


def test_listeners_are_all_who_are_there() -> None:
    town, _ = remembering()
    ears = [town.ear(JSON), town.ear(RAW), town.ear(JSON)]
    for ear in ears:
        ear.come()
    town.ear(JSON, "elsewhere").come()
    assert {owner for _, owner in town.node.listeners("news")} == set(ears)
    assert list(town.node.listeners("nowhere")) == []
