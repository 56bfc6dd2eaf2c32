"""Who may come in, for how long, and what is closed to whom."""

from __future__ import annotations

import pytest

from tests.sdk.clients import Sdk, SdkError
from tests.sdk.line import Line
from tests.sdk.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Long enough for a slow machine to subscribe in, and short enough to wait for.
SOON = 3


async def test_an_open_house_asks_for_no_token(sdk: Sdk, open_house: Site) -> None:
    channel = open_house.channel("chat")
    ann, bob = await sdk.connect(open_house), await sdk.connect(open_house)
    for client in (ann, bob):
        await client.subscribe(channel)
    await ann.publish(channel, "hello")
    assert await bob.hears_publications(channel, 1) == ["hello"]


@pytest.mark.parametrize("token", ["", "forged"])
async def test_without_a_good_token_nobody_comes_in_nor_tries_again(sdk: Sdk, site: Site, token: str) -> None:
    stranger = await sdk.begin(site, token=token and site.token("ann")[:-4] + "AAAA")
    assert (await stranger.hears("disconnected"))["code"] == 3500
    assert [each["event"] for each in stranger.heard("connecting", "connected", "disconnected")] == [
        "connecting",
        "disconnected",
    ]


async def test_an_expired_token_is_exchanged_for_a_new_one(sdk: Sdk, site: Site) -> None:
    ann = await sdk.connect(site, "ann", token=site.token("ann", -10), tokens=[site.token("ann")])
    assert len(ann.heard("token wanted")) == 1
    assert ann.heard("error")[0]["code"] == 109


async def test_tokens_are_refreshed_while_connected(sdk: Sdk, site: Site) -> None:
    channel, plain = site.channel("closed"), site.channel("chat")
    tokens = [site.token("ann", SOON), site.token("ann")]
    ann = await sdk.connect(site, "ann", tokens=tokens)
    keys = [site.token("ann", SOON, channel=channel), site.token("ann", channel=channel)]
    await ann.subscribe(channel, tokens=keys)
    await ann.subscribe(plain)
    for _ in range(2):
        await ann.hears("token wanted", channel=None)
        await ann.hears("token wanted", channel=channel)
    # What the server said to the new tokens comes before its answer to this.
    await ann.publish(plain, "and on")
    site.publish(channel, "here too")
    assert (await ann.hears("publication", channel=channel))["data"] == "here too"
    assert ann.heard("error", "disconnected", "unsubscribed") == []
    assert (len(ann.heard("connected")), len(ann.heard("subscribed"))) == (1, 2)


async def test_an_old_token_at_the_wrong_moment_costs_nobody_a_subscription(sdk: Sdk, site: Site) -> None:
    channel = site.channel("closed")
    ann = await sdk.connect(site, "ann")
    keys = [site.token("ann", lasts, channel=channel) for lasts in (SOON, -60, 3600)]
    await ann.subscribe(channel, tokens=keys)
    for _ in range(3):
        await ann.hears("token wanted", channel=channel)
    # What the server said to the last one comes before its answer to this.
    await ann.history(channel)
    site.publish(channel, "still here")
    assert await ann.hears_publications(channel, 1) == ["still here"]
    assert ann.heard("error", "disconnected", "unsubscribed") == []


async def test_a_new_token_with_other_channels_takes_its_user_there(sdk: Sdk, site: Site) -> None:
    old, new = site.channel("closed"), site.channel("closed")
    ann = await sdk.connect(
        site, "ann", tokens=[site.token("ann", SOON, channels=[old]), *[site.token("ann", channels=[new])] * 2]
    )
    await ann.hears("subscribed", channel=old)
    assert (await ann.hears("connecting", code=3010))["reason"] == "insufficient state"
    await ann.hears("subscribed", channel=new)
    site.publish(old, "not any more")
    site.publish(new, "here now")
    assert (await ann.hears("publication"))["data"] == "here now"
    assert ann.heard("publication", channel=old) == []
    assert len(ann.heard("connected")) == 2


async def test_a_new_token_shows_its_user_anew(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    tokens = [site.token("ann", SOON, info={"mood": "old"}), site.token("ann", info="quite new")]
    ann = await sdk.connect(site, "ann", tokens=tokens)
    await ann.subscribe(channel)
    for info in ({"mood": "old"}, "quite new"):
        # What the server said to the new token comes before its answers to these.
        await ann.hears("token wanted")
        (person,) = (await ann.ask("presence", channel=channel)).values()
        assert person["conn_info"] == info
    assert len(ann.heard("connected")) == 1


async def test_a_token_opens_a_closed_channel_to_its_user(sdk: Sdk, site: Site) -> None:
    channel = site.channel("closed")
    ann = await sdk.connect(site, "ann")
    key = site.token("ann", channel=channel, info={"role": "host"})
    await ann.subscribe(channel, token=key)
    await ann.publish(channel, "mine")
    said = await ann.hears("publication")
    assert said["info"]["chan_info"] == {"role": "host"}


@pytest.mark.parametrize("token", ["none", "forged"])
async def test_a_closed_channel_stays_closed(sdk: Sdk, site: Site, token: str) -> None:
    channel = site.channel("closed")
    key = site.token("ann", channel=channel)[:-4] + "AAAA"
    ann = await sdk.connect(site, "ann")
    await ann.ask("subscribe", channel=channel, token=key if token == "forged" else "")
    assert (await ann.hears("unsubscribed", channel=channel))["code"] == 103


@pytest.mark.parametrize("token", ["another user's", "another channel's"])
async def test_who_shows_the_token_of_another_is_sent_away(sdk: Sdk, site: Site, token: str) -> None:
    channel = site.channel("closed")
    user, named = ("bob", channel) if token == "another user's" else ("ann", channel + "0")
    ann = await sdk.connect(site, "ann")
    await ann.ask("subscribe", channel=channel, token=site.token(user, channel=named))
    assert (await ann.hears("disconnected"))["code"] == 3500
    assert ann.heard("subscribed") == []


async def test_where_the_history_is_not_to_be_read_nothing_is_recovered(sdk: Sdk, site: Site) -> None:
    mute = site.channel("mute")
    site.publish(mute, "before")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, "ann", through=line)
        await ann.subscribe(mute, join_leave=True)
        line.cut()
        await ann.hears("subscribing", channel=mute, code=1)
        site.publish(mute, "meanwhile")
        line.mend()
        assert (await ann.hears("subscribed", channel=mute))["recovered"] is False
        site.publish(mute, "and on")
        assert await ann.hears_publications(mute, 1) == ["and on"]
    assert ann.heard("join", "leave") == []


async def test_what_a_channel_does_not_allow_is_refused(sdk: Sdk, site: Site) -> None:
    mute, bare, closed = site.channel("mute"), site.channel("bare"), site.channel("closed")
    ann = await sdk.connect(site, "ann")
    await ann.subscribe(mute)

    async def refusal(do: str, channel: str) -> int | str:
        request = {"publish": {"data": 1}, "history": {"limit": 1, "reverse": False}}.get(do, {})
        with pytest.raises(SdkError) as refused:
            await ann.ask(do, channel=channel, **request)
        return refused.value.code

    for do in ("publish", "history", "presence", "presence_stats"):
        assert await refusal(do, mute) == 103, do
    for do in ("history", "presence", "presence_stats"):
        assert await refusal(do, bare) == 108, do
    assert await refusal("publish", closed) == 103
    site.publish(mute, "the server may")
    assert (await ann.hears("publication"))["data"] == "the server may"
