"""Widths, contrast and names: whether the page can be used by hand, eye and ear; and whether it keeps to itself."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.browser import open_tab
from tests.page.reading import (
    PHONE,
    VMSTAT,
    OpenTab,
    rows,
    say,
    speak,
    speaker,
)
from tests.pageserver import PageServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOO_WIDE = """(width) => [...document.querySelectorAll("header *, #banner *, .views *, #say *, #feed *, #more *")]
    .filter((element) => element.getBoundingClientRect().right > width + 0.5
        || (element.matches(".body, .line") && element.scrollWidth > (element.clientWidth || Infinity) + 1))
    .map((element) => element.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("options", [PHONE, {"viewport": {"width": 1200, "height": 800}}], ids=["phone", "desktop"])
async def test_nothing_is_wider_than_the_window(visit: OpenTab, site: PageServer, options: dict[str, Any]) -> None:
    page = await visit("/#" + "w" * 120, **options)
    overflow = "() => document.documentElement.scrollWidth - innerWidth"
    width = options["viewport"]["width"]
    async with speaker(site, "w" * 120) as client:
        await speak(client, "W" * 5000, bytes(500), *VMSTAT)
        await say(page, "mine " + "M" * 500)
        await expect(rows(page)).to_have_count(8)
        for view in ("feed", "chart", "more"):
            tab = page.locator(f"#tab-{view}")
            if await tab.is_visible():
                await tab.click()
            assert await page.evaluate(overflow) <= 0
            assert await page.evaluate(TOO_WIDE, width) == []
        await site.close_clients(1008, "r" * 120)
        await expect(page.locator("#banner")).to_be_visible()
        assert await page.evaluate(overflow) <= 0


async def test_a_phone_has_the_examples_in_a_view_of_their_own(visit: OpenTab) -> None:
    page = await visit(**PHONE)
    await expect(page.locator("#shell-example")).to_be_hidden()
    await page.locator("#tab-more").click()
    await expect(page.locator("#shell-example")).to_be_visible()
    await expect(page.locator("#panel-feed")).to_be_hidden()
    await page.set_viewport_size({"width": 1200, "height": 800})
    await expect(page.locator("#panel-feed")).to_be_visible()
    await expect(page.locator("#shell-example")).to_be_visible()
    await expect(page.locator("#tab-more")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground(visit: OpenTab, scheme: str) -> None:
    """Contrast of at least 4.5 (WCAG 2.2, 1.4.3) for text, 3 for lines of a chart (1.4.11)."""
    page = await visit(color_scheme=scheme)
    pairs = {("--ink", ground): 4.5 for ground in ("--paper", "--surface", "--sunk", "--own")}
    pairs |= {("--soft", ground): 4.5 for ground in ("--paper", "--surface", "--sunk", "--own")}
    pairs |= {("--accent", "--own"): 4.5, ("--on-accent", "--accent"): 4.5, ("--bad", "--paper"): 4.5}
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


async def test_every_control_has_a_name(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, *VMSTAT)
    await expect(page.locator("#legend button")).to_have_count(17)
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, [tabindex='0']")]
            .filter((control) => !control.hidden && !control.textContent.trim())
            .filter((control) => !control.labels?.length && !control.ariaLabel)
            .map((control) => control.outerHTML)"""
    )
    assert nameless == []


async def test_a_trespass_would_be_noticed(browser: Browser, site: PageServer) -> None:
    async with open_tab(browser, site.url) as tab:
        await expect(tab.page.locator("#state")).to_have_attribute("data-state", "live")
        assert tab.unexpected() == []
        assert tab.strangers(site.url) == []
        await tab.page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x.png'}))")
        await tab.page.evaluate("document.body.setAttribute('style', 'color: red')")
        async with tab.page.expect_websocket():
            await tab.page.evaluate("void new WebSocket('ws://127.0.0.2:9')")
        async with tab.page.expect_event("pageerror"):
            await tab.page.evaluate("setTimeout(() => { throw new Error('planted') })")
        assert len(tab.unexpected("img-src")) < len(tab.unexpected())
        assert len(tab.unexpected("style-src")) < len(tab.unexpected())
        assert any("planted" in trouble for trouble in tab.unexpected())
        assert "ws://127.0.0.2:9/" in tab.strangers(site.url)
