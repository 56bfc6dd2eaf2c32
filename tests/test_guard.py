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
