"""Which pages may connect. Every forgery that compares loosely would let in."""

from __future__ import annotations

import pytest

from server.edge.origins import Origins

HOST = "chat.example.com"

FORGED = [
    "https://evil.example",
    "https://example.com",  # the parent
    "https://sub.chat.example.com",  # a child
    "https://chat.example.com.evil.example",  # as a prefix
    "https://evilchat.example.com",  # as a suffix
    "https://chat.example.com:8443",  # another port
    "https://chat.example.com:443",  # browsers leave the scheme's own port out
    "https://chat.example.com:",
    "https://CHAT.example.com",  # browsers write it small
    "HTTPS://chat.example.com",
    "https://chat.example.com/",
    "https://chat.example.com/path",
    "https://chat.example.com#",
    "https://chat.example.com?",
    "https://chat.example.com.",
    "https://chat.example.com@evil.example",
    "https://evil.example@chat.example.com",
    "https://evil.example/https://chat.example.com",
    "https:chat.example.com",
    "https:///chat.example.com",
    "//chat.example.com",
    "chat.example.com",
    "ftp://chat.example.com",
    "wss://chat.example.com",
    "file://",
    "null",
    "",
    "*",
    "same-origin",
    " https://chat.example.com",
    "https://chat.example.com ",
    "https://chat.example.com\n",
    "https://chat.example.com\x00",
    "https://chat.example.com\thttps://evil.example",
    "https://chat.example.com, https://evil.example",
    "https://chat-example.com",  # a dot is a dot
    "https://chatxexample.com",
    "https://chat.example.c\u043em",  # a Cyrillic o
]


@pytest.mark.parametrize("allowed", [("same-origin",), ("https://chat.example.com",)], ids=str)
@pytest.mark.parametrize("origin", FORGED)
def test_a_forged_origin_is_refused(origin: str, allowed: tuple[str, ...]) -> None:
    assert not Origins(allowed).allow([origin], [HOST])


@pytest.mark.parametrize("allowed", [("same-origin",), ("https://chat.example.com",)], ids=str)
def test_the_right_one_is_let_in(allowed: tuple[str, ...]) -> None:
    assert Origins(allowed).allow(["https://chat.example.com"], [HOST])


@pytest.mark.parametrize("allowed", [("same-origin",), ("https://chat.example.com",), ("*",), ()], ids=str)
def test_who_sends_none_is_no_browser_and_passes(allowed: tuple[str, ...]) -> None:
    assert Origins(allowed).allow([], [HOST])


@pytest.mark.parametrize(
    "origins",
    [
        ["https://chat.example.com", "https://chat.example.com"],
        ["https://chat.example.com", "https://evil.example"],
        ["https://evil.example", "https://chat.example.com"],
    ],
)
@pytest.mark.parametrize("allowed", [("same-origin",), ("https://chat.example.com",)], ids=str)
def test_two_are_one_too_many(origins: list[str], allowed: tuple[str, ...]) -> None:
    assert not Origins(allowed).allow(origins, [HOST])


@pytest.mark.parametrize(
    ("origin", "host", "tls", "allowed"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False, True),
        ("http://[::1]:8000", "[::1]:8000", False, True),
        ("https://chat.example.com", HOST, False, True),  # a proxy in front unwraps TLS
        ("https://chat.example.com", HOST, True, True),
        ("http://chat.example.com", HOST, True, False),  # a page that was not protected
        ("http://127.0.0.1:8000", "127.0.0.1:8001", False, False),
        ("http://127.0.0.1", "127.0.0.1:8000", False, False),
        ("http://localhost:8000", "127.0.0.1:8000", False, False),
    ],
)
def test_the_same_origin_is_scheme_host_and_port(origin: str, host: str, tls: bool, allowed: bool) -> None:
    assert Origins(("same-origin",), tls=tls).allow([origin], [host]) is allowed


@pytest.mark.parametrize("hosts", [[], [HOST, HOST], [HOST, "evil.example"]], ids=str)
def test_without_one_host_nothing_is_the_same(hosts: list[str]) -> None:
    assert not Origins(("same-origin",)).allow(["https://chat.example.com"], hosts)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example.com", True),
        ("https://a.b.example.com", True),
        ("https://a-1.example.com", True),
        ("https://example.com", False),
        ("https://.example.com", False),
        ("https://a..example.com", False),
        ("https://A.example.com", False),
        ("https://evil.example/.example.com", False),
        ("https://evil.example#.example.com", False),
        ("https://evil.example?.example.com", False),
        ("https://evil.example:80@a.example.com", False),
        ("https://a.example.com.evil.example", False),
        ("https://a.example.com:8443", False),
        ("http://a.example.com", False),
        ("https://a.exampleXcom", False),
        ("https://a\n.example.com", False),
    ],
)
def test_a_wildcard_is_labels_of_the_host_and_nothing_more(origin: str, allowed: bool) -> None:
    assert Origins(("https://*.example.com",)).allow([origin], [HOST]) is allowed


def test_a_list_allows_each_of_its_entries_and_nothing_between() -> None:
    origins = Origins(("same-origin", "https://app.example", "http://localhost:3000"))
    assert origins.allow(["https://app.example"], [HOST])
    assert origins.allow(["http://localhost:3000"], [HOST])
    assert origins.allow([f"https://{HOST}"], [HOST])
    assert not origins.allow(["https://localhost:3000"], [HOST])


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
def test_a_star_allows_every_page(origin: str) -> None:
    assert Origins(("*",)).allow([origin], [HOST])


def test_an_empty_list_allows_none() -> None:
    assert not Origins(()).allow([f"https://{HOST}"], [HOST])
