"""A thousand clients provoke a close frame at once, and never answer it: the server waits so long and no longer."""

from __future__ import annotations

import asyncio
import time
from array import array

import pytest

from tests.scenarios.clients import Client, eventually
from tests.scenarios.kernel import held_ports
from tests.scenarios.stage import Stage, figure, stage
from tests.scenarios.wire import TEXT, frame

pytestmark = [pytest.mark.scenario, pytest.mark.alone]

MUTE = 1000
CLOSE_TIMEOUT = 5.0  # the server's; not an option
GRACE = 1.0
# Longer than any of the faults takes a machine that has other things to do, and far from 5 s.
DELAY_BOUND = 1.0


async def test_a_thousand_unanswered_closes_are_freed_in_time() -> None:
    async with stage() as on:
        healthy = await on.listeners(20, "news")
        # Half provoke the server's own close, half the library's, after which the server has also sent its FIN.
        mute = await on.crowd.join_many(MUTE, "/ws/mute")
        for client in mute:
            client.answers_close = False
        held_before = held_ports(on.server) & {client.port for client in mute}
        assert len(held_before) == MUTE
        on.ledger.latencies = array("q")
        talk = asyncio.create_task(healthy[0].publish(on.ledger, "news", rate=50, seconds=CLOSE_TIMEOUT + 2, size=256))
        provoked_at = time.monotonic()
        for client in mute[::2]:
            assert client.try_send(frame(TEXT, b"\xff"))
        for client in mute[1::2]:
            assert client.try_send(frame(0x3, b""))
        await eventually(lambda: all(client.close_code for client in mute), 3, "everyone was told to go")
        assert [client.close_code for client in mute[:2]] == [1007, 1002]
        assert {client.close_code for client in mute} == {1007, 1002}
        first, last = await watch_them_go(on, mute, provoked_at)
        figure("close unanswered: freed after", f"{first:.2f} to {last:.2f} s")
        assert first >= CLOSE_TIMEOUT - 0.1, "they were not given their time, or had answered"
        assert last <= CLOSE_TIMEOUT + GRACE
        await talk
        await on.all_heard(healthy)
        worst = on.ledger.percentile(1.0)
        figure("close unanswered: others", f"p99 {on.ledger.percentile(0.99) * 1e3:.1f} ms, worst {worst * 1e3:.1f} ms")
        assert worst <= DELAY_BOUND
        metrics = await on.metrics()
        assert metrics['stentor_connections_closed_total{code="1007"}'] == MUTE / 2
        assert metrics['stentor_connections_closed_total{code="1002"}'] == MUTE / 2


async def watch_them_go(on: Stage, mute: list[Client], since: float) -> tuple[float, float]:
    """Watch the mute clients' descriptors; return after how many seconds the first and the last of them was gone."""
    ports = {client.port for client in mute}
    first = 0.0

    def all_gone() -> bool:
        nonlocal first
        held = held_ports(on.server) & ports
        if not first and len(held) < len(ports):
            first = time.monotonic() - since
        return not held

    await eventually(all_gone, CLOSE_TIMEOUT + 5, "nobody is held", every=0.05)
    return first, time.monotonic() - since
