"""The operator's page on a real server: what is seen, who can be disconnected, and what hostile names do to it."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

import pytest
from playwright.async_api import Locator, Page, expect

from tests.lifecycle.crowd import until
from tests.operator.stage import Stage, stage
from tests.page.reading import OpenTab

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "<img/src=x/onerror=alert(1)>\u05d0\u05d1"


def rows(page: Page, table: str) -> Locator:
    return page.locator(f"#{table}-table tbody tr")


def cell(row: Locator, label: str) -> Locator:
    return row.locator(f"td[data-label='{label}'] span")


async def figure(page: Page, key: str) -> str:
    return await page.locator(f"[data-figure={key}]").inner_text()


async def test_what_happens_is_seen_within_seconds(visit: OpenTab, scene: Stage) -> None:
    page = await visit(scene.url)
    await expect(page.locator("#server-words")).to_have_text("Ready")
    for name in ("slow", "left", "channel"):
        await expect(page.locator(f"#{name}-none")).to_be_visible()
    clients = [await scene.connect() for _ in range(4)]
    await expect(page.locator("[data-figure=connections]")).to_have_text("4")

    async def speak() -> None:
        while True:
            clients[0].say("hello")
            await asyncio.sleep(0.02)

    speaking = asyncio.create_task(speak())
    news = rows(page, "channel").first
    await expect(cell(news, "Channel")).to_have_text("news")
    await expect(cell(news, "Listeners")).to_have_text("4")
    await expect(cell(news, "Publications")).to_have_text(re.compile(r"^[1-9][\d.,]*/s$"))
    for key in ("published", "sent", "bytes_sent"):
        await expect(page.locator(f"[data-figure={key}]")).to_have_text(re.compile(r"^[1-9]"))
    assert await figure(page, "dropped") == "0/s"
    await expect(page.locator("article").nth(1)).to_contain_text("All 4 keep up.")
    speaking.cancel()

    clients[3].vanish(reset=False)
    left = rows(page, "left").first
    await expect(cell(left, "Code")).to_have_text("1006")
    await expect(cell(left, "Reason")).to_have_text("connection lost")
    await expect(page.locator("[data-figure=connections]")).to_have_text("3")
    await expect(cell(rows(page, "worker"), "PID")).to_have_text(str(scene.server.pid))
    await expect(cell(rows(page, "worker"), "Memory")).to_have_text(re.compile(r"^\d[\d.]* MB$"))


async def test_a_laggard_is_named_and_disconnected(visit: OpenTab, scene: Stage) -> None:
    page = await visit(scene.url)
    await scene.stall("slow", 2)
    await expect(rows(page, "slow")).to_have_count(2)
    await expect(page.locator("#slow-count")).to_have_text(re.compile(r"^2 of \d$"))
    clients = page.locator("article[data-level=watch]", has_text="Clients")
    await expect(clients).to_contain_text("2 clients lag; the worst, 127.0.0.1, by")
    # A machine that is busy elsewhere has its own word before it.
    assert re.fullmatch("! (Server, )?Clients · Stentor, operator", await page.title())
    row = rows(page, "slow").first
    await expect(cell(row, "Why")).to_have_text(re.compile("has read nothing for|reads more slowly"))
    await row.get_by_role("button", name="Disconnect 127.0.0.1").click()
    dialog = page.locator("#ending")
    await expect(dialog).to_contain_text("slow")
    await expect(dialog.locator("#key")).to_be_hidden()
    named = await dialog.locator("dd").nth(1).inner_text()
    assert named in {client["client"] for client in await scene.slow()}
    await dialog.get_by_role("button", name="Disconnect").click()
    await expect(dialog).to_be_hidden()
    await expect(rows(page, "slow")).to_have_count(1)
    gone = next(entry for entry in await scene.left(2) if entry["client"] == named)
    assert (gone["code"], gone["reason"], gone["channel"]) == (1008, "force disconnect", "slow")
    assert gone["queue_messages"] > 0
    thrown_out = rows(page, "left").filter(has_text="force disconnect")
    await expect(cell(thrown_out, "Queue")).to_have_text(re.compile(r"^\d.* · .* [kM]B$"))


async def test_disconnecting_can_be_thought_better_of(visit: OpenTab, scene: Stage) -> None:
    page = await visit(scene.url)
    await scene.stall("slow")
    await rows(page, "slow").get_by_role("button").click()
    await page.keyboard.press("Escape")
    await expect(page.locator("#ending")).to_be_hidden()
    await rows(page, "slow").get_by_role("button").click()
    await page.locator("#ending-cancel").click()
    await expect(page.locator("#ending")).to_be_hidden()
    assert len(await scene.slow()) == 1


async def test_with_an_api_key_it_is_asked_for(visit: OpenTab) -> None:
    async with stage("--api-key", "k3y-of-the-server") as scene:
        page = await visit(scene.url, expected="401")
        await scene.stall("slow")
        await rows(page, "slow").get_by_role("button").click()
        dialog = page.locator("#ending")
        for wrong in ("", "k3y"):
            await dialog.locator("#key").fill(wrong)
            await dialog.get_by_role("button", name="Disconnect").click()
            await expect(dialog.locator("#ending-refusal")).to_have_text("The API key is missing or wrong.")
        assert len(await scene.slow()) == 1
        await dialog.locator("#key").fill("k3y-of-the-server")
        await dialog.locator("#key").press("Enter")
        await expect(dialog).to_be_hidden()
        await expect(rows(page, "slow")).to_have_count(0)
        # It is kept for the next one, and by this page alone.
        assert await page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert "k3y" not in await page.content()


async def test_names_of_others_are_text(visit: OpenTab, scene: Stage) -> None:
    page = await visit(scene.url)
    await scene.stall(quote(HOSTILE, safe=""))
    row = rows(page, "slow")
    await expect(cell(row, "Channel")).to_have_text(HOSTILE)
    assert await cell(row, "Channel").evaluate("(span) => getComputedStyle(span).unicodeBidi") == "isolate"
    await row.get_by_role("button").click()
    await expect(page.locator("#ending dd").nth(2)).to_have_text(HOSTILE)
    await page.locator("#ending-do").click()
    await expect(cell(rows(page, "left").filter(has_text="force disconnect"), "Channel")).to_have_text(HOSTILE)
    assert await page.locator("img:not(header img)").count() == 0


async def test_a_planted_image_would_be_noticed(visit: OpenTab, scene: Stage) -> None:
    page = await visit(scene.url, expected="img-src")
    await page.evaluate("document.body.append(Object.assign(new Image(), {src: 'data:image/png;base64,AAAA'}))")
    assert await page.locator("img:not(header img)").count() == 1


async def test_rows_stay_the_rows_of_their_clients(visit: OpenTab, scene: Stage) -> None:
    page = await visit(scene.url)
    await scene.stall("slow", 3)
    await expect(rows(page, "slow")).to_have_count(3)
    button = rows(page, "slow").nth(2).get_by_role("button")
    await button.focus()
    await page.evaluate("document.activeElement.closest('tr').id = 'mine'")
    whose = await page.locator("#mine td").first.get_attribute("title")
    # The longest queue moves to the top, and nothing is made anew.
    age = await cell(page.locator("#mine"), "Age").inner_text()
    await expect(cell(page.locator("#mine"), "Age")).not_to_have_text(age)
    assert await page.locator("#mine td").first.get_attribute("title") == whose
    assert await page.evaluate("document.activeElement.closest('tr')?.id") == "mine"


async def test_all_workers_are_shown_and_a_client_of_any_can_be_disconnected(visit: OpenTab) -> None:
    async with stage("--workers", "2") as scene:
        page = await visit(scene.url)
        await expect(rows(page, "worker")).to_have_count(2)
        workers = (await scene.get("/readyz"))["workers"]
        pids = [await cell(rows(page, "worker").nth(at), "PID").inner_text() for at in (0, 1)]
        assert pids == [str(worker["pid"]) for worker in workers]
        await scene.stall("slow", 8)
        await expect(rows(page, "slow")).to_have_count(8)
        on_worker = cell(rows(page, "slow"), "Worker")
        assert set(await on_worker.all_inner_texts()) <= {"0", "1"}
        await expect(on_worker.first).to_be_visible()
        connections = [await cell(rows(page, "worker").nth(at), "Connections").inner_text() for at in (0, 1)]
        assert sum(map(int, connections)) >= 8
        for left in (7, 6):
            await rows(page, "slow").first.get_by_role("button").click()
            named = await page.locator("#ending dd").nth(1).inner_text()
            await page.locator("#ending-do").click()
            await expect(rows(page, "slow")).to_have_count(left)
            gone = [
                entry for entry in (await scene.get("/debug/disconnects"))["disconnects"] if entry["client"] == named
            ]
            assert [(entry["code"], entry["reason"]) for entry in gone] == [(1008, "force disconnect")]


async def test_a_server_that_goes_away_is_found_again(visit: OpenTab) -> None:
    trouble = "ERR_CONNECTION_REFUSED|WebSocket connection|ERR_CONNECTION_RESET"
    async with stage("--internal-port", "0") as scene:
        port = scene.server.internal_port
        page = await visit(scene.url, expected=trouble)
        await expect(page.locator("[data-figure=connections]")).to_have_text("0")
    await expect(page.locator("#feed-words")).to_have_text("Lost; trying again")
    await expect(page.locator("body")).to_have_class(re.compile("is-stale"))
    async with stage("--internal-port", str(port)) as again:
        # As a browser says when its network is back: it need not wait for its next try.
        await page.evaluate("dispatchEvent(new Event('online'))")
        await expect(page.locator("#feed-words")).to_have_text("Live")
        await expect(cell(rows(page, "worker"), "PID")).to_have_text(str(again.server.pid))


async def test_the_configuration_in_force_is_shown(visit: OpenTab) -> None:
    async with stage("--api-key", "s3cret-of-the-api", "--history-size", "7") as scene:
        page = await visit(scene.url)
        shown = page.locator("#configuration-list")
        await expect(shown).to_contain_text("history_size")
        await expect(shown).not_to_contain_text("lag_policy_mode")
        await page.locator("#show-all").check()
        await expect(shown).to_contain_text("lag_policy_mode")
        text = await shown.inner_text()
        assert "********" in text
        assert "s3cret" not in await page.content()


async def test_a_page_of_another_port_can_neither_watch_nor_command(visit: OpenTab, scene: Stage) -> None:
    async with stage() as other:
        page = await visit(scene.url, expected="WebSocket connection|connect-src|Content Security Policy|violates")
        # Without the page's own policy, as any page in this browser could: from the public port's page.
        context = page.context
        stranger = await context.new_page()
        await stranger.goto(other.server.url + "/healthz")
        found = await stranger.evaluate(
            """async (url) => {
                const socket = new WebSocket(url.replace("http", "ws") + "live");
                const watched = await new Promise((done) => {
                    socket.onopen = () => done("open"); socket.onerror = () => done("refused"); });
                const answer = await fetch(url + "api/disconnect", { method: "POST", mode: "no-cors",
                    body: JSON.stringify({ user: "", client: "" }) });
                return [watched, answer.type];
            }""",
            scene.url,
        )
        assert found == ["refused", "opaque"]
        client = await scene.connect()
        await stranger.evaluate(
            """(url) => fetch(url + "api/disconnect", { method: "POST", mode: "no-cors",
                body: JSON.stringify({ user: "" }) }).then(() => null)""",
            scene.url,
        )
        client.say("still here")
        await until(lambda: client.heard == [b"still here"])
        await stranger.close()


async def test_two_watch_the_same(visit: OpenTab, scene: Stage) -> None:
    one = await visit(scene.url)
    await scene.connect()
    await expect(one.locator("[data-figure=connections]")).to_have_text("1")
    other = await visit(scene.url)
    await expect(other.locator("[data-figure=connections]")).to_have_text("1")
