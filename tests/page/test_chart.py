"""Numbers become a chart by themselves, and the chart can be read and switched."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import expect

from tests.page.reading import (
    PAINTED,
    VMSTAT,
    VMSTAT_COLUMNS,
    OpenTab,
    painted,
    rows,
    series,
    speak,
    speaker,
)
from tests.pageserver import PageServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_vmstat_becomes_a_chart_of_its_columns(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, *VMSTAT[:4])
        await expect(rows(page)).to_have_count(4)
        await expect(page.locator("#tab-feed")).to_have_attribute("aria-selected", "true")
        await speak(client, VMSTAT[4])
    await expect(page.locator("#tab-chart")).to_have_attribute("aria-selected", "true")
    await expect(page.locator("#panel-feed")).to_be_hidden()
    await expect(page.locator("#plots canvas")).to_have_count(17)
    assert list(await series(page)) == VMSTAT_COLUMNS
    captions = await page.locator("#plots figcaption").all_inner_texts()
    assert [re.sub(r"\s+", " ", caption) for caption in captions[3:6]] == [
        "memory free 23.6M",
        "memory buff 3,836",
        "memory cache 919k",
    ]
    assert list((await series(page)).values())[-4:] == ["1", "97", "0", "1"]
    groups = [0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5, 5]
    for index, group in enumerate(groups):
        assert await painted(page.locator("#plots canvas").nth(index), group) > 20


async def test_the_eye_for_paint_tells_colours_and_sees_an_empty_canvas(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, "1", "2", "3")
    await expect(page.locator("#legend .value")).to_have_text("3")
    canvas = page.locator("#plots canvas")
    assert await painted(canvas, 0) > 20
    assert await painted(canvas, 1) == 0
    await canvas.evaluate("(canvas) => canvas.getContext('2d').clearRect(0, 0, 9999, 9999)")
    assert await painted(canvas, 0) == 0


async def test_like_series_share_a_chart_and_are_switched_by_mouse_and_keyboard(
    visit: OpenTab, site: PageServer
) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, *(json.dumps({"oslo": 3 + n, "rome": 17 - n, "at": "noon"}) for n in range(4)))
    canvas = page.locator("#plots canvas")
    await expect(canvas).to_have_count(1)
    await expect(page.locator("#legend .value").first).to_have_text("6")
    assert await series(page) == {"oslo": "6", "rome": "14"}
    assert await painted(canvas, 0) > 20
    assert await painted(canvas, 1) > 20
    oslo, rome = page.locator("#legend button").nth(0), page.locator("#legend button").nth(1)
    await oslo.click()
    await expect(oslo).to_have_attribute("aria-pressed", "false")
    await page.wait_for_function(
        f"(colour) => ({PAINTED})(document.querySelector('#plots canvas'), colour) === 0", arg="#0f6ba8"
    )
    assert await painted(canvas, 1) > 20
    assert await series(page) == {"rome": "14"}
    await rome.focus()
    await page.keyboard.press("Space")
    await expect(canvas).to_have_count(0)
    await expect(rome).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(canvas).to_have_count(1)
    await oslo.click()
    await page.get_by_role("button", name="One each").click()
    await expect(canvas).to_have_count(2)
    await page.get_by_role("button", name="One chart").click()
    await expect(canvas).to_have_count(1)


@pytest.mark.parametrize(
    ("payloads", "names"),
    [
        (["41", "42.5", "-3e2"], ["value"]),
        (["[1, 2, 3]", "[2, 3, 4]", "[3, 4, 5]"], ["[0]", "[1]", "[2]"]),
        (["0.10 0.20 0.30 1/99 4711"] * 3, ["column 1", "column 2", "column 3", "column 5"]),
        (['{"cpu": {"user": 1, "idle": 2}, "time": 1795386000}'] * 3, ["user", "idle"]),
    ],
)
async def test_every_kind_of_numbers_is_drawn(
    visit: OpenTab, site: PageServer, payloads: list[str], names: list[str]
) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, *payloads)
    await expect(page.locator("#legend button")).to_have_count(len(names))
    assert list(await series(page)) == names
    await expect(page.locator("#tab-chart")).to_have_attribute("aria-selected", "true")
    assert await painted(page.locator("#plots canvas").first, 0) > 20


async def test_who_chose_the_feed_keeps_it(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await page.locator("#tab-feed").click()
    async with speaker(site) as client:
        await speak(client, "1", "2", "3", "4")
    await expect(page.locator("#tab-news:not([hidden])")).to_have_count(1)
    await expect(page.locator("#tab-feed")).to_have_attribute("aria-selected", "true")
    await page.locator("#tab-feed").press("ArrowRight")
    await expect(page.locator("#tab-chart")).to_be_focused()
    await expect(page.locator("#panel-chart")).to_be_visible()
    assert await series(page) == {"value": "4"}


async def test_words_between_numbers_do_not_open_the_chart(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, "1", "2", "and three", "3", "4", "see you at 5")
    await expect(rows(page)).to_have_count(6)
    await expect(page.locator("#tab-feed")).to_have_attribute("aria-selected", "true")


async def test_pointer_and_arrow_keys_read_the_chart(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    async with speaker(site) as client:
        for number in (10, 20, 30):
            # A chart's points lie apart in time; the page's own clock says how far.
            await page.evaluate("() => new Promise((done) => setTimeout(done, 40))")
            await speak(client, str(number))
            await expect(page.locator("#total")).to_have_text(str(number // 10))
    value, readout = page.locator("#legend .value"), page.locator("#readout")
    await expect(value).to_have_text("30")
    await expect(readout).to_have_text("")
    box = await page.locator("#plots canvas").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2)
    await expect(value).to_have_text("10")
    await expect(readout).to_have_text(re.compile(r"^at \d\d:\d\d:\d\d$"))
    await page.mouse.move(5, 5)
    await expect(value).to_have_text("30")
    await page.locator("#plots").focus()
    await page.keyboard.press("ArrowLeft")
    await expect(value).to_have_text("20")
    await page.keyboard.press("ArrowLeft")
    await expect(value).to_have_text("10")
    await page.keyboard.press("Escape")
    await expect(value).to_have_text("30")
