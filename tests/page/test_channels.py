"""Joining channels, and what the page offers to join them otherwise."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.page.reading import (
    OpenTab,
    bodies,
    rows,
    say,
)
from tests.pageserver import PageServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("path", "channel", "target"),
    [
        ("/", "main", "/ws/main"),
        ("/#ops", "ops", "/ws/ops"),
        ("/?channel=lab", "lab", "/ws/lab"),
        ("/?channel=lab#ops", "ops", "/ws/ops"),
        ("/#a%2Fb%20%C3%BC%3F%23%25", "a/b ü?#%", "/ws/a%2Fb%20%C3%BC%3F%23%25"),
    ],
)
async def test_the_address_names_the_channel(
    visit: OpenTab, site: PageServer, path: str, channel: str, target: str
) -> None:
    page = await visit(path)
    await expect(page.locator("#channel")).to_have_value(channel)
    assert await page.title() == f"#{channel} · Stentor"
    assert site.handshakes == [target]


async def test_another_channel_is_joined_by_its_name(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await say(page, "on main")
    await expect(rows(page)).to_have_count(1)
    await page.locator("#channel").fill("ops/é")
    await page.locator("#channel").press("Enter")
    await expect(page).to_have_url(site.url + "/#ops%2F%C3%A9")
    await expect(rows(page)).to_have_count(0)
    await say(page, "on ops")
    await expect(rows(page)).to_have_count(1)
    assert site.handshakes == ["/ws/main", "/ws/ops%2F%C3%A9"]
    await asyncio.wait_for(site.deserted("main"), 20)
    await expect(page.locator("#recent-list a")).to_have_text(["#ops/é", "#main"])
    await page.get_by_role("link", name="#main").click()
    await expect(page.locator("#channel")).to_have_value("main")
    await page.go_back()
    await expect(page.locator("#channel")).to_have_value("ops/é")
    await expect(page.locator("#state")).to_have_attribute("data-state", "live")
    await page.reload()
    await expect(page.locator("#recent-list a")).to_have_text(["#ops/é", "#main"])
    await expect(page.locator("#state")).to_have_attribute("data-state", "live")


async def test_a_name_that_no_path_can_hold_is_refused(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await page.locator("#channel").fill("..")
    await page.locator("#channel").press("Enter")
    await expect(page.locator("#objection")).to_have_text("A path cannot hold this name.")
    assert site.handshakes == ["/ws/main"]


async def test_a_token_goes_along(visit: OpenTab, site: PageServer) -> None:
    page = await visit()
    await page.get_by_text("Access token").click()
    await page.locator("#token").fill("s&cret=")
    await page.locator("#token").press("Enter")
    await expect(page.locator("#state")).to_have_attribute("data-state", "live")
    await page.wait_for_function("document.querySelector('#state').dataset.state === 'live'")
    assert site.handshakes == ["/ws/main", "/ws/main?token=s%26cret%3D"]
    assert "cret" not in await page.evaluate("JSON.stringify({...localStorage}) + location.href")


async def test_the_examples_can_be_copied(visit: OpenTab, site: PageServer) -> None:
    page = await visit("/#it's", permissions=["clipboard-read", "clipboard-write"])
    address = site.url.replace("http", "ws")
    copies = {
        "Copy the command": f"vmstat 1 | stentor publish --channel 'it'\\''s' --url {address}",
        "Copy the script": (
            f'const ws = new WebSocket("{address}/ws/it\'s");\n'
            "ws.onmessage = (m) => console.log(m.data);\n"
            'ws.onopen = () => ws.send("hello");'
        ),
    }
    for name, text in copies.items():
        button = page.get_by_role("button", name=name)
        await button.click()
        await expect(page.locator("button", has_text="Copied")).to_have_count(1)
        assert await page.evaluate("navigator.clipboard.readText()") == text
        await expect(button).to_be_visible()


async def test_the_script_example_does_what_it_says(visit: OpenTab, site: PageServer) -> None:
    page, other = await visit(), await visit()
    script = await page.locator("#script-example").text_content()
    assert script is not None
    await page.evaluate(f"() => {{ {script} }}")
    await expect(rows(other)).to_have_count(1)
    assert await bodies(other) == ["hello"]
