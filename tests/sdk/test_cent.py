"""The server API through its published library, cent: what a backend does, and what clients see of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import cent
import pytest
import pytest_asyncio

from tests.sdk.clients import Sdk
from tests.sdk.site import API_KEY, Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

# How clients take what the API does to them, `test_endings` tells of every SDK; here one will do.
with_clients = pytest.mark.parametrize("program", ["python"], indirect=True, scope="package")


@pytest_asyncio.fixture(loop_scope="session")
async def backend(site: Site) -> AsyncIterator[cent.AsyncClient]:
    async with cent.AsyncClient(f"{site.server.internal_url}/api", API_KEY) as client:
        yield client


@with_clients
async def test_publish_and_broadcast(sdk: Sdk, site: Site, backend: cent.AsyncClient) -> None:
    one, other, bare = site.channel("chat"), site.channel("chat"), site.channel("bare")
    ann = await sdk.connect(site, "ann")
    for channel in (one, other, bare):
        await ann.subscribe(channel)
    said = await backend.publish(cent.PublishRequest(channel=one, data={"n": 1}, tags={"key": "EUR"}))
    assert said.offset == 1
    assert said.epoch
    everywhere = await backend.broadcast(cent.BroadcastRequest(channels=[one, other, bare], data={"n": 2}))
    assert [each.result.offset for each in everywhere.responses if each.result] == [2, 1, 0]
    assert await ann.hears_publications(one, 2) == [{"n": 1}, {"n": 2}]
    assert await ann.hears_publications(other, 1) == await ann.hears_publications(bare, 1) == [{"n": 2}]


async def test_a_publication_is_not_repeated(site: Site, backend: cent.AsyncClient) -> None:
    channel = site.channel("chat")
    once = cent.PublishRequest(channel=channel, data="once", idempotency_key="retry")
    first, second = await backend.publish(once), await backend.publish(once)
    assert (first.offset, first.epoch) == (second.offset, second.epoch)
    await backend.publish(cent.PublishRequest(channel=channel, data="passing", skip_history=True))
    kept = await backend.history(cent.HistoryRequest(channel=channel, limit=10))
    assert [each.data for each in kept.publications] == ["once"]


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_batch(site: Site, backend: cent.AsyncClient, parallel: bool) -> None:
    channel = site.channel("chat")
    asked = cent.BatchRequest(
        requests=[
            cent.PublishRequest(channel=channel, data=1),
            cent.PublishRequest(channel=channel, data=2),
            cent.BroadcastRequest(channels=[channel], data=3),
            cent.PresenceStatsRequest(channel=channel),
            cent.HistoryRequest(channel=channel),
        ],
        parallel=parallel,
    )
    first, second, broadcast, stats, history = (await backend.batch(asked)).replies
    assert {first.offset, second.offset, broadcast.responses[0].result.offset} == {1, 2, 3}
    assert (stats.num_clients, stats.num_users) == (0, 0)
    assert history.epoch == first.epoch
    if not parallel:
        assert (first.offset, second.offset, history.offset) == (1, 2, 3)


async def test_history_and_its_end(site: Site, backend: cent.AsyncClient) -> None:
    channel = site.channel("chat")
    site.publish(channel, *range(1, 6))

    async def read(**fields: Any) -> list[int]:
        return [
            each.data for each in (await backend.history(cent.HistoryRequest(channel=channel, **fields))).publications
        ]

    top = await backend.history(cent.HistoryRequest(channel=channel))
    assert (top.publications, top.offset) == ([], 5)
    assert await read(limit=2) == [1, 2]
    assert await read(limit=-1) == [1, 2, 3, 4, 5]
    assert await read(limit=2, since=cent.StreamPosition(offset=3, epoch=top.epoch)) == [4, 5]
    assert await read(limit=2, reverse=True) == [5, 4]
    await backend.history_remove(cent.HistoryRemoveRequest(channel=channel))
    assert await read(limit=-1) == []
    assert (await backend.history(cent.HistoryRequest(channel=channel))).offset == 5


@with_clients
async def test_who_is_where(sdk: Sdk, site: Site, backend: cent.AsyncClient) -> None:
    channel = site.channel("chat")
    ann = await sdk.connect(site, "ann", token=site.token("ann", info={"name": "Ann"}))
    await ann.subscribe(channel)
    present = (await backend.presence(cent.PresenceRequest(channel=channel))).presence
    [(client, info)] = present.items()
    assert client == info.client == ann.heard("connected")[0]["client"]
    assert (info.user, info.conn_info) == ("ann", {"name": "Ann"})
    stats = await backend.presence_stats(cent.PresenceStatsRequest(channel=channel))
    assert (stats.num_clients, stats.num_users) == (1, 1)
    listened = (await backend.channels(cent.ChannelsRequest(pattern=channel))).channels
    assert {name: each.num_clients for name, each in listened.items()} == {channel: 1}
    assert channel in (await backend.channels(cent.ChannelsRequest())).channels
    [node] = (await backend.info(cent.InfoRequest())).nodes
    assert min(node.num_clients, node.num_users, node.num_channels, node.num_subs) >= 1
    assert node.uid
    assert node.version


@with_clients
async def test_clients_are_moved_about(sdk: Sdk, site: Site, backend: cent.AsyncClient) -> None:
    channel = site.channel("closed")
    ann, bob = await sdk.connect(site, "ann"), await sdk.connect(site, "bob")
    await backend.subscribe(cent.SubscribeRequest(user="ann", channel=channel, data={"welcome": True}))
    assert (await ann.hears("subscribed", channel=channel))["data"] == {"welcome": True}
    await backend.unsubscribe(cent.UnsubscribeRequest(user="ann", channel=channel))
    await ann.hears("unsubscribed", channel=channel)
    second = await sdk.connect(site, "ann")
    spared = second.heard("connected")[0]["client"]
    await backend.disconnect(
        cent.DisconnectRequest(user="ann", whitelist=[spared], disconnect=cent.Disconnect(code=4501, reason="once"))
    )
    gone = await ann.hears("disconnected")
    assert (gone["code"], gone["reason"]) == (4501, "once")
    await backend.refresh(cent.RefreshRequest(user="bob", expire_at=int(time.time()) + 600))
    await backend.refresh(cent.RefreshRequest(user="bob", expired=True))
    assert (await bob.hears("connecting", code=3005))["reason"] == "connection expired"
    assert second.heard("disconnected") == []


async def test_errors_say_what_is_wrong(site: Site, backend: cent.AsyncClient) -> None:
    bare = site.channel("bare")

    async def code(asked: Any) -> int:
        with pytest.raises(cent.CentApiResponseError) as refused:
            await asked
        assert refused.value.message
        return refused.value.code

    assert await code(backend.publish(cent.PublishRequest(channel="", data=1))) == 107
    assert await code(backend.history(cent.HistoryRequest(channel=bare))) == 108
    assert await code(backend.presence(cent.PresenceRequest(channel=bare))) == 108
    gone = cent.StreamPosition(offset=1, epoch="gone")
    assert await code(backend.history(cent.HistoryRequest(channel=site.channel("chat"), limit=1, since=gone))) == 112


async def test_the_key_is_asked_for(site: Site) -> None:
    async with cent.AsyncClient(f"{site.server.internal_url}/api", "another-key") as stranger:
        with pytest.raises(cent.CentUnauthorizedError):
            await stranger.info(cent.InfoRequest())


async def test_the_synchronous_client_says_the_same(site: Site) -> None:
    channel = site.channel("chat")
    with cent.Client(f"{site.server.internal_url}/api", API_KEY) as client:
        said = await asyncio.to_thread(client.publish, cent.PublishRequest(channel=channel, data=1))
    assert said.offset == 1
