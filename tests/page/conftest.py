"""One Chromium for all tests of the page, and for each test a server of its own and tabs that are judged at the end.

After every test each tab must have asked no other host for anything and put no error on the console, except what the
test says it expects.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser import Tab, launch_chromium, open_tab
from tests.page.reading import OpenTab, Run
from tests.pageserver import PageServer, serve_page

expect.set_options(timeout=20_000)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with launch_chromium() as chromium:
        yield chromium


@pytest_asyncio.fixture(loop_scope="session")
async def site() -> AsyncIterator[PageServer]:
    async with serve_page() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, site: PageServer) -> AsyncIterator[OpenTab]:
    """Opens tabs: `await visit("/#channel", expected="a trouble that is no fault", **context_options)`."""
    tabs: list[tuple[Tab, str | None]] = []
    async with AsyncExitStack() as stack:

        async def visit(path: str = "/", expected: str | None = None, **options: Any) -> Page:
            tab = await stack.enter_async_context(open_tab(browser, site.url + path, **options))
            tabs.append((tab, expected))
            await expect(tab.page.locator("#state")).to_have_attribute("data-state", "live")
            return tab.page

        yield visit
        for tab, expected in tabs:
            assert tab.unexpected(expected) == []
            assert tab.strangers(site.url) == []
            assert any(address.startswith("ws:") for address in tab.addresses)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def run(browser: Browser) -> AsyncIterator[Run]:
    """Runs the body of a function of `m`, a module of the page, and `arg`."""
    async with serve_page() as site, open_tab(browser, site.url) as tab:

        async def run(module: str, body: str, arg: Any = None) -> Any:
            return await tab.page.evaluate(
                f"async (arg) => {{ const m = await import('/assets/{module}'); {body} }}", arg
            )

        yield run
