"""Saying and hearing: what the feed shows of a channel, slow or torrential."""

from __future__ import annotations

import asyncio
import itertools
import json
import re

import pytest
from playwright.async_api import expect

from tests.page.reading import (
    NO_FIGURE,
    PHONE,
    OpenTab,
    bodies,
    rows,
    say,
    speak,
    speaker,
)
from tests.pageserver import PageServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT_END = """(last) => {
    const feed = document.querySelector("#feed");
    const row = feed.lastElementChild;
    return row?.textContent.endsWith(last) && row.getBoundingClientRect().bottom <= innerHeight
        && feed.scrollHeight - feed.scrollTop - feed.clientHeight < 2;
}"""


async def test_what_one_tab_says_every_tab_hears(visit: OpenTab, site: PageServer) -> None:
    one, other, elsewhere = await visit("/"), await visit("/#main"), await visit("/#other")
    await say(one, "Hello, everyone")
    await say(other, "Hello, one")
    for page in (one, other):
        await expect(rows(page)).to_have_count(2)
        assert await bodies(page) == ["Hello, everyone", "Hello, one"]
    await say(elsewhere, "Nobody here?")
    await expect(rows(elsewhere)).to_have_count(1)
    await expect(rows(one)).to_have_count(2)


async def test_ones_own_words_are_marked_and_show_ones_own_lag(visit: OpenTab) -> None:
    one, other = await visit(), await visit()
    await expect(one.locator("#lag")).to_have_text(NO_FIGURE)
    await say(one, "mine")
    await expect(rows(other)).to_have_count(1)
    mark = one.locator("#feed .own .mark")
    await expect(mark).to_have_text(re.compile(r"^you · \d+(\.\d)? m?s$"))
    await expect(one.locator("#lag")).to_have_text((await mark.inner_text()).removeprefix("you · "))
    assert await other.locator("#feed .own").count() == 0
    await expect(other.locator("#lag")).to_have_text(NO_FIGURE)
    await say(other, "mine")
    await expect(rows(one)).to_have_count(2)
    assert await one.locator("#feed .own").count() == 1


async def test_shift_enter_and_composition_do_not_send(visit: OpenTab) -> None:
    page = await visit()
    words = page.locator("#words")
    await words.fill("two")
    await words.press("Shift+Enter")
    await words.press_sequentially("lines")
    composed = "(box) => box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true}))"
    await words.evaluate(composed)
    await expect(words).to_have_value("two\nlines")
    await page.get_by_role("button", name="Send").click()
    await expect(rows(page)).to_have_count(1)
    assert await bodies(page) == ["two\nlines"]
    await say(page, "")
    await say(page, "after nothing")
    await expect(rows(page)).to_have_count(2)


async def test_bytes_are_shown_by_number_and_in_hexadecimal(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, b"\x00\x01\xfe\xff", bytes(3000), b"", b"\x07")
    await expect(rows(page)).to_have_count(4)
    found = await bodies(page)
    assert found[0] == "4 bytes00 01 fe ff"
    assert found[1] == "3,000 bytes" + " ".join(["00"] * 24) + " …"
    assert found[2:] == ["0 bytes", "1 byte07"]


async def test_nothing_that_is_said_becomes_markup(visit: OpenTab, site: PageServer) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    page = await visit("/?channel=" + "%3Cimg%20src%3Dx%20onerror%3Dalert(3)%3E")
    await expect(page.locator("#feed-empty .channel-name")).to_have_text("#<img src=x onerror=alert(3)>")
    await page.evaluate("location.hash = 'main'")
    await expect(page.locator("#feed-empty .channel-name")).to_have_text("#main")
    await expect(page.locator("#state")).to_have_attribute("data-state", "live")
    async with speaker(site) as client:
        await speak(client, attack, *[json.dumps({attack: 1, "x": {attack: 2}})] * 3)
    await expect(page.locator("#tab-chart")).to_have_attribute("aria-selected", "true")
    await expect(page.locator("#legend button")).to_have_count(2)
    assert (await bodies(page))[0] == attack
    await site.close_clients(1008, attack)
    await expect(page.locator("#banner-words")).to_contain_text(attack)
    assert await page.locator("main img, main script, #banner img, aside img").count() == 0


async def test_very_long_words_are_cut_and_say_so(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, "x" * 60_000)
    await expect(rows(page)).to_have_count(1)
    assert await bodies(page) == ["x" * 2000 + "…60,000 characters in all"]


async def test_the_feed_keeps_the_last_500_rows(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    async with speaker(site) as client:
        await speak(client, *(f"message {number}" for number in range(1200)))
    await expect(page.locator("#total")).to_have_text("1,200")
    await expect(page.locator("#feed li").last).to_have_text(re.compile("message 1199$"))
    assert await bodies(page) == [f"message {number}" for number in range(700, 1200)]


async def test_a_torrent_does_not_freeze_the_page(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await page.evaluate("window.frames_drawn = 0; (function next() { frames_drawn++; requestAnimationFrame(next) })()")
    async with speaker(site) as client:
        for batch in range(10):
            await speak(client, *(f"torrent {batch * 1000 + number}" for number in range(1000)))
            await page.evaluate("() => new Promise(requestAnimationFrame)")
    await expect(page.locator("#total")).to_have_text("10,000")
    await expect(page.locator("#feed li")).to_have_count(500)
    # What is counted at once is drawn a little later: the feed rests between two drawings.
    await expect(page.locator("#feed li").last).to_contain_text("torrent 9999")
    assert await page.evaluate("frames_drawn") > 10


async def test_the_feed_follows_rows_that_are_higher_than_guessed(visit: OpenTab, site: PageServer) -> None:
    page = await visit(**PHONE)
    async with speaker(site) as client:
        for batch in range(4):
            await speak(client, *("many words " * (number % 40) + f"{batch}.{number}" for number in range(150)))
            await page.wait_for_function(AT_END, arg=f"{batch}.149")
        await expect(page.locator("#newer")).to_be_hidden()


async def test_the_feed_stays_at_its_end_when_its_room_shrinks(visit: OpenTab, site: PageServer) -> None:
    page = await visit(**PHONE)
    async with speaker(site) as client:
        await speak(client, *(json.dumps({"berlin": number, "oslo": -number}) for number in range(120)))
    await expect(page.locator("#tab-chart")).to_have_attribute("aria-selected", "true")
    await page.locator("#tab-feed").click()
    await site.close_clients(1012, "reconnect_after_ms=600000")
    await say(page, "anybody?")
    await expect(page.locator("#refusal")).to_contain_text("Not sent")
    await page.wait_for_function(AT_END, arg="(1012)")


async def test_who_reads_further_up_is_not_disturbed(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    feed, newer = page.locator("#feed"), page.locator("#newer")
    async with speaker(site) as client:
        await speak(client, *(f"old {number}" for number in range(100)))
        await expect(rows(page)).to_have_count(100)
        await expect(newer).to_be_hidden()
        await feed.evaluate("(list) => new Promise((done) => { list.onscrollend = done; list.scrollTop = 40 })")
        await speak(client, *(f"new {number}" for number in range(700)))
        await expect(newer).to_have_text("700 new ↓")
        assert await feed.evaluate("(list) => list.scrollTop") == 40
        assert (await bodies(page))[-1] == "old 99"
        await newer.click()
        await expect(newer).to_be_hidden()
        assert await bodies(page) == [f"new {number}" for number in range(200, 700)]
        gap = "(list) => list.scrollHeight - list.scrollTop - list.clientHeight"
        assert await feed.evaluate(gap) < 2
        await speak(client, "and on it goes")
        await expect(rows(page).last).to_contain_text("and on it goes")
        assert await feed.evaluate(gap) < 2


async def test_a_hand_can_leave_the_end_while_rows_pour_in(visit: OpenTab, site: PageServer) -> None:
    page = await visit(**PHONE)
    feed, newer = page.locator("#feed"), page.locator("#newer")
    async with speaker(site) as client:

        async def pour() -> None:
            for number in itertools.count():
                await speak(client, "pouring " * (number % 12) + str(number))

        await speak(client, *(f"old {number}" for number in range(100)))
        await expect(rows(page)).to_have_count(100)
        pouring = asyncio.create_task(pour())
        try:
            await feed.hover()
            await page.mouse.wheel(0, -300)
            await expect(newer).to_be_visible()
            top = await feed.evaluate("(list) => list.scrollTop")
            seen = await newer.inner_text()
            await expect(newer).not_to_have_text(seen)
            assert await feed.evaluate("(list) => list.scrollTop") == top
        finally:
            pouring.cancel()
            await asyncio.gather(pouring, return_exceptions=True)


async def test_a_torrent_is_not_read_aloud(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await expect(page.locator("#feed")).to_have_attribute("aria-live", "polite")
    async with speaker(site) as client:
        await speak(client, *("much" for _ in range(100)))
    await expect(page.locator("#feed")).to_have_attribute("aria-live", "off")
