"""`make pictures`: take the pictures of the README again, from the real page and the reports of real runs.

    python docs/pictures.py [page] [loadtest] [scaling]

Each is a screenshot by a headless Chromium: the page with `vmstat 1` on it, the newest report of `make loadtest`, and
the newest of `make scaling`; a report that is missing is made first.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
RESULTS = ROOT / "loadtest" / "results"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
VMSTAT_SECONDS = 25


def main(names: list[str]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme="light")
        for name in names or ("page", "loadtest", "scaling"):
            {"page": _page, "loadtest": _loadtest, "scaling": _scaling}[name](page)
            print(PICTURES / f"{name}.png")
        browser.close()


def _page(page: Page) -> None:
    with _server() as (url, websocket_url):
        page.goto(f"{url}/#system")
        publish = f"{sys.executable} -m server publish --channel system --url {websocket_url}"
        shell = subprocess.Popen(f"vmstat 1 | {publish}", shell=True, cwd=ROOT, start_new_session=True)
        try:
            time.sleep(VMSTAT_SECONDS)
            page.screenshot(path=PICTURES / "page.png")
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()


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
def _server() -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--internal-port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = ""
        while not (found := re.search(r"page\s+http://(\S+?)/\n", said)):
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the server did not start")
            said += line
        yield f"http://{found[1]}", f"ws://{found[1]}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
