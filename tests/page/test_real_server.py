"""The page on the real server: what a newcomer does in the first five minutes, as the README tells it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, expect

from tests.browser import open_tab
from tests.harness import REPOSITORY, Server, serve
from tests.scenarios.clients import eventually

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


# From now on the page writes down what it was told at the end of a connection, and when it asked for the next one.
WATCH = """() => {
  window.told = [];
  window.asked = [];
  const reason = Object.getOwnPropertyDescriptor(CloseEvent.prototype, "reason").get;
  Object.defineProperty(CloseEvent.prototype, "reason", { get() {
    const said = reason.call(this);
    window.told.push({ at: performance.now(), code: this.code, reason: said });
    return said;
  } });
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...where) { super(...where); window.asked.push(performance.now()); }
  };
}"""


@pytest.mark.parametrize(
    ("options", "number", "code"), [(("--workers", "2"), signal.SIGHUP, 1012), ((), signal.SIGTERM, 1001)]
)
async def test_the_page_comes_back_when_the_server_says(
    browser: Browser, options: tuple[str, ...], number: signal.Signals, code: int
) -> None:
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(serve(*options))
        async with open_tab(browser, f"{server.url}/#chat") as tab:
            state = tab.page.locator("#state")
            await expect(state).to_have_attribute("data-state", "live")
            await tab.page.evaluate(WATCH)
            server.process.send_signal(number)
            if code == 1001:
                await asyncio.to_thread(server.process.wait, 10)
                servers.enter_context(serve("--port", str(server.port)))

            async def has_asked() -> bool:  # its wait may be too short to be seen
                return bool(await tab.page.evaluate("window.asked.length"))

            await eventually(has_asked, 20, "it has come back")
            await expect(state).to_have_attribute("data-state", "live")
            [told, *_], [asked, *_] = await tab.page.evaluate("[window.told, window.asked]")
            assert told["code"] == code
            waits = int(told["reason"].partition("reconnect_after_ms=")[2])
            # A browser's timers may be late, but not early.
            assert waits - 2 <= asked - told["at"] <= waits + 2000
