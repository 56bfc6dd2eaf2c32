"""What the server does to its clients: sends them away, brings them to channels, and comes back itself."""

from __future__ import annotations

import asyncio

import pytest

from tests.sdk.clients import Sdk
from tests.sdk.line import Line
from tests.sdk.site import Site, open_site

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_who_is_sent_away_stays_away(sdk: Sdk, site: Site) -> None:
    ann, bob = await sdk.connect(site, "ann"), await sdk.connect(site, "bob")
    channel = site.channel("chat")
    await bob.subscribe(channel)
    site.api("disconnect", user="ann")
    gone = await ann.hears("disconnected")
    assert (gone["code"], gone["reason"]) == (3503, "force disconnect")
    site.publish(channel, "bob is here")
    assert await bob.hears_publications(channel, 1) == ["bob is here"]
    assert len(ann.heard("connecting")) == 1


async def test_a_code_of_one_s_own_says_whether_to_come_back(sdk: Sdk, site: Site) -> None:
    ann, bob = await sdk.connect(site, "ann"), await sdk.connect(site, "bob")
    site.api("disconnect", user="ann", disconnect={"code": 4500, "reason": "banned"})
    site.api("disconnect", user="bob", disconnect={"code": 4000, "reason": "moved"})
    gone = await ann.hears("disconnected")
    assert (gone["code"], gone["reason"]) == (4500, "banned")
    leaving = await bob.hears("connecting", code=4000)
    assert leaving["reason"] == "moved"
    await bob.hears("connected")
    assert len(ann.heard("connected")) == 1


# Two servers are started for each; how the payloads are encoded makes no difference here.
@pytest.mark.parametrize("program", ["python", "node", "browser"], indirect=True, scope="package")
async def test_clients_come_back_after_the_server_does(sdk: Sdk) -> None:
    with open_site() as before:
        port = str(before.server.port)
        # Browsers are made to wait longer and longer when they knock at a closed door too often.
        ann = await sdk.connect(before, "ann", reconnect_delay=0.5)
        await ann.subscribe("chat:lobby")
        before.publish("chat:lobby", "before")
        await ann.hears_publications("chat:lobby", 1)
        assert await asyncio.to_thread(before.server.terminate) == 0
        assert (await ann.hears("connecting", code=3001))["reason"] == "shutdown"
        with open_site("--port", port) as after:
            back = await ann.hears("subscribed")
            assert (back["was_recovering"], back["recovered"]) == (True, False), "another epoch"
            after.publish("chat:lobby", "after")
            assert await ann.hears_publications("chat:lobby", 2) == ["before", "after"]


async def test_a_token_brings_its_user_to_channels(sdk: Sdk, site: Site) -> None:
    channel = site.channel("closed")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, through=line, token=site.token("ann", channels=[channel]))
        assert (await ann.hears("subscribed"))["channel"] == channel
        site.publish(channel, 1)
        await ann.hears_publications(channel, 1)
        line.cut()
        await ann.hears("subscribing", channel=channel)
        site.publish(channel, 2, 3)
        line.mend()
        assert (await ann.hears("subscribed"))["recovered"] is True
        site.publish(channel, 4)
        assert await ann.hears_publications(channel, 4) == [1, 2, 3, 4]


async def test_the_server_brings_a_user_to_a_channel_and_takes_it_away(sdk: Sdk, site: Site) -> None:
    channel = site.channel("closed")
    ann = await sdk.connect(site, "ann")
    site.api("subscribe", user="ann", channel=channel, data={"welcome": True})
    assert (await ann.hears("subscribed", channel=channel))["data"] == {"welcome": True}
    site.publish(channel, "hello")
    assert await ann.hears_publications(channel, 1) == ["hello"]
    site.api("unsubscribe", user="ann", channel=channel)
    await ann.hears("unsubscribed", channel=channel)
    assert channel not in site.api("channels")["channels"]


async def test_whom_the_server_has_brought_to_an_open_channel_is_back_there_by_itself(sdk: Sdk, site: Site) -> None:
    channel, shut = site.channel("chat"), site.channel("closed")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, "ann", through=line)
        for each in (channel, shut):
            site.api("subscribe", user="ann", channel=each)
            await ann.hears("subscribed", channel=each)
        site.publish(channel, 1)
        await ann.hears_publications(channel, 1)
        line.cut()
        await ann.hears("subscribing", channel=channel)
        site.publish(channel, 2, 3)
        line.mend()
        assert (await ann.hears("subscribed", channel=channel))["recovered"] is True
        await ann.hears("unsubscribed", channel=shut)
        site.publish(channel, 4)
        assert await ann.hears_publications(channel, 4) == [1, 2, 3, 4]


async def test_the_server_takes_a_user_off_a_channel_of_its_own_choice(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    ann = await sdk.connect(site, "ann")
    await ann.subscribe(channel)
    site.api("unsubscribe", user="ann", channel=channel)
    assert (await ann.hears("unsubscribed", channel=channel))["code"] == 2000
    assert (await ann.subscribe(channel))["channel"] == channel, "it may come back when it wants to"


async def test_the_server_sees_join_and_leave_of_those_it_brought(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    ann, bob = await sdk.connect(site, "ann"), await sdk.connect(site, "bob")
    site.api("subscribe", user="ann", channel=channel)
    await ann.hears("subscribed", channel=channel)
    site.api("subscribe", user="bob", channel=channel)
    await ann.hears("join", channel=channel, user="bob")
    await bob.ask("disconnect")
    await ann.hears("leave", channel=channel, user="bob")
