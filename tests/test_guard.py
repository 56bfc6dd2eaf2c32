"""Who may ask the internal port."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from server.admin import guard


def request(*headers: tuple[str, str]) -> web.Request:
    return make_mocked_request("GET", "/live", CIMultiDict(headers))


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:9000", True),
        ("127.0.0.1", True),
        ("127.8.9.10:1", True),
        ("localhost:9000", True),
        ("LOCALHOST", True),
        ("[::1]:9000", True),
        ("evil.example", False),
        ("evil.example:9000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:9000", False),
        ("10.0.0.5:9000", False),
        ("0.0.0.0:9000", False),
        ("evil.example/127.0.0.1", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_names_that_never_mean_another_machine(host: str, is_ours: bool) -> None:
    assert guard.names_this_machine(request(("Host", host))) is is_ours


@pytest.mark.parametrize(
    ("headers", "has_it"),
    [
        ([("X-API-Key", "key")], True),
        ([("Authorization", "apikey key")], True),
        ([("Authorization", "Bearer key")], False),
        ([("X-API-Key", "KEY")], False),
        ([("X-API-Key", "")], False),
        ([], False),
    ],
)
async def test_who_shows_the_key_may_use_any_name(headers: list[tuple[str, str]], has_it: bool) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    asked = request(("Host", "evil.example"), *headers)
    assert guard.has_key(asked, "key") is has_it
    assert not guard.has_key(asked, None)
    assert (await guard.only_for_this_machine("key")(asked, answer)).status == (200 if has_it else 403)
    assert (await guard.only_for_this_machine(None)(asked, answer)).status == 403
    assert (await guard.only_for_this_machine(None)(request(("Host", "localhost")), answer)).status == 200


@pytest.mark.parametrize(
    ("origins", "is_ours"),
    [
        ([], True),
        (["http://127.0.0.1:9000"], True),
        (["https://127.0.0.1:9000"], True),  # a proxy on this side of which TLS ends
        (["http://127.0.0.1:8000"], False),
        (["http://127.0.0.1"], False),
        (["http://localhost:9000"], False),
        (["null"], False),
        ([""], False),
        (["http://127.0.0.1:9000.evil.example"], False),
        (["http://127.0.0.1:9000", "http://127.0.0.1:9000"], False),
        (["file://"], False),
    ],
)
def test_the_port_s_own_page(origins: list[str], is_ours: bool) -> None:
    headers = [("Host", "127.0.0.1:9000"), *(("Origin", origin) for origin in origins)]
    assert guard.is_of_own_page(request(*headers)) is is_ours
