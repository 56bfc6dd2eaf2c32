"""The fan-out by example; ``test_hub_laws.py`` holds its laws for whatever else may happen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.channel import MAX_BATCH_BYTES
from server.core.counters import Drop
from server.core.hub import CONGESTION_BYTES
from server.core.lag import ChannelTerms, LagLimits, LagPolicy
from server.core.outbox import Outbox
from server.core.subscription import Subscription
from tests.fakes import Clock, Loop
from tests.house import House, house


class Ear:
    """A client that listens: what each write brought it; it lags while `lags` is set."""

    def __init__(
        self,
        home: House,
        channel: str = "news",
        write: Callable[[bytes], object] | None = None,
        *,
        skips_pending: bool = False,
    ) -> None:
        self.writes: list[bytes] = []
        self.outbox = Outbox(self, home.backlog)
        terms = ChannelTerms(home.options.lag, home.options.batch_delay)
        self.subscription: Subscription = home.hub.subscribe(
            channel, self.outbox, write or self.writes.append, terms, skips_pending=skips_pending
        )
        self._home = home

    def lag(self) -> None:
        self.subscription.pause()
        self._home.backlog.laggards[self.outbox] = None

    def leave(self) -> None:
        self._home.hub.unsubscribe(self.subscription)
        self.outbox.discard(Drop.DISCONNECTED)


def test_a_publication_goes_out_with_the_next_turn_and_not_before() -> None:
    home = house()
    ear = Ear(home)
    assert home.hub.publish("news", b"a")
    assert ear.writes == []
    home.loop.turn()
    assert ear.writes == [b"a"]
    assert home.loop.is_idle


def test_all_that_one_turn_brings_is_one_write() -> None:
    home = house()
    ears = [Ear(home) for _ in range(3)]
    for frame in (b"a", b"b", b"c"):
        home.hub.publish("news", frame)
    home.loop.settle()
    assert [ear.writes for ear in ears] == [[b"abc"]] * 3
    counters = home.counters
    assert (counters.offered, counters.sent, counters.bytes_sent) == (9, 9, 9)
    assert (counters.batch_messages.sum, counters.batch_messages.count) == (3, 1)
    home.assert_balanced()


def test_every_client_is_given_the_very_same_bytes() -> None:
    home = house()
    ears = [Ear(home) for _ in range(3)]
    home.hub.publish("news", frame := b"a")
    home.loop.settle()
    assert all(ear.writes[0] is frame for ear in ears), "one publication alone is not even joined"
    home.hub.publish("news", b"a")
    home.hub.publish("news", b"b")
    home.loop.settle()
    assert len({id(ear.writes[1]) for ear in ears}) == 1


def test_channels_do_not_hear_each_other() -> None:
    home = house()
    news, sport = Ear(home, "news"), Ear(home, "sport")
    home.hub.publish("news", b"a")
    home.hub.publish("sport", b"b")
    home.hub.publish("weather", b"c")
    home.loop.settle()
    assert (news.writes, sport.writes) == ([b"a"], [b"b"])
    assert home.counters.offered == 2


def test_a_turn_writes_to_one_slice() -> None:
    home = house(fanout_slice=2)
    ears = [Ear(home) for _ in range(5)]
    home.hub.publish("news", b"a")
    seen = []
    while not home.loop.is_idle:
        home.loop.turn()
        seen.append([len(ear.writes) for ear in ears])
    assert seen == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("clients", [1, 2, 3, 4, 5, 6])
def test_slices_leave_nobody_out_and_nobody_twice(clients: int) -> None:
    home = house(fanout_slice=3)
    ears = [Ear(home) for _ in range(clients)]
    home.hub.publish("news", b"a")
    home.loop.settle()
    assert [ear.writes for ear in ears] == [[b"a"]] * clients


def test_what_comes_during_a_flush_waits_for_its_end() -> None:
    home = house(fanout_slice=1)
    ears = [Ear(home) for _ in range(2)]
    home.hub.publish("news", b"a")
    home.loop.turn()
    home.hub.publish("news", b"b")
    assert [ear.writes for ear in ears] == [[b"a"], []]
    home.loop.settle()
    assert [ear.writes for ear in ears] == [[b"a", b"b"]] * 2


def test_a_large_channel_does_not_hold_up_a_small_one() -> None:
    home = house(fanout_slice=2)
    crowd = [Ear(home, "crowd") for _ in range(10)]
    few = Ear(home, "few")
    home.hub.publish("crowd", b"a")
    home.hub.publish("few", b"b")
    home.loop.turn()
    assert few.writes == []
    home.loop.turn()
    assert few.writes == [b"b"]
    assert sum(len(ear.writes) for ear in crowd) < 10


def test_who_comes_during_a_flush_hears_the_next_one() -> None:
    home = house(fanout_slice=1)
    first = [Ear(home) for _ in range(2)]
    home.hub.publish("news", b"a")
    home.loop.turn()
    late = Ear(home)
    home.hub.publish("news", b"b")
    home.loop.settle()
    assert [ear.writes for ear in first] == [[b"a", b"b"]] * 2
    assert late.writes == [b"b"]
    assert home.counters.offered == 5
    home.assert_balanced()


def test_who_leaves_during_a_flush_was_offered_nothing() -> None:
    home = house(fanout_slice=1)
    ears = [Ear(home) for _ in range(3)]
    home.hub.publish("news", b"a")
    home.loop.turn()
    ears[1].leave()
    home.loop.settle()
    assert [ear.writes for ear in ears] == [[b"a"], [], [b"a"]]
    assert (home.counters.offered, home.counters.sent) == (2, 2)
    home.assert_balanced()


def test_all_may_leave_during_a_flush() -> None:
    home = house(fanout_slice=1)
    ears = [Ear(home) for _ in range(3)]
    home.hub.publish("news", b"a")
    home.loop.turn()
    for ear in ears:
        ear.leave()
    home.loop.settle()
    assert (home.counters.offered, home.counters.sent) == (1, 1)
    assert home.hub.channels == {}


def test_leaving_is_idempotent() -> None:
    home = house()
    ear = Ear(home)
    home.hub.unsubscribe(ear.subscription)
    home.hub.unsubscribe(ear.subscription)
    assert home.hub.subscriptions == 0


def test_a_channel_lives_while_someone_listens_or_something_waits() -> None:
    home = house()
    home.hub.publish("news", b"nobody")
    assert home.hub.channels == {}, "publishing alone makes no channel"
    ear, other = Ear(home), Ear(home)
    assert (list(home.hub.channels), home.hub.subscriptions) == (["news"], 2)
    ear.leave()
    home.hub.publish("news", b"a")
    other.leave()
    assert list(home.hub.channels) == ["news"], "its flush is under way"
    home.loop.settle()
    assert (home.hub.channels, home.hub.subscriptions) == ({}, 0)


def test_a_channel_that_was_left_and_found_again_starts_afresh() -> None:
    home = house()
    Ear(home).leave()
    ear = Ear(home)
    home.hub.publish("news", b"a")
    home.loop.settle()
    assert ear.writes == [b"a"]


def test_a_client_may_come_back_while_its_old_self_s_flush_is_under_way() -> None:
    home = house(fanout_slice=1)
    ears = [Ear(home) for _ in range(2)]
    home.hub.publish("news", b"a")
    home.loop.turn()
    for ear in ears:
        ear.leave()
    back = Ear(home)
    home.hub.publish("news", b"b")
    home.loop.settle()
    assert back.writes == [b"b"]


def test_a_laggard_gets_what_the_others_got_from_its_outbox() -> None:
    home = house()
    ear, laggard = Ear(home), Ear(home)
    laggard.lag()
    home.hub.publish("news", b"a")
    home.hub.publish("news", b"b")
    home.loop.settle()
    assert (ear.writes, laggard.writes) == ([b"ab"], [])
    assert (home.counters.offered, home.counters.sent, home.backlog.messages) == (4, 2, 2)
    assert laggard.outbox.take(1000) == b"ab"
    home.assert_balanced()


def test_a_write_that_raises_is_a_drop_and_stops_nobody_else() -> None:
    def raise_broken_pipe(wire: bytes) -> None:
        raise BrokenPipeError("gone")

    home = house()
    ears = [Ear(home), Ear(home, write=raise_broken_pipe), Ear(home)]
    home.hub.publish("news", b"a")
    home.hub.publish("news", b"b")
    home.loop.settle()
    assert (ears[0].writes, ears[2].writes) == ([b"ab"], [b"ab"])
    assert (home.counters.offered, home.counters.sent) == (6, 4)
    assert home.counters.bytes_sent == 4
    assert home.counters.dropped[Drop.DISCONNECTED] == 2
    assert len(home.reports) == 1
    assert "gone" in home.reports[0]
    home.assert_balanced()


def test_an_outbox_that_overflows_sends_its_owner_away_after_the_slice() -> None:
    home = house(LagLimits(LagPolicy.DISCONNECT, messages=1, bytes=100))
    ears = [Ear(home) for _ in range(3)]
    ears[1].lag()
    home.hub.publish("news", b"a")
    home.hub.publish("news", b"b")
    home.loop.settle()
    assert home.evicted == [(ears[1], "queue full")]
    assert [ear.writes for ear in ears] == [[b"ab"], [], [b"ab"]]
    home.assert_balanced()


def test_the_budget_is_looked_at_after_every_slice() -> None:
    home = house(budget=10, fanout_slice=2)
    ears = [Ear(home) for _ in range(4)]
    for ear in ears:
        ear.lag()
    home.hub.publish("news", b"12345")
    home.loop.turn()
    assert home.evicted == []
    home.loop.turn()
    assert home.evicted == [(ears[0], "memory budget"), (ears[1], "memory budget")]
    assert home.backlog.bytes == 10
    home.assert_balanced()


def test_a_turn_carries_so_many_bytes_and_no_more() -> None:
    home = house()
    ear = Ear(home)
    frames = [bytes([number]) * (MAX_BATCH_BYTES // 2) for number in range(5)]
    for frame in frames:
        home.hub.publish("news", frame)
    home.loop.settle()
    assert ear.writes == [frames[0] + frames[1], frames[2] + frames[3], frames[4]]


def test_a_publication_larger_than_a_batch_goes_alone() -> None:
    home = house()
    ear = Ear(home)
    large = b"L" * (MAX_BATCH_BYTES + 1)
    for frame in (b"a", large, b"b"):
        home.hub.publish("news", frame)
    home.loop.settle()
    assert ear.writes == [b"a", large, b"b"]


def test_a_congested_channel_asks_its_publishers_to_wait_and_calls_them_back_once() -> None:
    home = house()
    ear = Ear(home)
    half = b"h" * (CONGESTION_BYTES // 2)
    relieved: list[str] = []
    assert home.hub.publish("news", half)
    home.hub.on_relief("news", lambda: relieved.append("not congested"))
    assert relieved == ["not congested"]
    assert not home.hub.publish("news", half)
    assert not home.hub.publish("news", b"taken all the same")
    home.hub.on_relief("news", lambda: relieved.append("one"))
    home.hub.on_relief("news", lambda: relieved.append("two"))
    assert relieved == ["not congested"]
    home.loop.turn()
    assert relieved == ["not congested", "one", "two"]
    home.loop.settle()
    assert relieved == ["not congested", "one", "two"]
    assert b"".join(ear.writes) == half + half + b"taken all the same"


def test_a_congested_channel_that_everybody_leaves_relieves_its_publishers() -> None:
    home = house()
    ear = Ear(home)
    assert not home.hub.publish("news", b"h" * CONGESTION_BYTES)
    relieved: list[bool] = []
    home.hub.on_relief("news", lambda: relieved.append(True))
    ear.leave()
    home.loop.settle()
    assert relieved == [True]
    assert home.hub.channels == {}


def test_who_publishes_where_nobody_listens_never_waits() -> None:
    home = house()
    relieved: list[bool] = []
    assert home.hub.publish("news", b"h" * CONGESTION_BYTES)
    home.hub.on_relief("news", lambda: relieved.append(True))
    assert relieved == [True]


def test_batch_delay_gathers() -> None:
    clock = Clock()
    loop = Loop(clock)
    home = house(loop=loop, clock=clock, batch_delay=0.5)
    ear = Ear(home)
    home.hub.publish("news", b"a")
    assert loop.timers == [1000.5]
    clock.advance(0.4)
    home.hub.publish("news", b"b")
    loop.turn()
    assert (ear.writes, loop.timers) == ([], [1000.5])
    clock.advance(0.1)
    loop.turn()
    loop.settle()
    assert ear.writes == [b"ab"]
    home.hub.publish("news", b"c")
    assert loop.timers == [1001.0]


def test_what_is_too_much_for_one_write_does_not_wait_again() -> None:
    clock = Clock()
    loop = Loop(clock)
    home = house(loop=loop, clock=clock, batch_delay=0.5)
    ear = Ear(home)
    for letter in (b"a", b"b", b"c"):
        home.hub.publish("news", letter * MAX_BATCH_BYTES)
    clock.advance(0.5)
    loop.turn()
    loop.settle()
    assert [write[:1] for write in ear.writes] == [b"a", b"b", b"c"]
    assert loop.timers == []


def test_durations_are_measured_by_the_clock() -> None:
    home = house(fanout_slice=1)
    for _ in range(2):
        Ear(home)
    home.hub.publish("news", b"a")
    home.clock.advance(1.0)
    home.hub.publish("news", b"b")
    home.clock.advance(2.0)
    home.loop.turn()
    home.clock.advance(4.0)
    home.loop.turn()
    counters = home.counters
    assert (counters.fanout_duration.sum, counters.fanout_duration.count) == (4.0, 1)
    assert (counters.publish_to_write.sum, counters.publish_to_write.count) == (7.0 + 6.0, 2)


def test_what_is_gathered_is_written_when_the_last_who_had_gathered_it_is() -> None:
    home = house(fanout_slice=2)
    clients = [Listener(home, "a", "b") for _ in range(3)]
    ear = Ear(home, "b")
    counters = home.counters
    publish_on_all(home, "a")
    home.clock.advance(1.0)
    home.loop.turn()
    assert [bool(client.outbox.messages) for client in clients] == [False, False, True]
    assert counters.publish_to_write.count == 0
    publish_on_all(home, "b")
    home.clock.advance(2.0)
    home.loop.turn()
    assert len(ear.writes) == 1
    assert (counters.publish_to_write.count, counters.publish_to_write.sum) == (1, 3.0)
    home.clock.advance(4.0)
    home.loop.settle()
    assert (counters.publish_to_write.count, counters.publish_to_write.sum) == (2, 3.0 + 6.0)
    assert (counters.fanout_duration.count, counters.fanout_duration.sum) == (2, 2.0 + 4.0)


def test_what_fits_a_turn_is_with_all_who_gather_it_after_that_turn() -> None:
    home = house(fanout_slice=20)
    channels = [f"channel {number}" for number in range(20)]
    clients = [Listener(home, *channels) for _ in range(16)]
    publish_on_all(home, *channels)
    home.loop.turn()
    assert home.counters.sent == home.counters.offered == 20 * 16
    assert all(len(client.writes) == 1 for client in clients)


def test_a_channel_says_what_it_is() -> None:
    home = house()
    ear = Ear(home)
    home.hub.publish("news", b"a")
    assert repr(ear.subscription.channel) == "<Channel 'news' 1 subscribed, 1 pending>"


class Listener:
    """A client on several channels, whose subscriptions gather."""

    def __init__(self, home: House, *channels: str, terms: ChannelTerms | None = None, lags: bool = False) -> None:
        self.writes: list[bytes] = []
        self.outbox = Outbox(self, home.backlog)
        terms = terms or ChannelTerms(home.options.lag)
        self.ears = {name: home.hub.subscribe(name, self.outbox, self.writes.append, terms) for name in channels}
        for ear in self.ears.values():
            ear.gather()
            if lags:
                ear.pause()
                home.backlog.laggards[self.outbox] = None

    def flush(self) -> None:
        while self.outbox.messages:
            self.writes.append(self.outbox.take(1 << 20))


def publish_on_all(home: House, *channels: str) -> None:
    for name in channels:
        home.hub.publish(name, name.encode())


def test_all_that_one_turn_brings_on_several_channels_is_one_write() -> None:
    home = house()
    client = Listener(home, "a", "b", "c")
    publish_on_all(home, "a", "b", "c")
    home.hub.publish("a", b"more")
    home.loop.turn()
    assert client.writes == [b"amorebc"]
    assert (home.counters.offered, home.counters.sent, home.counters.bytes_sent) == (4, 4, 7)
    assert home.loop.is_idle
    home.assert_balanced()


def test_appends_are_cheap_and_writes_are_not() -> None:
    home = house(fanout_slice=1)
    clients = [Listener(home, "a", "b") for _ in range(4)]
    publish_on_all(home, "a", "b")
    seen = []
    while not home.loop.is_idle:
        home.loop.turn()
        seen.append([len(client.writes) for client in clients])
        home.assert_balanced()
    # The first turn has room for one channel, and for one write; the second one for the other channel.
    assert seen == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [2, 1, 1, 1]]
    assert clients[3].writes == [b"ab"]


def test_who_lags_is_not_drained_by_the_hub() -> None:
    home = house()
    client = Listener(home, "a", "b", lags=True)
    publish_on_all(home, "a", "b")
    home.loop.settle()
    assert (client.writes, client.outbox.messages, list(home.backlog.dirty)) == ([], 2, [])


def test_who_leaves_before_the_end_of_the_turn_is_not_drained() -> None:
    home = house(fanout_slice=1)
    first, second = Listener(home, "a"), Listener(home, "a")
    publish_on_all(home, "a")
    home.loop.turn()
    assert (first.writes, second.writes) == ([b"a"], [])
    home.hub.unsubscribe(second.ears["a"])
    second.outbox.discard(Drop.DISCONNECTED)
    home.loop.settle()
    assert second.writes == []
    home.assert_balanced()


def test_a_newcomer_that_skips_gets_what_comes_after_it_and_nothing_else() -> None:
    home = house()
    old = Ear(home)
    home.hub.publish("news", b"a")
    late = Ear(home, skips_pending=True)
    home.hub.publish("news", b"b")
    latest = Ear(home, skips_pending=True)
    home.loop.settle()
    home.hub.publish("news", b"c")
    home.loop.settle()
    assert (old.writes, late.writes, latest.writes) == ([b"ab", b"c"], [b"b", b"c"], [b"c"])
    assert home.counters.offered == 3 + 3
    home.assert_balanced()


def test_legs_are_sliced_too() -> None:
    home = house(fanout_slice=2)
    old = [Ear(home) for _ in range(3)]
    home.hub.publish("news", b"a")
    late = [Ear(home, skips_pending=True) for _ in range(3)]
    home.hub.publish("news", b"b")
    seen = []
    while not home.loop.is_idle:
        home.loop.turn()
        seen.append([len(ear.writes) for ear in old + late])
    assert seen == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert {ear.writes[0] for ear in late} == {b"b"}


def test_a_newcomer_may_leave_during_the_flush() -> None:
    home = house(fanout_slice=1)
    Ear(home)
    home.hub.publish("news", b"a")
    late = Ear(home, skips_pending=True)
    home.hub.publish("news", b"b")
    home.loop.turn()
    late.leave()
    home.loop.settle()
    assert (late.writes, home.counters.offered) == ([], 2)
    home.assert_balanced()


def test_a_client_that_loses_a_part_of_a_stream_is_off_the_channel_and_told() -> None:
    home = house()
    terms = ChannelTerms(LagLimits(LagPolicy.DROP_OLDEST, messages=2), declares_gaps=True)
    quick, slow = Listener(home, "a", "b", terms=terms), Listener(home, "a", "b", terms=terms, lags=True)
    publish_on_all(home, "a", "a", "b", "b")
    home.loop.settle()
    assert home.gaps == [(slow, "a")]
    assert home.hub.subscribers("a") == [quick.ears["a"]]
    assert (quick.writes, slow.outbox.messages) == ([b"aabb"], 2)
    publish_on_all(home, "a", "a", "a")
    home.loop.settle()
    assert home.gaps == [(slow, "a")]
    assert home.counters.dropped[Drop.QUEUE_FULL] == 2
    home.assert_balanced()


def test_nobody_is_told_of_a_gap_who_has_left() -> None:
    home = house()
    terms = ChannelTerms(LagLimits(LagPolicy.DROP_OLDEST, messages=1), declares_gaps=True)
    slow = Listener(home, "a", "b", terms=terms, lags=True)
    publish_on_all(home, "a")
    home.loop.settle()
    assert home.hub.unsubscribe(slow.ears["a"])
    publish_on_all(home, "b")
    home.loop.settle()
    assert (home.gaps, slow.outbox.messages) == ([], 1)
    home.assert_balanced()


def test_what_waits_from_one_channel_can_be_dropped() -> None:
    home = house()
    client = Listener(home, "a", "b", lags=True)
    publish_on_all(home, "a", "b", "a")
    home.loop.settle()
    assert home.hub.unsubscribe(client.ears["a"])
    assert not home.hub.unsubscribe(client.ears["a"])
    for _ in range(2):
        home.hub.drop_pending(client.ears["a"])
        assert (client.outbox.messages, home.counters.dropped[Drop.DISCONNECTED]) == (1, 2)
    client.flush()
    assert client.writes == [b"b"]
    home.assert_balanced()


def test_laggards_get_the_latest_of_each_conflation_key() -> None:
    home = house(LagLimits(LagPolicy.CONFLATE))
    slow = Listener(home, "a", lags=True)
    for frame, key in ((b"1", "x"), (b"2", "y"), (b"3", "x"), (b"4", None)):
        home.hub.publish("a", frame, key)
        home.loop.settle()
    slow.flush()
    assert slow.writes == [b"234"]


def test_any_key_is_a_channel_and_it_lives_by_the_terms_of_its_first_subscriber() -> None:
    home = house()
    json, protobuf = ("news", "json"), ("news", "protobuf")
    first, second = (Outbox(name, home.backlog) for name in "ab")
    slow, writes = ChannelTerms(LagLimits(), batch_delay=0.5), list[bytes]()
    home.hub.subscribe(json, first, writes.append, slow)
    home.hub.subscribe(json, second, writes.append, ChannelTerms(LagLimits()))
    assert home.hub.publish(json, b"j")
    assert home.hub.publish(protobuf, b"p")
    assert (home.loop.timers, home.loop.is_idle) == ([1000.5], True)
    assert [subscription.outbox for subscription in home.hub.subscribers(json)] == [first, second]
    assert home.hub.subscribers(protobuf) == []


def test_a_channel_says_if_it_is_congested() -> None:
    home = house()
    Ear(home)
    home.hub.publish("news", b"h" * (CONGESTION_BYTES - 1))
    assert not home.hub.is_congested("news")
    home.hub.publish("news", b"h")
    assert home.hub.is_congested("news")
    assert not home.hub.is_congested("sport")


@given(
    st.lists(st.sets(st.sampled_from("abcdef"), min_size=2), min_size=1, max_size=12),
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), max_size=30),
    st.integers(1, 5),
)
def test_no_client_waits_for_more_than_one_sweep_over_those_who_wait(
    places: list[set[str]], turns: list[list[str]], fanout_slice: int
) -> None:
    home = house(fanout_slice=fanout_slice)
    clients = [Listener(home, *sorted(channels)) for channels in places]
    sweep = -(-len(clients) // fanout_slice)
    waited = [0] * len(clients)
    for published in turns + [[]] * 200:
        publish_on_all(home, *published)
        home.loop.turn()
        for number, client in enumerate(clients):
            # Whoever is waiting after a turn has been so since it last had nothing.
            waited[number] = waited[number] + 1 if client.outbox.messages else 0
        assert max(waited) <= sweep
    assert home.loop.is_idle
    assert all(not client.outbox.messages for client in clients)
    assert home.counters.sent == home.counters.offered
