"""One Chromium for all tests of the operator's page, and tabs that are judged at the end of each test.

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
from tests.operator.stage import Stage, stage
from tests.page.reading import OpenTab, Run

expect.set_options(timeout=20_000)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with launch_chromium() as chromium:
        yield chromium


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def quiet() -> AsyncIterator[Stage]:
    """A server for all tests that only look."""
    async with stage() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def scene() -> AsyncIterator[Stage]:
    """A server of one process, for one test."""
    async with stage() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[OpenTab]:
    """Opens tabs: `await visit(url, expected="a trouble that is no fault", **context_options)`."""
    tabs: list[tuple[Tab, str, str | None]] = []
    async with AsyncExitStack() as stack:

        async def visit(url: str, expected: str | None = None, **options: Any) -> Page:
            tab = await stack.enter_async_context(open_tab(browser, url, **options))
            tabs.append((tab, url, expected))
            await expect(tab.page.locator("#feed")).to_have_attribute("data-state", "live")
            return tab.page

        yield visit
        for tab, url, expected in tabs:
            assert tab.unexpected(expected) == []
            assert tab.strangers(url) == []
            assert any(address.startswith("ws:") for address in tab.addresses)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def run(browser: Browser, quiet: Stage) -> AsyncIterator[Run]:
    """Runs the body of a function of `m`, a module of the page, and `arg`."""
    async with open_tab(browser, quiet.url) as tab:

        async def run(module: str, body: str, arg: Any = None) -> Any:
            return await tab.page.evaluate(
                f"async (arg) => {{ const m = await import('/assets/{module}'); {body} }}", arg
            )

        yield run
