"""What SDKs are for: connect, subscribe, publish, and know who else is there."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness import wait_until
from tests.sdk.clients import Sdk, SdkError
from tests.sdk.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAYLOADS = (
    {"text": "Friends, Greeks", "n": 1, "nested": [{"deep": None}, 1.5, True]},
    "a plain text",
    'Ἀχιλλεύς 🏛️ \u2028 \\ "quoted"',
    [],
    0,
    False,
    2**53 - 1,
)


async def test_everyone_hears_what_one_says_as_it_was_said(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    ann, bob = await sdk.connect(site, "ann"), await sdk.connect(site, "bob")
    for client in (ann, bob):
        assert (await client.subscribe(channel))["recovered"] is False
    for payload in PAYLOADS:
        await ann.publish(channel, payload)
    for client in (ann, bob):
        assert await client.hears_publications(channel, len(PAYLOADS)) == list(PAYLOADS)
        told = client.heard("publication")
        assert [each["offset"] for each in told] == list(range(1, len(PAYLOADS) + 1))
        assert {each["info"]["user"] for each in told} == {"ann"}


async def test_the_server_speaks_with_tags_and_in_nobody_s_name(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    ann = await sdk.connect(site, "ann")
    await ann.subscribe(channel)
    site.api("publish", channel=channel, data={"price": 7}, tags={"key": "EUR"})
    said = await ann.hears("publication")
    assert (said["data"], said["tags"]) == ({"price": 7}, {"key": "EUR"})
    assert "info" not in said


async def test_a_channel_that_was_left_is_silent(sdk: Sdk, site: Site) -> None:
    left, kept = site.channel("chat"), site.channel("chat")
    ann = await sdk.connect(site, "ann")
    await ann.subscribe(left)
    await ann.subscribe(kept)
    assert (await ann.unsubscribe(left))["code"] == 0
    site.publish(left, "not heard")
    site.publish(kept, "heard")
    assert (await ann.hears("publication"))["data"] == "heard"
    assert ann.heard("publication", channel=left) == []


async def test_one_sees_who_is_there_and_who_comes_and_goes(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    ann = await sdk.connect(site, token=site.token("ann", info={"name": "Ann"}))
    await ann.subscribe(channel, join_leave=True)
    first = await ann.hears("join", user="ann")
    assert first["conn_info"] == {"name": "Ann"}
    bob = await sdk.connect(site, "bob")
    await bob.subscribe(channel)
    joined = await ann.hears("join", user="bob")
    assert await ann.ask("presence", channel=channel) == {
        first["client"]: {"client": first["client"], "user": "ann", "conn_info": {"name": "Ann"}, "chan_info": None},
        joined["client"]: {"client": joined["client"], "user": "bob", "conn_info": None, "chan_info": None},
    }
    second = await sdk.connect(site, "bob")
    await second.subscribe(channel)
    assert await ann.ask("presence_stats", channel=channel) == {"clients": 3, "users": 2}
    await bob.unsubscribe(channel)
    assert (await ann.hears("leave", user="bob"))["client"] == joined["client"]
    await second.ask("disconnect")
    await ann.hears("leave", user="bob")
    assert await ann.ask("presence_stats", channel=channel) == {"clients": 1, "users": 1}
    assert bob.heard("join", "leave") == [], "it did not ask"


async def test_history_is_read_in_parts_and_backwards(sdk: Sdk, site: Site) -> None:
    channel = site.channel("chat")
    ann = await sdk.connect(site, "ann")
    site.publish(channel, *range(1, 8))
    everything = await ann.history(channel)
    assert [each["data"] for each in everything["publications"]] == [1, 2, 3, 4, 5, 6, 7]
    assert everything["offset"] == 7

    async def read(limit: int, offset: int | None = None, *, reverse: bool = False) -> list[int]:
        since = {"offset": offset, "epoch": everything["epoch"]} if offset is not None else None
        stream = await ann.history(channel, limit, since, reverse=reverse)
        assert (stream["offset"], stream["epoch"]) == (7, everything["epoch"])
        return [each["data"] for each in stream["publications"]]

    assert await read(0) == []
    assert await read(2) == [1, 2]
    assert await read(2, 4) == [5, 6]
    assert await read(-1, 4) == [5, 6, 7]
    assert await read(2, reverse=True) == [7, 6]
    assert await read(2, 4, reverse=True) == [3, 2]


async def test_history_of_another_epoch_is_refused(sdk: Sdk, site: Site) -> None:
    ann = await sdk.connect(site, "ann")
    with pytest.raises(SdkError) as refused:
        await ann.history(site.channel("chat"), since={"offset": 1, "epoch": "gone"})
    assert refused.value.code == 112


async def test_deltas_are_applied_to_what_came_before(sdk: Sdk, site: Site) -> None:
    channel = site.channel("diff")
    ann, bob = await sdk.connect(site, "ann"), await sdk.connect(site, "bob")
    await ann.subscribe(channel, delta=True)
    await bob.subscribe(channel)
    states = [{"n": n, "same": ["as it was"] * 40, "text": "Ἀχιλλεύς"} for n in range(4)]
    site.publish(channel, *states)
    assert await ann.hears_publications(channel, 4) == await bob.hears_publications(channel, 4) == states
    assert await ann.ask("count_deltas", channel=channel) == 3


async def test_one_client_is_on_many_channels(sdk: Sdk, site: Site) -> None:
    channels = [site.channel("chat") for _ in range(20)]
    ann = await sdk.connect(site, "ann")
    for channel in channels:
        await ann.subscribe(channel)
    for n in range(3):
        site.api("broadcast", channels=channels, data=n)
    for channel in channels:
        assert await ann.hears_publications(channel, 3) == [0, 1, 2]


async def test_a_procedure_that_is_not_there_is_not_found(sdk: Sdk, site: Site) -> None:
    ann = await sdk.connect(site, "ann")
    with pytest.raises(SdkError) as refused:
        await ann.ask("rpc", method="add", data=[1, 2])
    assert refused.value.code == 104


async def test_pings_are_answered_and_expected(sdk: Sdk, site: Site) -> None:
    def pongs() -> float:
        return site.server.metrics()["stentor_ping_rtt_seconds_count"]

    before = pongs()
    # It would leave when a ping, which comes every second, is that late.
    ann = await sdk.connect(site, "ann", ping_delay=1.5)
    await asyncio.to_thread(wait_until, lambda: pongs() >= before + 3)
    assert len(ann.heard("connected")) == 1
    assert ann.heard("disconnected", "error") == []
