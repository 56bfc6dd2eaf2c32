"""The files of the operator's page."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from tests.house import house
from tests.test_app import serving

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_a_browser_gets_the_page_and_a_program_the_index() -> None:
    async with serving(house()) as ask:
        status, headers, page = await ask("/", headers=BROWSER)
        assert (status, headers["Content-Type"], headers["Vary"]) == (200, "text/html; charset=utf-8", "Accept")
        assert b"<!doctype html>" in page
        status, headers, index = await ask("/")
        assert (status, headers["Content-Type"], headers["Vary"]) == (200, "text/plain; charset=utf-8", "Accept")
        assert b"/metrics" in index


async def test_the_page_may_load_nothing_but_its_own_files() -> None:
    async with serving(house()) as ask:
        for path in ("/", "/assets/main.js", "/assets/plot.js", "/assets/palette.css"):
            _, headers, _ = await ask(path, headers=BROWSER)
            policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
            assert policy["connect-src"] == policy["script-src"] == policy["style-src"] == "'self'"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-cache"


async def test_all_that_the_page_names_is_there() -> None:
    names = {file.name for file in (files("server") / "web" / "operator").iterdir()}
    assert {"index.html", "main.js", "operator.css"} <= names
    async with serving(house()) as ask:
        _, _, page = await ask("/", headers=BROWSER)
        wanted = set(re.findall(r'(?:src|href)="(/assets/[^"#]*|/favicon[^"]*)"', page.decode()))
        wanted |= {f"/assets/{name}" for name in names if name != "index.html"}
        for path in sorted(wanted):
            status, _, body = await ask(path)
            assert status == 200, path
            if path.endswith(".js"):
                for name in re.findall(r'from "\./([^"]+)"', body.decode()):
                    assert (await ask(f"/assets/{name}"))[0] == 200, name


@pytest.mark.parametrize(
    "path", ["/assets/", "/assets/feed", "/assets/stentor.css", "/assets/../main.js", "/assets/%2e%2e/x"]
)
async def test_nothing_else_is(path: str) -> None:
    async with serving(house()) as ask:
        assert (await ask(path))[0] == 404


async def test_what_a_browser_has_is_not_sent_again() -> None:
    async with serving(house()) as ask:
        _, headers, _ = await ask("/assets/main.js")
        status, again, body = await ask("/assets/main.js", headers={"If-None-Match": headers["ETag"]})
        assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
