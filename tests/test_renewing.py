"""New tokens of a Centrifuge client, for its connection and for its subscriptions: good ones, and all others."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.forgeries import FUTURE, signed
from tests.speaker import DENIED, EXPIRED, connected, error, jwt_house, soon

ANN: Final = {"sub": "ann", "exp": FUTURE}
CLAIMS: Final = ANN | {"channel": "shut"}
INVALID: Final = (3500, "invalid token")

# Of the connection


def test_a_refresh_prolongs_it() -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": soon(home, 100)}))
    home.tick(100.0)
    token = signed({"sub": "ann", "exp": soon(home, 300), "info": {"name": "Ann"}})
    answer = '{"id":2,"refresh":{"client":"ME","version":"Stentor test","expires":true,"ttl":300}}'
    assert ann.asks(f'{{"id":2,"refresh":{{"token":"{token}"}}}}') == [answer]
    home.tick(320.0)
    assert ann.hears() == []
    assert ann.close is None
    endless = signed({"sub": "ann", "exp": FUTURE, "expire_at": 0})
    answer = '{"id":3,"refresh":{"client":"ME","version":"Stentor test"}}'
    assert ann.asks(f'{{"id":3,"refresh":{{"token":"{endless}"}}}}') == [answer]
    home.tick(1_000_000.0)
    assert ann.hears() == []
    assert ann.close is None


@pytest.mark.parametrize(
    ("token", "end"),
    [
        (signed(ANN | {"sub": "bob"}), INVALID),
        (signed(ANN, "x" * 40), INVALID),
        (signed(ANN | {"channel": "news"}), INVALID),
        ("", INVALID),
        # An SDK that gets an error gives up; this one makes it come back with a new one.
        (signed(ANN | {"exp": 1}), (3005, "connection expired")),
    ],
    ids=["another user", "forged", "for a subscription", "none", "expired"],
)
def test_a_refresh_with_a_bad_token_ends_it(token: str, end: tuple[int, str]) -> None:
    ann = connected(jwt_house(), token=signed(ANN))
    assert ann.ends(f'{{"id":2,"refresh":{{"token":"{token}"}}}}') == end


def test_the_server_may_prolong_it_by_itself() -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": soon(home, 100)}))
    ann.session.prolong(soon(home, 200))
    assert ann.hears() == ['{"push":{"refresh":{"expires":true,"ttl":200}}}']
    home.tick(200.0)
    assert ann.close is None
    ann.session.prolong(None)
    assert ann.hears() == ['{"push":{"refresh":{}}}']
    home.tick(1000.0)
    assert ann.close is None


# Of a subscription


def test_a_subscription_that_is_prolonged_for_ever() -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
    ann.subscribes("shut", token=signed(CLAIMS | {"exp": soon(home, 100)}))
    token = signed(CLAIMS | {"expire_at": 0})
    assert ann.asks(f'{{"id":3,"sub_refresh":{{"channel":"shut","token":"{token}"}}}}') == ['{"id":3,"sub_refresh":{}}']
    assert not home.service.expiring


@pytest.mark.parametrize(
    ("claims", "key", "fault"),
    [
        ({"sub": "bob"}, None, DENIED),
        ({"channel": "other"}, None, DENIED),
        ({}, "x" * 40, DENIED),
        ({"exp": 1}, None, EXPIRED),
    ],
)
def test_a_bad_token_refreshes_nothing(claims: dict[str, Any], key: str | None, fault: tuple[int, str]) -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
    ann.subscribes("shut", token=signed(CLAIMS | {"exp": soon(home, 100)}))
    token = signed(CLAIMS | claims, key) if key else signed(CLAIMS | claims)
    assert ann.asks(f'{{"id":3,"sub_refresh":{{"channel":"shut","token":"{token}"}}}}') == [error(3, *fault)]
    (deadline,) = home.service.expiring.values()
    assert deadline == pytest.approx(home.clock() + 125, abs=1.1)
