"""A token is revoked: its client ends for good, by whichever SDK, and does not knock again."""

from __future__ import annotations

import time

import pytest

from tests.sdk.clients import Sdk
from tests.sdk.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

_uids = (f"{time.time_ns()}-{number}" for number in range(1_000_000))


async def test_whose_token_is_revoked_is_gone_and_tries_no_more(sdk: Sdk, site: Site) -> None:
    uid, channel = next(_uids), site.channel("chat")
    # Quick to come back, if it were told to.
    ann = await sdk.connect(site, token=site.token("ann", jti=uid), reconnect_delay=0.05)
    bob = await sdk.connect(site, "bob")
    await bob.subscribe(channel)
    site.api("revoke_token", uid=uid, expire_at=int(time.time()) + 3600)
    gone = await ann.hears("disconnected")
    assert (gone["code"], gone["reason"]) == (3500, "invalid token")
    site.publish(channel, "bob is here")
    assert await bob.hears_publications(channel, 1) == ["bob is here"]
    stranger = await sdk.begin(site, token=site.token("ann", jti=uid))
    assert (await stranger.hears("disconnected"))["code"] == 3500
    assert (len(stranger.heard("connecting")), stranger.heard("connected")) == (1, [])
    assert len(ann.heard("connecting")) == 1


async def test_whose_tokens_are_invalid_comes_back_with_a_new_one(sdk: Sdk, site: Site) -> None:
    user, now = f"user{next(_uids)}", int(time.time())
    ann = await sdk.connect(site, token=site.token(user, iat=now - 60))
    site.api("invalidate_user_tokens", user=user)
    assert (await ann.hears("disconnected"))["code"] == 3500
    again = await sdk.connect(site, token=site.token(user, iat=now + 1))
    assert again.heard("disconnected") == []


async def test_a_subscription_ends_with_its_token(sdk: Sdk, site: Site) -> None:
    uid, channel, other = next(_uids), site.channel("closed"), site.channel("chat")
    ann = await sdk.connect(site, "ann")
    await ann.subscribe(other)
    await ann.subscribe(channel, token=site.token("ann", channel=channel, jti=uid))
    site.api("revoke_token", uid=uid)
    gone = await ann.hears("unsubscribed", channel=channel)
    assert gone["code"] == 2000
    site.publish(other, "here you are")
    assert await ann.hears_publications(other, 1) == ["here you are"]
    assert len(ann.heard("subscribing", channel=channel)) == 1
    assert ann.heard("disconnected") == []
