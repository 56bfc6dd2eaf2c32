"""Who may hear a channel."""

from __future__ import annotations

import pytest

from server.node.namespaces import ChannelOptions, Namespaces
from server.node.permissions import Permissions, personal_channel

NAMESPACES = Namespaces(
    ChannelOptions(),
    {
        "closed": ChannelOptions(subscribe=False),
        "known": ChannelOptions(anonymous=False),
        "both": ChannelOptions(subscribe=False, anonymous=False),
    },
)


@pytest.mark.parametrize(
    ("user", "channel", "granted", "may"),
    [
        ("", "open", (), True),
        ("ann", "open", (), True),
        ("", "closed:a", (), False),
        ("ann", "closed:a", (), False),
        ("ann", "closed:a", ("closed:a",), True),
        ("", "closed:a", ("closed:a",), True),
        ("ann", "closed:a", ("closed:b", "closed:", "closed"), False),
        ("", "known:a", (), False),
        ("ann", "known:a", (), True),
        ("", "known:a", ("known:a",), True),
        ("ann", "both:a", (), False),
        ("", "both:a", (), False),
        ("ann", "unknown:a", (), True),
    ],
)
def test_a_channel_is_open_by_its_rules_or_by_a_grant(
    user: str, channel: str, granted: tuple[str, ...], may: bool
) -> None:
    assert Permissions(NAMESPACES).may_subscribe(user, channel, granted) is may


@pytest.mark.parametrize(
    ("user", "channel", "granted", "may"),
    [
        ("ann", "#ann", (), True),
        ("ann", "#bob", (), False),
        ("ann", "#bob", ("#bob",), True),
        ("ann", "#bob", ("#bo", "bob", "#carol"), False),
        ("ann", "#", (), False),
        ("", "#", (), False),
        ("", "#ann", ("#ann",), True),
        ("", "#ann", (), False),
        ("ann", "#ann ", (), False),
        ("ann", "#Ann", (), False),
        ("ann", "##ann", (), False),
        ("#ann", "##ann", (), True),
        ("ann", "a#bob", (), True),
    ],
)
def test_a_personal_channel_is_for_the_one_it_names_and_for_whom_a_grant_opens_it(
    user: str, channel: str, granted: tuple[str, ...], may: bool
) -> None:
    assert Permissions(NAMESPACES, personal_channels=True).may_subscribe(user, channel, granted) is may


def test_a_personal_channel_of_a_closed_server_is_open_to_its_owner() -> None:
    closed = Namespaces(ChannelOptions(subscribe=False))
    permissions = Permissions(closed, personal_channels=True)
    assert permissions.may_subscribe("ann", personal_channel("ann"))
    assert not permissions.may_subscribe("ann", "news")


def test_without_personal_channels_the_name_means_nothing() -> None:
    permissions = Permissions(NAMESPACES)
    assert permissions.may_subscribe("ann", personal_channel("bob"))
    assert permissions.may_subscribe("", "#")


def test_a_set_and_a_list_grant_alike() -> None:
    permissions = Permissions(NAMESPACES)
    for granted in (["closed:a"], {"closed:a"}, {"closed:a": None}, ("closed:a",)):
        assert permissions.may_subscribe("ann", "closed:a", granted)
