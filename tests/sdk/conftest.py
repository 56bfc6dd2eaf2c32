"""A server for all tests of the package, and each SDK in its program; every test sends its clients home."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
import pytest_asyncio

from tests.sdk import programs
from tests.sdk.clients import Sdk
from tests.sdk.site import Site, open_site

PROGRAMS: Final = {"python": programs.python, "node": programs.node, "browser": programs.browser}
SDKS: Final = ("python", "python protobuf", "node", "node protobuf", "browser", "browser protobuf")


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture(scope="package")
def open_house() -> Iterator[Site]:
    with open_site("--auth", "none") as opened:
        yield opened


@pytest_asyncio.fixture(scope="package", loop_scope="session", params=SDKS)
async def program(request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    name, _, encoding = request.param.partition(" ")
    sdk = Sdk()
    async with PROGRAMS[name](sdk.say, protobuf=bool(encoding)) as sdk.order:
        yield sdk


@pytest_asyncio.fixture(loop_scope="session")
async def sdk(program: Sdk) -> AsyncIterator[Sdk]:
    yield program
    await program.disconnect_all()
    assert program.troubles == []
