"""`make pictures`: take the pictures of the README again, from the real page and the reports of real runs.

    python docs/pictures.py [page] [page-centrifuge] [operator] [loadtest] [scaling]

Each is a screenshot by a headless Chromium: the page with `vmstat 1` on it, the page in the Centrifuge dialect after a
lost connection, the operator's page (on a desk, on a phone) while a load test with clients that do not read is running,
the newest report of `make loadtest`, and the newest of `make scaling`; a report that is missing is made first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
RESULTS = ROOT / "loadtest" / "results"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
VMSTAT_SECONDS = 25
LOAD_SECONDS = 75
LOAD = (
    "--subscribers 300 --rate 60 --size 2048 --channels 6 --stalled 4 --slow 2 --flapping 1 --publish-time 10m"
    " --cpu-limit 1000 --lag-limit 60000"
)
PATIENT = "--lag-policy drop_oldest --queue-messages 2000 --queue-bytes 8MiB --write-timeout 10m --no-brownout"


def main(names: list[str]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme="light")
        for name in names or _PICTURES:
            _PICTURES[name](page)
            print(PICTURES / f"{name}.png")
        browser.close()


def _page(page: Page) -> None:
    with _server() as (url, _):
        page.goto(f"{url}/#system")
        publish = f"{sys.executable} -m server publish --channel system --url {url.replace('http', 'ws')}"
        shell = subprocess.Popen(f"vmstat 1 | {publish}", shell=True, cwd=ROOT, start_new_session=True)
        try:
            time.sleep(VMSTAT_SECONDS)
            page.screenshot(path=PICTURES / "page.png")
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()


def _page_centrifuge(page: Page) -> None:
    with _server("--history-size", "100", "--presence", "--join-leave") as (url, api):
        address = f"{url}/#ops&dialect=centrifuge"
        browser = page.context.browser
        assert browser is not None
        others = [browser.new_page() for _ in range(3)]
        for other in others:
            other.goto(address)
            expect(other.locator("#state")).to_have_attribute("data-state", "live")
        for other, words in zip(
            others, ("Deploy of api-7 begins", "Watching the graphs", "All green here"), strict=True
        ):
            _say(other, words)
        page.goto(address)
        expect(page.locator("#people-count")).to_have_text("4 here")
        _say(page, "Just joined, and see what was said before")
        # One call, so that the page is away for certain when the two are published.
        disconnect = {"user": "", "disconnect": {"code": 3011, "reason": "force reconnect"}}
        missed = [{"publish": {"channel": "ops", "data": data}} for data in ("Deploy done", {"errors": 0, "p99": 12.5})]
        body = json.dumps({"commands": [{"disconnect": disconnect}, *missed]}).encode()
        urllib.request.urlopen(f"{api}/api/batch", body).close()
        expect(page.get_by_text("Recovered 2 missed messages.")).to_be_visible()
        expect(page.locator("#people-count")).to_have_text("4 here")
        _say(others[0], "Thanks, all")
        _say(page, "Nothing was lost")
        page.screenshot(path=PICTURES / "page-centrifuge.png")
        for other in others:
            other.close()


def _say(page: Page, words: str) -> None:
    page.locator("#words").fill(words)
    page.locator("#words").press("Enter")
    expect(page.get_by_text(words)).to_be_visible()


def _operator(page: Page) -> None:
    browser = page.context.browser
    assert browser is not None
    with _server(*PATIENT.split()) as (url, internal), tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "loadtest.run", "--url", url.replace("http", "ws"), "--results", results]
        load = subprocess.Popen([*command, *LOAD.split()], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            desk = browser.new_page(viewport={"width": 1280, "height": 1150}, color_scheme="light")
            phone = browser.new_page(
                viewport={"width": 400, "height": 1500}, color_scheme="dark", device_scale_factor=2, is_mobile=True
            )
            for view in (desk, phone):
                view.goto(internal)
            time.sleep(LOAD_SECONDS)
            desk.screenshot(path=PICTURES / "operator.png")
            phone.screenshot(path=PICTURES / "operator-phone.png")
        finally:
            os.killpg(load.pid, signal.SIGTERM)
            load.wait()


def _loadtest(page: Page) -> None:
    _report(page, "[0-9]*", "loadtest", "loadtest.run")


def _scaling(page: Page) -> None:
    _report(page, "scaling-*", "scaling", "loadtest.scaling")


def _report(page: Page, folders: str, name: str, module: str) -> None:
    if not list(RESULTS.glob(f"{folders}/report.html")):
        subprocess.run([sys.executable, "-m", module], cwd=ROOT, check=True)
    report = max(RESULTS.glob(f"{folders}/report.html"), key=lambda path: path.stat().st_mtime)
    page.set_viewport_size({"width": 1100, "height": 1300})
    page.goto(report.as_uri())
    page.screenshot(path=PICTURES / f"{name}.png")


@contextmanager
def _server(*options: str) -> Iterator[tuple[str, str]]:
    """Run a server; gives the address of its page, and that of its API."""
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--internal-port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = ""
        while not (found := re.search(r"page\s+(\S+?)/\n(?:.*\n)*?.*metrics\s+(\S+)/metrics", said)):
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the server did not start")
            said += line
        yield found[1], found[2]
    finally:
        process.terminate()
        process.wait()


_PICTURES = {
    "page": _page,
    "page-centrifuge": _page_centrifuge,
    "operator": _operator,
    "loadtest": _loadtest,
    "scaling": _scaling,
}


if __name__ == "__main__":
    main(sys.argv[1:])
