"""What tests of the page say on a channel, and how they read the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Locator, Page
from websockets.asyncio.client import ClientConnection, connect

from tests.pageserver import PageServer

OpenTab = Callable[..., Awaitable[Page]]
Run = Callable[..., Awaitable[Any]]

PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 640},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
VMSTAT = [
    "procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----",
    " r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st",
    " 1  0      0 23647936   3836 919152    0    0   822  1204  945 1840 10  4 85  1  0",
    " 1  0      0 23647120   3836 919152    0    0     0     0  117  121  0  0 100  0  0",
    " 3  0      0 23641936   3836 919196    0    0     0    24   69   73  2  1 97  0  1",
]
VMSTAT_COLUMNS = VMSTAT[1].split()
NO_FIGURE = "\N{EN DASH}"
"""What stands where nothing has been measured."""


def speaker(site: PageServer, channel: str = "main") -> connect:
    return connect(f"{site.url.replace('http', 'ws')}/ws/{channel}", compression=None)


async def speak(client: ClientConnection, *payloads: str | bytes) -> None:
    """Say each, and wait until it has come back: the server has then handed it to every tab."""
    for payload in payloads:
        await client.send(payload)
    for _ in payloads:
        await client.recv()


async def say(page: Page, text: str) -> None:
    await page.locator("#words").fill(text)
    await page.locator("#words").press("Enter")


def rows(page: Page) -> Locator:
    return page.locator("#feed li:not(.notice)")


async def bodies(page: Page) -> list[str]:
    return await page.locator("#feed li:not(.notice) .body").all_text_contents()


async def series(page: Page) -> dict[str, str]:
    """The legend: each series that is switched on, and the value that stands for it, wherever it stands."""
    return await page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#legend button[aria-pressed=true]")].map((entry) => [
            entry.querySelector("span:nth-of-type(3)").textContent,
            entry.querySelector(".value").textContent]))"""
    )


PAINTED = """(canvas, colour) => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const wanted = [0, 2, 4].map((at) => parseInt(colour.slice(1 + at, 3 + at), 16));
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    let painted = 0;
    for (let at = 0; at < data.length; at += 4) {
        const distance = wanted.reduce((sum, part, index) => sum + Math.abs(part - data[at + index]), 0);
        if (data[at + 3] > 200 && distance < 30) painted++;
    }
    return painted;
}"""


async def painted(canvas: Locator, series_colour: int) -> int:
    """How many pixels of a canvas have the colour of that number among those of the chart's series."""
    colour = await canvas.evaluate(
        "(canvas, name) => getComputedStyle(canvas).getPropertyValue(name).trim()", f"--series-{series_colour}"
    )
    return await canvas.evaluate(PAINTED, colour)
