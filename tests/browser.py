"""A headless Chromium for the tests of the page, and tabs in it that write down everything that goes wrong."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from tests.absence import absent

# The first is Chromium without its windows, to which a tab is a third of the work.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str | None:
    """The browser of this machine: what `CHROMIUM` names, else the first of the usual commands."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@asynccontextmanager
async def launch_chromium() -> AsyncIterator[Browser]:
    """A headless Chromium for as long as the block lasts.

    Where there is none the test is skipped with that reason; under CI, which installs one, it fails.
    """
    path = chromium_path()
    if path is None:
        absent(f"no browser: none of {', '.join(NAMES)} is installed, and CHROMIUM names none")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(slots=True)
class Tab:
    """A page in a context of its own, and what was heard of it."""

    page: Page
    troubles: list[str] = field(default_factory=list)
    """Errors and warnings on the console, where violations of the security policy go too; exceptions; dialogs."""
    addresses: list[str] = field(default_factory=list)
    """Everything that was asked for, over HTTP or WebSocket."""

    def unexpected(self, expected: str | None = None) -> list[str]:
        """The troubles that the regular expression `expected` does not find."""
        return [trouble for trouble in self.troubles if expected is None or not re.search(expected, trouble)]

    def strangers(self, home: str) -> list[str]:
        """The addresses on any other host or port than that of `home`."""
        return [address for address in self.addresses if urlsplit(address).netloc != urlsplit(home).netloc]


@asynccontextmanager
async def open_tab(browser: Browser, address: str, **context_options: Any) -> AsyncIterator[Tab]:
    """The page at `address`, loaded."""
    context = await browser.new_context(**context_options)
    tab = Tab(await context.new_page())
    _listen(tab)
    try:
        await tab.page.goto(address)
        yield tab
    finally:
        await context.close()


def _listen(tab: Tab) -> None:
    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            tab.troubles.append(message.text)

    async def dismissed(dialog: Any) -> None:
        tab.troubles.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    tab.page.on("console", heard)
    tab.page.on("pageerror", lambda error: tab.troubles.append(f"uncaught: {error}"))
    tab.page.on("dialog", dismissed)
    tab.page.on("request", lambda request: tab.addresses.append(request.url))
    tab.page.on("websocket", lambda socket: tab.addresses.append(socket.url))
