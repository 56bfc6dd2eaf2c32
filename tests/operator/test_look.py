"""Widths, contrast and names: whether the operator's page can be used by hand, eye and ear."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from tests.operator.stage import Stage
from tests.page.reading import PAINTED, OpenTab

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHONE: dict[str, Any] = {
    "viewport": {"width": 400, "height": 800},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
TOO_WIDE = """(width) => [...document.querySelectorAll("body *")]
    .filter((element) => !element.closest(".unseen, thead") && element.getBoundingClientRect().right > width + 0.5)
    .map((element) => element.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("options", [PHONE, DESK], ids=["phone", "desk"])
async def test_nothing_is_wider_than_the_window(visit: OpenTab, scene: Stage, options: dict[str, Any]) -> None:
    page = await visit(scene.url, **options)
    await scene.stall("W" * 128, 2)
    await scene.stall(quote("ü" * 100))
    leaving = await scene.connect("/ws/" + "w" * 128)
    leaving.vanish(reset=False)
    await expect(page.locator("#slow-table tbody tr")).to_have_count(3)
    await expect(page.locator("#left-table tbody tr").first).to_be_visible()
    await page.locator("#show-all").check()
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    width = options["viewport"]["width"]
    assert await page.evaluate(TOO_WIDE, width) == []
    await page.locator("#slow-table button").first.click()
    await expect(page.locator("#ending")).to_be_visible()
    assert await page.evaluate(TOO_WIDE, width) == []
    await page.locator("#ending-cancel").click()
    await page.evaluate(
        "document.body.append(document.createElement('p')); document.body.lastChild.style.width = '150vw'"
    )
    assert await page.evaluate(TOO_WIDE, width) != [], "the check finds what is too wide"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground(visit: OpenTab, quiet: Stage, scheme: str) -> None:
    """Contrast of at least 4.5 (WCAG 2.2, 1.4.3) for text, 3 for the lines of a chart (1.4.11)."""
    page = await visit(quiet.url, color_scheme=scheme)
    texts = ("--ink", "--soft", "--accent", "--good", "--waiting", "--bad")
    pairs = {(text, ground): 4.5 for text in texts for ground in ("--paper", "--surface")}
    pairs |= {(f"--series-{index}", "--surface"): 3.0 for index in range(8)}
    ratios = await page.evaluate(
        """(pairs) => pairs.map((pair) => {
            const [one, other] = pair.map((name) => {
                const hex = getComputedStyle(document.body).getPropertyValue(name).trim().slice(1);
                const [r, g, b] = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
                    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
            });
            return Math.max(one, other) / Math.min(one, other);
        })""",
        [list(pair) for pair in pairs],
    )
    assert {pair: ratio for (pair, floor), ratio in zip(pairs.items(), ratios, strict=True) if not ratio >= floor} == {}


@pytest.mark.parametrize(("scheme", "colour"), [("light", "#5a5fcf"), ("dark", "#9a9ef5")])
async def test_the_charts_are_painted(visit: OpenTab, scene: Stage, scheme: str, colour: str) -> None:
    page = await visit(scene.url, color_scheme=scheme)
    await scene.connect()
    canvas = page.locator("figure:has([data-figure=connections]) canvas")
    await expect(page.locator("[data-figure=connections]")).to_have_text("1")
    await page.wait_for_function(f"(canvas) => ({PAINTED})(canvas, '{colour}') > 20", arg=await canvas.element_handle())
    await expect(page.locator("#chart-time")).to_have_text("")
    box = await canvas.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] - 14, box["y"] + 60)
    await expect(page.locator("#chart-time")).not_to_have_text("")


async def test_every_control_has_a_name(visit: OpenTab, scene: Stage) -> None:
    page = await visit(scene.url)
    await scene.stall("slow")
    await page.locator("#slow-table button").click()
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll("button, input, canvas, table")]
            .filter((control) => !control.textContent.trim() && !control.labels?.length && !control.ariaLabel)
            .map((control) => control.outerHTML)"""
    )
    assert nameless == []


async def test_only_who_is_in_trouble_is_said_aloud(visit: OpenTab, scene: Stage) -> None:
    page = await visit(scene.url)
    await expect(page.locator("#alarm")).to_have_text("All is well")
    await scene.stall("slow")
    # A machine that has others to run, too, may delay the server, and that is said as well.
    await expect(page.locator("#alarm")).to_have_text(re.compile(r"^Watch: (Server, )?Clients$"))
