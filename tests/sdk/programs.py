"""Where each SDK runs: a Python or Node process, or a page in a browser. All take orders and tell what happens.

What an SDK needs, `make test` installs; where it is missing, tests are skipped with that reason, and fail in CI.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from playwright.async_api import Route

from tests import absence
from tests.browser import launch_chromium
from tests.harness import REPOSITORY

HERE: Final = Path(__file__).resolve().parent
INSTALLED: Final = REPOSITORY / ".venv-sdk"
MODULES: Final = INSTALLED / "node_modules"
SCRIPT: Final = HERE / "client.js"
# Where the browser's page is from, as the server sees it: nobody is asked for it.
PAGE: Final = "http://localhost/"

Said = dict[str, Any]
Say = Callable[[Said], object]
Order = Callable[[Said], Awaitable[object]]


def absent(what: str) -> NoReturn:
    """Leave out the tests of an SDK that is not here."""
    absence.absent(f"{what}: `make test` installs the SDKs")


@asynccontextmanager
async def python(say: Say, *, protobuf: bool) -> AsyncIterator[Order]:
    """The Python SDK in a process of its own environment."""
    interpreter = INSTALLED / "bin" / "python"
    if not interpreter.exists():
        absent(f"no Python SDK ({interpreter.relative_to(REPOSITORY)})")
    async with _process(say, [str(interpreter), str(HERE / "client.py")], protobuf=protobuf) as order:
        yield order


@asynccontextmanager
async def node(say: Say, *, protobuf: bool) -> AsyncIterator[Order]:
    """The JavaScript SDK in Node."""
    program = shutil.which("node")
    if program is None or not MODULES.exists():
        absent("no node" if program is None else f"no JavaScript SDK ({MODULES.relative_to(REPOSITORY)})")
    async with _process(say, [program, str(SCRIPT)], protobuf=protobuf) as order:
        yield order


@asynccontextmanager
async def _process(say: Say, command: list[str], *, protobuf: bool) -> AsyncIterator[Order]:
    process = await asyncio.create_subprocess_exec(
        *command,
        *(["protobuf"] if protobuf else []),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(MODULES)},
        limit=2**24,
    )
    to_it, from_it = process.stdin, process.stdout
    assert to_it is not None
    assert from_it is not None

    async def listen() -> None:
        while line := await from_it.readline():
            say(json.loads(line))

    async def order(what: Said) -> None:
        to_it.write(json.dumps(what).encode() + b"\n")
        await to_it.drain()

    listening = asyncio.create_task(listen())
    try:
        yield order
    finally:
        to_it.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await listening


@asynccontextmanager
async def browser(say: Say, *, protobuf: bool) -> AsyncIterator[Order]:
    """The JavaScript SDK in an empty page of a browser, which takes it to be from PAGE."""
    bundle = MODULES / "centrifuge" / "dist" / ("centrifuge.protobuf.js" if protobuf else "centrifuge.js")
    if not bundle.exists():
        absent(f"no JavaScript SDK ({bundle.relative_to(REPOSITORY)})")
    async with launch_chromium() as chromium:
        # Without the permission Chromium keeps pages that it knows no address of from loopback.
        context = await chromium.new_context(permissions=["local-network-access"])
        page = await context.new_page()
        page.on("pageerror", lambda error: say({"trouble": str(error)}))
        await page.route(PAGE, _empty)
        await page.goto(PAGE)
        await page.expose_function("say", say)
        await page.add_script_tag(path=bundle)
        await page.add_script_tag(path=SCRIPT)
        await page.evaluate("(protobuf) => { obey = newStage(Centrifuge, { protobuf, say }); }", protobuf)

        async def order(what: Said) -> None:
            await page.evaluate("(what) => { obey(what); }", what)

        yield order


async def _empty(route: Route) -> None:
    await route.fulfill(content_type="text/html", body="<!doctype html><link rel='icon' href='data:,'>")
