"""The rules of a channel are found by its name."""

from __future__ import annotations

import dataclasses

import pytest

from server.brokers.base import Retention, Terms
from server.core.lag import LagLimits, LagPolicy
from server.node.namespaces import ChannelOptions, Namespaces, RecoveryMode

DEFAULT = ChannelOptions()
NEWS = ChannelOptions(presence=True)
EMPTY = ChannelOptions(delta=True)


@pytest.mark.parametrize(
    ("channel", "options"),
    [
        ("news:today", NEWS),
        ("news:", NEWS),
        ("news:a:b", NEWS),
        ("news", DEFAULT),
        ("newspaper:today", DEFAULT),
        ("News:today", DEFAULT),
        (" news:today", DEFAULT),
        ("other:today", DEFAULT),
        ("#news:today", DEFAULT),
        (":today", DEFAULT),
        ("", DEFAULT),
    ],
)
def test_a_channel_is_in_the_namespace_before_its_first_colon(channel: str, options: ChannelOptions) -> None:
    assert Namespaces(DEFAULT, {"news": NEWS}).of(channel) is options


def test_without_namespaces_all_channels_are_alike() -> None:
    assert Namespaces(DEFAULT).of("news:today") is DEFAULT
    assert Namespaces(DEFAULT, {}).of("news:today") is DEFAULT


def test_what_is_named_later_changes_nothing() -> None:
    named = {"news": NEWS}
    namespaces = Namespaces(DEFAULT, named)
    named["sport"] = EMPTY
    assert namespaces.of("sport:today") is DEFAULT


@pytest.mark.parametrize(
    ("retention", "is_positioned"),
    [(Retention(), False), (Retention(10, 0), False), (Retention(0, 10), False), (Retention(1, 0.1), True)],
)
def test_positions_take_both_a_size_and_a_time(retention: Retention, is_positioned: bool) -> None:
    options = ChannelOptions(retention=retention)
    assert options.is_positioned is is_positioned
    assert options.publishing == Terms(retention)
    assert options.terms(with_position=True).declares_gaps is is_positioned
    assert options.terms(with_position=False).declares_gaps is False


@pytest.mark.parametrize("policy", LagPolicy)
@pytest.mark.parametrize("enforce", [True, False])
@pytest.mark.parametrize("keeps", [True, False])
def test_what_loses_in_silence(policy: LagPolicy, enforce: bool, keeps: bool) -> None:
    """Only a policy that is enforced, that leaves the client on the channel, and that nobody can be told of."""
    options = ChannelOptions(
        lag=LagLimits(policy, enforce=enforce), retention=Retention(10, 10) if keeps else Retention()
    )
    assert options.loses_in_silence is (policy is not LagPolicy.DISCONNECT and enforce and not keeps)


def test_the_limits_of_a_namespace_are_one_object_for_all_its_channels() -> None:
    """What waits under the same object shares the room."""
    lag = LagLimits()
    options = ChannelOptions(lag=lag, batch_delay=0.5)
    assert options.terms(with_position=True).lag is options.terms(with_position=False).lag is lag
    assert options.terms(with_position=True).batch_delay == 0.5


def test_other_rules_bring_their_own_terms_of_publishing() -> None:
    options = dataclasses.replace(DEFAULT, retention=Retention(5, 60))
    assert options.publishing == Terms(Retention(5, 60))
    assert DEFAULT.publishing == Terms()


def test_by_default_a_channel_is_open_and_forgets() -> None:
    assert DEFAULT.publish
    assert DEFAULT.subscribe
    assert DEFAULT.anonymous
    assert not DEFAULT.is_positioned
    assert not any((DEFAULT.presence, DEFAULT.join_leave, DEFAULT.delta))
    assert DEFAULT.recovery_mode is RecoveryMode.STREAM
