"""What all sessions share: times that are told to clients, and what is done once a second."""

from __future__ import annotations

import pytest

from server.edge.centrifuge.service import EXPIRY_GRACE, MAX_TTL
from server.edge.claims import Grant
from tests.house import house
from tests.speaker import connected, dialect_house, quiet

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("expires", "ttl"),
    [
        (NOW + 60, 60),
        (NOW + 60.6, 61),
        (NOW + 0.2, 1),  # 0 would be never
        (NOW - 100, 1),
        (NOW + MAX_TTL + 1, MAX_TTL),
        (2.0**64, MAX_TTL),  # more than 32 bits of Protobuf hold
    ],
)
def test_a_client_is_told_of_whole_seconds_that_it_can_count(expires: float, ttl: int) -> None:
    assert house(wall_clock=lambda: NOW).service.ttl(expires) == ttl


def test_a_wall_clock_that_jumps_later_moves_no_deadline() -> None:
    wall = [NOW]
    home = house(wall_clock=lambda: wall[0])
    deadline = home.service.deadline(NOW + 60)
    assert deadline == home.clock() + 60 + EXPIRY_GRACE
    assert home.service.moment(NOW + 60) == home.clock() + 60
    home.clock.advance(10.0)
    wall[0] += 86_400
    assert home.service.moment(NOW + 86_400) < deadline


class Lasting:
    """Lets everyone subscribe until a moment, given in Unix time."""

    def __init__(self, expires: float) -> None:
        self.expires = expires

    def check(self, token: str, *, channel: str, user: str) -> Grant:
        return Grant(self.expires)


def test_the_end_of_one_subscription_may_be_that_of_others() -> None:
    home = dialect_house(subscription_tokens=Lasting(NOW + 10))
    alice, bob = connected(home), connected(home, "BOB")
    for channel in ("a", "b"):
        assert alice.subscribes(channel, token="x") == {"expires": True, "ttl": 10}
        bob.subscribes(channel, token="x")
    # Put there by the server: its end is the end of the connection, and so of the other one.
    assert alice.session.enter("c", expires=NOW + 5) is None
    alice.hears()
    home.clock.advance(10 + EXPIRY_GRACE)
    home.service.tick()
    assert alice.hears()[:2] == [
        '{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}',
        '{"push":{"channel":"b","unsubscribe":{"code":2501,"reason":"subscription expired"}}}',
    ]
    assert alice.close == (3006, "subscription expired")
    assert len(bob.hears()) == 2
    assert bob.close is None
    assert not home.service.expiring
    alice.goes()
    bob.goes()
    quiet(home)


def test_who_has_left_expires_no_more() -> None:
    home = dialect_house(subscription_tokens=Lasting(NOW + 10))
    alice = connected(home)
    alice.subscribes("a", token="x")
    alice.asks('{"id":3,"unsubscribe":{"channel":"a"}}')
    assert not home.service.expiring
    alice.subscribes("a", token="x")
    alice.goes()
    home.clock.advance(100.0)
    home.service.tick()
    quiet(home)
