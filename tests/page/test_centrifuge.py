"""The page in the Centrifuge dialect, on the real server: presence, history, recovery, and the ways to be cut off."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, WebSocketRoute, expect
from websockets.asyncio.client import connect

from tests.browser import Tab, open_tab
from tests.harness import Server, serve
from tests.page.cable import cable_to
from tests.page.reading import NO_FIGURE, PHONE, OpenTab, bodies, rows, say

pytestmark = pytest.mark.asyncio(loop_scope="session")

CENTRIFUGE = "&dialect=centrifuge"
CUT_OFF = r"WebSocket connection to .* failed|Failed to load resource"
LIVE = ("data-state", "live")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--history-size", "100", "--presence", "--join-leave") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def tab(browser: Browser) -> AsyncIterator[OpenTab]:
    """Opens tabs on any server, which are judged at the end: `await tab(address, expected="…", **context_options)`."""
    tabs: list[tuple[Tab, str, str | None]] = []
    async with AsyncExitStack() as stack:

        async def tab(address: str, expected: str | None = None, **options: Any) -> Page:
            opened = await stack.enter_async_context(open_tab(browser, address, **options))
            tabs.append((opened, address, expected))
            return opened.page

        yield tab
        for opened, address, expected in tabs:
            assert opened.unexpected(expected) == []
            assert opened.strangers(address) == []


async def live(page: Page) -> Page:
    await expect(page.locator("#state")).to_have_attribute(*LIVE)
    return page


async def publish(server: Server, channel: str, *data: Any) -> None:
    for each in data:
        assert "result" in await asyncio.to_thread(server.api, "publish", {"channel": channel, "data": each})


async def marks(page: Page) -> list[str]:
    return await page.locator("#feed li:not(.notice) .mark").all_text_contents()


def notices(page: Page, text: str) -> Any:
    return page.locator("#feed .notice", has_text=text)


# ---- the switch


async def test_the_switch_changes_the_dialect_and_the_address_keeps_it(tab: OpenTab, server: Server) -> None:
    page = await live(await tab(f"{server.url}/#switch"))
    raw, centrifuge = (page.get_by_role("button", name=name, exact=True) for name in ("Raw", "Centrifuge"))
    await expect(raw).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("#people")).to_be_hidden()
    async with page.expect_websocket(lambda socket: socket.url.endswith("/connection/websocket")):
        await centrifuge.focus()
        await page.keyboard.press("Enter")
    await live(page)
    assert page.url == f"{server.url}/#switch{CENTRIFUGE}"
    await expect(centrifuge).to_have_attribute("aria-pressed", "true")
    await expect(raw).to_have_attribute("aria-pressed", "false")
    await expect(page.locator("#script-example")).to_contain_text('newSubscription("switch")')
    await expect(page.locator("#people-count")).to_have_text("1 here")
    await page.reload()
    await expect(page.locator("#people-count")).to_have_text("1 here")
    await page.locator("#channel").fill("other")
    await page.locator("#channel").press("Enter")
    await expect(page).to_have_url(f"{server.url}/#other{CENTRIFUGE}")
    await expect(page.locator("#recent-list a").last).to_have_attribute("href", f"#switch{CENTRIFUGE}")
    await raw.click()
    await expect(page).to_have_url(f"{server.url}/#other")
    await live(page)
    await expect(page.locator("#people")).to_be_hidden()
    await expect(page.locator("#script-example")).to_contain_text("new WebSocket")
    await page.go_back()
    await expect(page.locator("#people-count")).to_have_text("1 here")


async def test_both_dialects_are_one_conversation(tab: OpenTab, server: Server) -> None:
    centrifuge = await live(await tab(f"{server.url}/#talk{CENTRIFUGE}"))
    raw = await live(await tab(f"{server.url}/#talk"))
    await say(centrifuge, "Friends, Greeks")
    await expect(rows(raw)).to_have_count(1)
    await say(raw, "we hear you")
    await expect(rows(centrifuge)).to_have_count(2)
    await say(centrifuge, '{"load": 0.5}')
    await expect(rows(raw)).to_have_count(3)
    async with connect(f"{server.websocket_url}/ws/talk") as client:
        await client.send(b"\x00\xff")
        await expect(rows(centrifuge)).to_have_count(4)
    assert await bodies(raw) == ["Friends, Greeks", "we hear you", '{"load": 0.5}', "2 bytes00 ff"]
    assert await bodies(centrifuge) == ["Friends, Greeks", "we hear you", '{"load":0.5}', "2 bytes00 ff"]
    assert await centrifuge.locator("#feed .own").count() == 2
    await expect(centrifuge.locator("#lag")).to_have_text(re.compile(r"^\d+(\.\d)? m?s$"))


async def test_who_says_something_is_known(tab: OpenTab, server: Server) -> None:
    one = await live(await tab(f"{server.url}/#names{CENTRIFUGE}"))
    other = await live(await tab(f"{server.url}/#names{CENTRIFUGE}"))
    await say(one, "the same")
    await expect(rows(other)).to_have_count(1)
    await say(other, "the same")
    await expect(rows(one)).to_have_count(2)
    own = (await one.locator("#people-list .own").inner_text()).removesuffix(" · you")
    assert (await marks(other))[0] == own
    assert re.fullmatch(r"you · \d+(\.\d)? m?s", (await marks(one))[0])
    assert await one.locator("#feed .own").count() == await other.locator("#feed .own").count() == 1


# ---- presence


async def test_the_list_follows_who_comes_and_goes(tab: OpenTab, browser: Browser, server: Server) -> None:
    page = await live(await tab(f"{server.url}/#crowd{CENTRIFUGE}"))
    count, people = page.locator("#people-count"), page.locator("#people-list li")
    await expect(count).to_have_text("1 here")
    await expect(people).to_have_text([re.compile(r"^[0-9a-f]{4} · you$")])
    async with open_tab(browser, f"{server.url}/#crowd{CENTRIFUGE}") as visitor:
        await expect(count).to_have_text("2 here")
        theirs = await visitor.page.locator("#people-list .own").get_attribute("title")
        await expect(people.last).to_have_attribute("title", str(theirs))
        # A raw listener has no name, and is not among those who are here.
        async with connect(f"{server.websocket_url}/ws/crowd") as client:
            await client.send("still two")
            await expect(rows(page)).to_have_count(1)
            await expect(count).to_have_text("2 here")
        await visitor.page.evaluate("location.hash = 'elsewhere&dialect=centrifuge'")
        await expect(count).to_have_text("1 here")
        await visitor.page.go_back()
        await expect(count).to_have_text("2 here")
    await expect(count).to_have_text("1 here")
    await expect(page.locator("#missing")).to_be_hidden()


async def test_without_joins_the_list_is_asked_for_now_and_then(tab: OpenTab, browser: Browser) -> None:
    with serve("--presence") as server:
        page = await live(await tab(f"{server.url}/#crowd{CENTRIFUGE}"))
        await expect(page.locator("#missing-list li")).to_have_count(2)
        await expect(page.locator("#people-count")).to_have_text("1 here")
        await page.clock.install()
        await page.evaluate("location.hash = 'later&dialect=centrifuge'")
        await expect(page.locator("#people-count")).to_have_text("1 here")
        async with open_tab(browser, f"{server.url}/#later{CENTRIFUGE}") as visitor:
            await expect(visitor.page.locator("#people-count")).to_have_text("2 here")
            await page.clock.fast_forward(16_000)
            await expect(page.locator("#people-count")).to_have_text("2 here")


async def test_what_is_not_on_is_said_aside_and_the_rest_works(tab: OpenTab) -> None:
    with serve() as server:
        page = await live(await tab(f"{server.url}/#plain{CENTRIFUGE}"))
        await expect(page.locator("#missing-list code")).to_have_text(
            ["--history-size 100", "--presence", "--join-leave"]
        )
        await expect(page.locator("#people")).to_be_hidden()
        await say(page, "and yet")
        await expect(rows(page)).to_have_count(1)
        disconnect = {"user": "", "disconnect": {"code": 3011, "reason": "force reconnect"}}
        await asyncio.to_thread(server.api, "disconnect", disconnect)
        await expect(notices(page, "What was said meanwhile is not shown.")).to_have_count(1)
        await page.get_by_role("button", name="Raw", exact=True).click()
        await expect(page.locator("#missing")).to_be_hidden()


# ---- history and recovery


async def test_the_last_messages_are_there_when_one_comes(tab: OpenTab, server: Server) -> None:
    await publish(server, "kept", *(f"old {number}" for number in range(60)))
    page = await live(await tab(f"{server.url}/#kept{CENTRIFUGE}"))
    await expect(rows(page)).to_have_count(50)
    assert await bodies(page) == [f"old {number}" for number in range(10, 60)]
    assert await marks(page) == ["history"] * 50
    await expect(page.locator("#total")).to_have_text("0")
    await publish(server, "kept", "new")
    await expect(rows(page).last).to_contain_text("new")
    assert await page.locator("#feed .past").count() == 50
    await expect(page.locator("#total")).to_have_text("1")


async def test_what_was_missed_while_cut_off_is_recovered(tab: OpenTab, server: Server) -> None:
    async with cable_to(server.port) as cable:
        page = await live(await tab(f"{cable.url}/#cut{CENTRIFUGE}", expected=CUT_OFF))
        await say(page, "before")
        await expect(rows(page)).to_have_count(1)
        cable.cut()
        await expect(page.locator("#banner-words")).to_have_text("The server cannot be reached.")
        await expect(page.locator("#people")).to_be_hidden()
        await publish(server, "cut", "one", {"two": 2}, "three")
        cable.mend()
        await live(page)
        await expect(notices(page, "Recovered 3 missed messages.")).to_have_count(1)
        await expect(rows(page)).to_have_count(4)
        assert await bodies(page) == ["before", "one", '{"two":2}', "three"]
        assert (await marks(page))[1:] == ["recovered"] * 3
        await expect(page.locator("#people-count")).to_have_text("1 here")
        await say(page, "after")
        await expect(rows(page)).to_have_count(5)


async def test_a_history_that_is_too_short_is_owned_up_to(tab: OpenTab) -> None:
    with serve("--history-size", "4") as server:
        async with cable_to(server.port) as cable:
            page = await live(await tab(f"{cable.url}/#short{CENTRIFUGE}", expected=CUT_OFF))
            await publish(server, "short", "heard")
            await expect(rows(page)).to_have_count(1)
            cable.cut()
            await expect(page.locator("#state")).not_to_have_attribute(*LIVE)
            await publish(server, "short", *(f"missed {number}" for number in range(9)))
            cable.mend()
            await live(page)
            await expect(notices(page, "the channel's history is too short")).to_have_count(1)
            await expect(rows(page)).to_have_count(5)
            assert await bodies(page) == ["heard", "missed 5", "missed 6", "missed 7", "missed 8"]


async def test_a_server_that_has_forgotten_the_stream_is_told_apart(tab: OpenTab) -> None:
    with serve("--history-size", "4") as server:
        page = await live(await tab(f"{server.url}/#epoch{CENTRIFUGE}", expected=CUT_OFF))
        await say(page, "before")
        await expect(rows(page)).to_have_count(1)
        assert await asyncio.to_thread(server.terminate) == 0
        await expect(notices(page, "The server is shutting down. (3001)")).to_have_count(1)
        with serve("--history-size", "4", "--port", str(server.port)):
            await live(page)
            await expect(notices(page, "the channel's history has begun anew")).to_have_count(1)


# ---- being cut off


async def test_a_disconnect_with_a_code_to_come_back_loses_nothing(tab: OpenTab, server: Server) -> None:
    page = await live(await tab(f"{server.url}/#anew{CENTRIFUGE}"))
    await say(page, "before")
    await expect(rows(page)).to_have_count(1)
    disconnect = {"user": "", "disconnect": {"code": 3011, "reason": "force reconnect"}}
    await asyncio.to_thread(server.api, "disconnect", disconnect)
    await expect(notices(page, "The server asks this page to connect anew. (3011)")).to_have_count(1)
    await expect(notices(page, "Nothing was missed.")).to_have_count(1)
    await live(page)


async def test_a_disconnect_for_good_is_one(tab: OpenTab, server: Server) -> None:
    page = await live(await tab(f"{server.url}/#final{CENTRIFUGE}"))
    await page.clock.install()
    disconnect = {"user": "", "disconnect": {"code": 3500, "reason": "invalid token"}}
    await asyncio.to_thread(server.api, "disconnect", disconnect)
    await expect(page.locator("#state-word")).to_have_text("Refused")
    words = "The server refused the credentials: missing, wrong or expired. (3500)"
    await expect(page.locator("#banner-words")).to_have_text(words)
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await page.clock.fast_forward(3_600_000)
    assert await page.locator("#state").get_attribute("data-state") == "refused"
    assert sockets == []
    await page.get_by_role("button", name="Reconnect now").click()
    await live(page)
    assert len(sockets) == 1


async def test_a_lost_position_is_recovered_on_the_same_connection(tab: OpenTab, server: Server) -> None:
    page = await tab(f"{server.url}/favicon.svg")
    wires: list[tuple[WebSocketRoute, WebSocketRoute]] = []

    def answered(wire: WebSocketRoute, message: str | bytes) -> None:
        # The answer to the command that the page never gave.
        if '"id":4000000' not in str(message):
            wire.send(message)

    def between(wire: WebSocketRoute) -> None:
        upstream = wire.connect_to_server()
        upstream.on_message(lambda message: answered(wire, message))
        wires.append((wire, upstream))

    await page.route_web_socket(re.compile("/connection/websocket$"), between)
    await page.goto(f"{server.url}/#gap{CENTRIFUGE}")
    await live(page)
    await say(page, "before")
    await expect(rows(page)).to_have_count(1)
    ((wire, upstream),) = wires
    # As when a lag policy has cut the stream: off the channel at the server, and then told.
    upstream.send(json.dumps({"id": 4_000_000, "unsubscribe": {"channel": "gap"}}))
    await wait_for_clients(server, "gap", 0)
    await publish(server, "gap", "missed one", "missed two")
    wire.send('{"push":{"channel":"gap","unsubscribe":{"code":2500,"reason":"insufficient state"}}}')
    await expect(notices(page, "The server ended the subscription: insufficient state. (2500)")).to_have_count(1)
    await expect(notices(page, "Recovered 2 missed messages.")).to_have_count(1)
    await publish(server, "gap", "live again")
    await expect(rows(page)).to_have_count(4)
    assert await bodies(page) == ["before", "missed one", "missed two", "live again"]
    assert len(wires) == 1


async def wait_for_clients(server: Server, channel: str, number: int) -> None:
    async with asyncio.timeout(20):
        while True:
            reply = await asyncio.to_thread(server.api, "channels", {})
            if reply["result"]["channels"].get(channel, {"num_clients": 0})["num_clients"] == number:
                return
            await asyncio.sleep(0.02)


async def test_a_page_that_is_taken_off_the_channel_stays_off(tab: OpenTab, server: Server) -> None:
    page = await live(await tab(f"{server.url}/#off{CENTRIFUGE}"))
    await asyncio.to_thread(server.api, "unsubscribe", {"user": "", "channel": "off"})
    words = "The server took this page off the channel: server unsubscribe. (2000)"
    await expect(page.locator("#banner-words")).to_have_text(words)
    await say(page, "anybody?")
    await expect(page.locator("#refusal")).to_contain_text("Not sent")
    await page.get_by_role("button", name="Reconnect now").click()
    await live(page)


async def test_a_silent_server_is_given_up(tab: OpenTab, server: Server) -> None:
    page = await tab(f"{server.url}/favicon.svg")
    wires: list[WebSocketRoute] = []

    def without_pings(wire: WebSocketRoute) -> None:
        wires.append(wire)
        upstream = wire.connect_to_server()
        upstream.on_message(lambda message: None if message == "{}" else wire.send(message))

    await page.clock.install()
    await page.route_web_socket(re.compile("/connection/websocket$"), without_pings)
    await page.goto(f"{server.url}/#silent{CENTRIFUGE}")
    await expect(page.locator("#people-count")).to_have_text("1 here")
    await page.clock.fast_forward(30_000)
    await expect(page.locator("#people-count")).to_have_text("1 here")
    assert len(wires) == 1
    # Answers to what the page asks now and then are signs of life, too.
    await page.clock.fast_forward(36_000)
    await expect(notices(page, "The server fell silent.")).to_have_count(1)
    await page.clock.run_for(1_000)
    await live(page)


async def test_the_token_goes_with_the_connect_command(tab: OpenTab) -> None:
    with serve("--auth", "token", "--tokens", "s3cret") as server:
        page = await tab(f"{server.url}/#closed{CENTRIFUGE}")
        await expect(page.locator("#state-word")).to_have_text("Refused")
        await expect(page.locator("#banner-words")).to_contain_text("The server refused the credentials")
        addresses: list[str] = []
        page.on("websocket", lambda socket: addresses.append(socket.url))
        await page.get_by_text("Access token").click()
        await page.locator("#token").fill("s3cret")
        await page.locator("#token").press("Enter")
        await live(page)
        assert addresses == [f"{server.websocket_url}/connection/websocket"]


# ---- the look


STICKING_OUT = """(width) => [...document.querySelectorAll("header *, #banner *, .views *, #people > *, #feed *")]
    .filter((element) => element.getBoundingClientRect().right > width + 0.5)
    .map((element) => element.outerHTML)"""
WINDOWS = [{"viewport": {"width": width, "height": 700}} for width in (600, 900, 1024)]


@pytest.mark.parametrize("options", [PHONE, {**PHONE, "viewport": {"width": 400, "height": 760}}, *WINDOWS])
async def test_nothing_sticks_out_in_this_dialect_either(tab: OpenTab, server: Server, options: dict[str, Any]) -> None:
    page = await live(await tab(f"{server.url}/#{'w' * 100}{CENTRIFUGE}", **options))
    await say(page, "mine " + "M" * 300)
    await expect(page.locator("#people-count")).to_be_visible()
    await expect(page.locator("#lag")).not_to_have_text(NO_FIGURE)
    width = options["viewport"]["width"]
    disconnect = {"user": "", "disconnect": {"code": 3503, "reason": "r" * 120}}
    for _ in range(2):
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert await page.evaluate(STICKING_OUT, width) == []
        await asyncio.to_thread(server.api, "disconnect", disconnect)
        await expect(page.locator("#banner")).to_be_visible()


async def test_a_crowd_is_counted_and_shown_in_part(run: Any) -> None:
    found = await run(
        "people.js",
        """
        const [line, count, list] = ["div", "b", "ul"].map((tag) => document.createElement(tag));
        const people = new m.People({ line, count, list });
        const crowd = Array.from({ length: 1500 }, (_, index) => String(index).padStart(6, "0"));
        people.show(crowd, "000900");
        return [count.textContent, list.childElementCount, list.firstChild.textContent, list.lastChild.textContent];
        """,
    )
    assert found == ["1,500 here", 41, "0009 · you", "and 1,460 more"]
