"""A client that was away, or too slow, gets what it missed: all of it and nothing twice, or is told that it cannot."""

from __future__ import annotations

import pytest

from tests.sdk.clients import Sdk
from tests.sdk.line import Line
from tests.sdk.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_was_missed_while_the_wire_was_cut(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, "ann", through=line)
        await ann.subscribe(channel)
        site.publish(channel, 1, 2)
        await ann.hears_publications(channel, 2)
        line.cut()
        await ann.hears("subscribing", channel=channel, code=1)
        site.publish(channel, 3, 4, 5)
        line.mend()
        back = await ann.hears("subscribed", channel=channel)
        assert (back["was_recovering"], back["recovered"]) == (True, True)
        site.publish(channel, 6)
        assert await ann.hears_publications(channel, 6) == [1, 2, 3, 4, 5, 6]
        assert [each["offset"] for each in ann.heard("publication")] == [1, 2, 3, 4, 5, 6]


async def test_nothing_was_missed(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, "ann", through=line)
        await ann.subscribe(channel)
        line.cut()
        await ann.hears("subscribing", channel=channel, code=1)
        line.mend()
        assert (await ann.hears("subscribed", channel=channel))["recovered"] is True
        site.publish(channel, "and on")
        assert await ann.hears_publications(channel, 1) == ["and on"]


async def test_more_was_missed_than_is_kept(sdk: Sdk, site: Site) -> None:
    channel = site.channel("short")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, "ann", through=line)
        await ann.subscribe(channel)
        site.publish(channel, 1)
        await ann.hears_publications(channel, 1)
        line.cut()
        await ann.hears("subscribing", channel=channel, code=1)
        site.publish(channel, 2, 3, 4, 5)
        line.mend()
        back = await ann.hears("subscribed", channel=channel)
        assert (back["was_recovering"], back["recovered"]) == (True, False)
        site.publish(channel, 6)
        assert await ann.hears_publications(channel, 2) == [1, 6], "no part of what was missed"


async def test_the_latest_is_enough_where_it_says_all(sdk: Sdk, site: Site) -> None:
    channel = site.channel("latest")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, "ann", through=line)
        await ann.subscribe(channel)
        line.cut()
        await ann.hears("subscribing", channel=channel, code=1)
        site.publish(channel, 1, 2, 3)
        line.mend()
        assert (await ann.hears("subscribed", channel=channel))["recovered"] is True
        site.publish(channel, 4)
        assert await ann.hears_publications(channel, 2) == [3, 4]


async def test_deltas_go_on_after_recovery(sdk: Sdk, site: Site) -> None:
    channel = site.channel("diff")
    states = [{"n": n, "same": ["as it was"] * 40} for n in range(6)]
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, "ann", through=line)
        await ann.subscribe(channel, delta=True)
        site.publish(channel, *states[:2])
        await ann.hears_publications(channel, 2)
        line.cut()
        await ann.hears("subscribing", channel=channel, code=1)
        site.publish(channel, *states[2:4])
        line.mend()
        assert (await ann.hears("subscribed", channel=channel))["recovered"] is True
        site.publish(channel, *states[4:])
        assert await ann.hears_publications(channel, 6) == states


def publish_until_cut(site: Site, channel: str) -> int:
    """Publish numbers, and text that fills the socket, until nobody is on the channel any more; returns how many."""
    said = 0
    while channel in site.api("channels", pattern=channel)["channels"]:
        assert said < 2000, "the queue is never full"
        site.publish(channel, [said, "x" * 8192])
        said += 1
    return said


async def test_a_stream_that_lag_has_cut_is_recovered(sdk: Sdk, site: Site) -> None:
    slow, other = site.channel("slow"), site.channel("chat")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, "ann", through=line)
        await ann.subscribe(slow)
        await ann.subscribe(other)
        line.hold()
        said = publish_until_cut(site, slow)
        site.publish(slow, [said, "after the cut"])
        site.publish(other, "still here")
        line.release()
        assert (await ann.hears("subscribing", channel=slow, code=2500))["reason"] == "insufficient state"
        back = await ann.hears("subscribed", channel=slow)
        assert (back["was_recovering"], back["recovered"]) == (True, True)
        heard = await ann.hears_publications(slow, said + 1)
        assert [number for number, _ in heard] == list(range(said + 1))
        assert await ann.hears_publications(other, 1) == ["still here"]
        assert len(ann.heard("connected")) == 1


async def test_a_stream_of_the_server_s_choice_is_recovered_by_coming_back(sdk: Sdk, site: Site) -> None:
    slow = site.channel("slow")
    async with Line(site.server.port) as line:
        ann = await sdk.connect(site, through=line, token=site.token("ann", channels=[slow]))
        await ann.hears("subscribed", channel=slow)
        line.hold()
        said = publish_until_cut(site, slow)
        line.release()
        assert (await ann.hears("connecting", code=3010))["reason"] == "insufficient state"
        assert (await ann.hears("subscribed", channel=slow))["recovered"] is True
        heard = await ann.hears_publications(slow, said)
        assert [number for number, _ in heard] == list(range(said))
