"""Which clients are here, and who can be found."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from server.dialects.centrifuge.codes import Disconnect, Error, Unsubscribe
from server.node.registry import Member, Registry


@dataclass(frozen=True)
class Somebody:
    client: str
    user: str = ""

    def enter(
        self, channel: str, info: bytes = b"", data: bytes | None = None, expires: float | None = None
    ) -> Error | None: ...

    def throw_out(self, channel: str, why: Unsubscribe) -> bool: ...

    def prolong(self, expires: float | None) -> None: ...

    def end(self, disconnect: Disconnect) -> None: ...


ANN, ANN_TOO, BOB = Somebody("c1", "ann"), Somebody("c2", "ann"), Somebody("c3", "bob")
NOBODY, NOBODY_TOO = Somebody("c4"), Somebody("c5")


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    for member in (ANN, ANN_TOO, BOB, NOBODY, NOBODY_TOO):
        registry.enter(member)
    return registry


@pytest.mark.parametrize(
    ("user", "client", "found"),
    [
        ("ann", "", [ANN, ANN_TOO]),
        ("ann", "c2", [ANN_TOO]),
        ("ann", "c3", []),
        ("bob", "c3", [BOB]),
        ("", "", [NOBODY, NOBODY_TOO]),
        ("", "c5", [NOBODY_TOO]),
        ("", "c1", []),
        ("eve", "", []),
        ("eve", "c1", []),
    ],
)
def test_a_client_is_found_under_its_own_user_alone(
    registry: Registry, user: str, client: str, found: list[Member]
) -> None:
    assert registry.find(user, client) == found


def test_those_without_a_name_are_one_user(registry: Registry) -> None:
    assert (len(registry), registry.users) == (5, 3)
    assert set(registry) == {ANN, ANN_TOO, BOB, NOBODY, NOBODY_TOO}


def test_whoever_has_left_is_not_found(registry: Registry) -> None:
    registry.leave(ANN)
    registry.leave(ANN)
    assert registry.find("ann") == [ANN_TOO]
    registry.leave(ANN_TOO)
    assert registry.find("ann") == registry.find("ann", "c2") == []
    assert (len(registry), registry.users) == (3, 2)


def test_whoever_never_came_can_leave(registry: Registry) -> None:
    registry.leave(Somebody("c9", "ann"))
    registry.leave(Somebody("c9", "eve"))
    assert len(registry) == 5


def test_an_empty_registry_keeps_nothing() -> None:
    registry = Registry()
    registry.enter(ANN)
    registry.leave(ANN)
    assert (len(registry), registry.users, list(registry)) == (0, 0, [])


def test_those_who_leave_while_they_are_gone_through_do_no_harm(registry: Registry) -> None:
    for member in registry:
        registry.leave(member)
    for member in registry.find("ann"):
        registry.leave(member)
    assert len(registry) == 0
