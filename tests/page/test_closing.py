"""When the connection ends: what the page says, and whether and when it comes back."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

import pytest
from playwright.async_api import expect

from tests.page.reading import (
    NO_FIGURE,
    OpenTab,
    bodies,
    rows,
    say,
)
from tests.pageserver import PageServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOST = r"WebSocket connection to .* failed|Failed to load resource"


async def test_a_restart_is_waited_for_as_long_as_the_server_says(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await page.clock.install()
    await site.close_clients(1012, "reconnect_after_ms=60000")
    await expect(page.locator("#state-word")).to_have_text("Reconnecting")
    await expect(page.locator("#countdown")).to_have_text(re.compile(r"^in (60|59|58) s$"))
    await expect(page.locator("#banner-words")).to_have_text("The server is restarting. (1012)")
    await page.clock.fast_forward(45_000)
    assert await page.locator("#state").get_attribute("data-state") == "waiting"
    assert len(site.handshakes) == 1
    await page.clock.fast_forward(16_000)
    await expect(page.locator("#state-word")).to_have_text("Live")
    await expect(page.locator("#banner")).to_be_hidden()
    assert len(site.handshakes) == 2


async def test_one_need_not_wait(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await site.close_clients(1012, '{"reconnect_after_ms": 600000}')
    await expect(page.locator("#countdown")).to_have_text(re.compile(r"^in (600|59\d) s$"))
    await page.get_by_role("button", name="Reconnect now").click()
    await expect(page.locator("#state-word")).to_have_text("Live")
    await say(page, "back")
    await expect(rows(page)).to_have_count(1)


async def test_a_lost_connection_comes_back_and_the_feed_says_so(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await say(page, "before")
    await expect(rows(page)).to_have_count(1)
    site.cut_clients()
    await expect(page.locator("#feed .notice").first).to_contain_text("The connection was lost. (1006)")
    await expect(page.locator("#feed .notice").last).to_contain_text("What was said meanwhile is not shown.")
    await expect(page.locator("#state-word")).to_have_text("Live")
    await say(page, "after")
    await expect(rows(page)).to_have_count(2)


async def test_a_server_that_is_killed_and_started_again_is_found(visit: OpenTab, site: PageServer) -> None:
    page = await visit(expected=LOST)
    await site.stop()
    await expect(page.locator("#banner-words")).to_have_text("The server cannot be reached.")
    await expect(page.locator("#state")).to_have_attribute("data-state", re.compile("waiting|connecting"))
    await say(page, "anybody?")
    await expect(page.locator("#refusal")).to_have_text("Not sent: there is no connection. Your words are kept here.")
    await expect(page.locator("#words")).to_have_value("anybody?")
    await site.start()
    await expect(page.locator("#state-word")).to_have_text("Live")
    await expect(page.locator("#refusal")).to_have_text("")
    await page.locator("#words").press("Enter")
    await expect(rows(page)).to_have_count(1)
    assert await bodies(page) == ["anybody?"]


async def test_a_server_that_refuses_is_told_from_one_that_is_gone(visit: OpenTab, site: PageServer) -> None:
    page = await visit(expected=LOST)
    site.refusal = HTTPStatus.UNAUTHORIZED
    site.cut_clients()
    await expect(page.locator("#banner-words")).to_contain_text("The server is there but refused the connection")
    site.refusal = None
    await expect(page.locator("#state-word")).to_have_text("Live")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1008, "The server refused the credentials: missing, wrong or expired. It says: “expired”. (1008)"),
        (1009, "A message was larger than the server takes; it was not delivered. It says: “expired”. (1009)"),
        (3501, "The server found a request of this page faulty. It says: “expired”. (3501)"),
    ],
)
async def test_some_closes_are_final_until_the_user_says_otherwise(
    visit: OpenTab, site: PageServer, code: int, words: str
) -> None:
    page = await visit()
    await page.clock.install()
    await site.close_clients(code, "expired")
    await expect(page.locator("#state-word")).to_have_text("Refused")
    await expect(page.locator("#banner-words")).to_have_text(words)
    await page.clock.fast_forward(3_600_000)
    assert await page.locator("#state").get_attribute("data-state") == "refused"
    assert len(site.handshakes) == 1
    await page.get_by_role("button", name="Reconnect now").click()
    await expect(page.locator("#state-word")).to_have_text("Live")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1001, "The server is shutting down. (1001)"),
        (1011, "The server ran into a fault of its own. (1011)"),
        (1013, "This page was too slow: messages came faster than it could take them. (1013)"),
        (3012, "The server heard no pong from this page. (3012)"),
    ],
)
async def test_after_other_closes_the_page_comes_back(visit: OpenTab, site: PageServer, code: int, words: str) -> None:
    page = await visit()
    await site.close_clients(code)
    await expect(page.locator("#feed .notice").first).to_contain_text(words)
    await expect(page.locator("#state-word")).to_have_text("Live")
    assert len(site.handshakes) == 2


async def test_an_echo_that_does_not_come_is_not_passed_over(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    site.is_mute = True
    await page.clock.install()
    await say(page, "hear me")
    await page.clock.fast_forward(5_000)
    await expect(page.locator("#lag")).to_have_text(re.compile(r"^> [5-9] s$"))
    await page.clock.fast_forward(30_000)
    await expect(page.locator("#feed .notice")).to_contain_text("Not heard back, so perhaps nobody heard it: “hear me”")
    await expect(page.locator("#lag")).to_have_text(NO_FIGURE)
    await say(page, "and me")
    await expect(page.locator("#words")).to_have_value("")
    site.cut_clients()
    await expect(page.locator("#feed .notice", has_text="“and me”")).to_have_count(1)


async def test_a_channel_that_is_left_while_it_connects_is_left_for_good(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await page.evaluate("location.hash = 'passing'; setTimeout(() => { location.hash = 'stay' })")
    await expect(page.locator("#channel")).to_have_value("stay")
    await expect(page.locator("#state-word")).to_have_text("Live")
    await say(page, "here")
    await expect(rows(page)).to_have_count(1)
    assert site.handshakes[-1] == "/ws/stay"
    await asyncio.wait_for(site.deserted("main", "passing"), 20)


async def test_a_handshake_without_an_answer_is_given_up(visit: OpenTab, site: PageServer) -> None:
    page = await visit(expected=LOST)
    await page.clock.install()
    site.is_silent = True
    await page.evaluate("location.hash = 'silent'")
    await expect(page.locator("#state-word")).to_have_text("Connecting")
    await page.clock.fast_forward(11_000)
    await expect(page.locator("#banner-words")).to_contain_text("The server is there but refused the connection")
    site.is_silent = False
    await page.clock.fast_forward(60_000)
    await expect(page.locator("#state-word")).to_have_text("Live")
