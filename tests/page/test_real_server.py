"""The page on the real server: what a newcomer does in the first five minutes, as the README tells it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, expect

from tests.browser import open_tab
from tests.harness import REPOSITORY, Server, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def vmstat_into(server: Server, channel: str) -> AsyncIterator[None]:
    """`vmstat 1 | stentor publish --channel …`, as long as the block lasts."""
    publish = f"{sys.executable} -m server publish --channel {channel} --url {server.websocket_url}"
    shell = await asyncio.create_subprocess_shell(
        f"exec vmstat 1 | exec {publish}", env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(shell.pid, 15)
        await shell.wait()


async def test_two_tabs_hear_what_one_says(browser: Browser) -> None:
    with serve() as server:
        async with (
            open_tab(browser, f"{server.url}/#chat") as speaker,
            open_tab(browser, f"{server.url}/#chat") as listener,
        ):
            for tab in (speaker, listener):
                await expect(tab.page.locator("#state")).to_have_attribute("data-state", "live")
            await speaker.page.locator("#words").fill("Friends, Greeks")
            await speaker.page.locator("#words").press("Enter")
            await expect(speaker.page.get_by_text("Friends, Greeks")).to_be_visible()
            await expect(listener.page.get_by_text("Friends, Greeks")).to_be_visible()
            assert speaker.unexpected() == listener.unexpected() == []
            assert speaker.strangers(server.url) == []


async def test_the_life_of_this_machine_becomes_charts(browser: Browser) -> None:
    with serve() as server:
        async with open_tab(browser, f"{server.url}/#system") as tab, vmstat_into(server, "system"):
            await expect(tab.page.locator("#state")).to_have_attribute("data-state", "live")
            await expect(tab.page.get_by_role("tab", name="Chart")).to_have_attribute("aria-selected", "true")
            for column in ("free", "cache", "us", "id"):
                await expect(tab.page.get_by_role("button", name=column, exact=False).first).to_be_visible()
            assert tab.unexpected() == []
            assert server.metrics()["stentor_messages_published_total"] >= 3


async def test_the_page_comes_back_after_the_server_does(browser: Browser) -> None:
    with serve() as server:
        port = str(server.port)
        async with open_tab(browser, f"{server.url}/#chat") as tab:
            await expect(tab.page.locator("#state")).to_have_attribute("data-state", "live")
            assert await asyncio.to_thread(server.terminate) == 0
            await expect(tab.page.locator("#state")).not_to_have_attribute("data-state", "live")
            with serve("--port", port):
                await expect(tab.page.locator("#state")).to_have_attribute("data-state", "live")
