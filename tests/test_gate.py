"""Who is let in, who is not, and in which order the questions are asked."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from server.edge.credentials import Identity, Refused, StaticTokens
from server.edge.gate import Admission, Gate, bearer_token, respond
from server.edge.origins import Origins
from server.edge.static import Asset
from tests.house import House, house

HERE: Final = "192.0.2.1"
EVIL: Final = ("Origin", "https://evil.example")
TOKEN: Final = ("Authorization", "Bearer let-me-in")


def ask(gate: Gate, path: str = "/ws", *fields: tuple[str, str], method: str = "GET", now: float = 1000.0) -> Any:
    """Ask for admission from HERE."""
    headers = Headers([("Host", "chat.example.com"), *fields])
    return gate.judge(Request(path, headers, method=method), HERE, now)


def refused(home: House, answer: Any) -> tuple[int, str, dict[str, int]]:
    """Read a refusal: its status, its text and what it was counted as."""
    assert isinstance(answer, Response), answer
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    return answer.status_code, answer.body.decode(), dict(home.counters.rejected)


# Routes


@pytest.mark.parametrize(
    ("path", "dialect", "channel"),
    [
        ("/ws", "raw", "main"),
        ("/ws?a=b", "raw", "main"),
        ("/echo", "echo", ""),
        ("/echo?", "echo", ""),
        ("/ws/news", "raw", "news"),
        ("/ws/news?a=/b", "raw", "news"),
        ("/ws/news/today", "raw", "news/today"),
        ("/ws/%C3%A9", "raw", "é"),
        ("/ws/a%2Fb%3Fc", "raw", "a/b?c"),
        ("/ws/a+b", "raw", "a+b"),
        ("/ws/%25", "raw", "%"),
        ("/ws/%zz", "raw", "%zz"),
        ("/ws/../etc/passwd", "raw", "../etc/passwd"),  # a name, not a file
        ("/ws/" + "x" * 128, "raw", "x" * 128),
    ],
)
def test_a_path_names_a_dialect_and_a_channel(path: str, dialect: str, channel: str) -> None:
    assert ask(house().gate, path) == Admission(dialect, channel, Identity())


@pytest.mark.parametrize(
    ("path", "status", "text", "reason"),
    [
        ("/", 404, "There is nothing here.\n", "not_found"),
        ("/nothing", 404, "There is nothing here.\n", "not_found"),
        ("/WS", 404, "There is nothing here.\n", "not_found"),
        ("/wsx", 404, "There is nothing here.\n", "not_found"),
        ("/echo/", 404, "There is nothing here.\n", "not_found"),
        ("//ws", 404, "There is nothing here.\n", "not_found"),
        ("http://chat.example.com/ws", 404, "There is nothing here.\n", "not_found"),
        ("*", 404, "There is nothing here.\n", "not_found"),
        ("", 404, "There is nothing here.\n", "not_found"),
        ("/ws/", 404, "A channel has a name: /ws/NAME.\n", "not_found"),
        ("/ws/?token=x", 404, "A channel has a name: /ws/NAME.\n", "not_found"),
        ("/ws/" + "x" * 129, 400, "The channel's name is longer than 128 characters.\n", "bad_request"),
        ("/ws/%ff", 400, "The channel's name is not UTF-8.\n", "bad_request"),
        ("/ws/%ed%a0%80", 400, "The channel's name is not UTF-8.\n", "bad_request"),
        ("/ws/a%20b", 400, "The channel's name has spaces or control characters.\n", "bad_request"),
        ("/ws/%00", 400, "The channel's name has spaces or control characters.\n", "bad_request"),
        ("/ws/a%0d%0aSet-Cookie:x", 400, "The channel's name has spaces or control characters.\n", "bad_request"),
        ("/ws/%1b[31m", 400, "The channel's name has spaces or control characters.\n", "bad_request"),
        ("/ws/%E2%80%AE", 400, "The channel's name has spaces or control characters.\n", "bad_request"),  # RTL
        ("/ws/%C2%A0", 400, "The channel's name has spaces or control characters.\n", "bad_request"),
    ],
)
def test_other_paths_are_refused(path: str, status: int, text: str, reason: str) -> None:
    home = house()
    assert refused(home, ask(home.gate, path)) == (status, text, {reason: 1})


def test_the_ceiling_of_names_is_the_configured_one() -> None:
    home = house(max_channel_length=3)
    assert isinstance(ask(home.gate, "/ws/abc"), Admission)
    assert refused(home, ask(home.gate, "/ws/abcd"))[0] == 400


# Pages


def asset(path: str) -> Asset | None:
    return Asset("text/html", b"<p>", '"tag"') if path == "/" else None


@pytest.mark.parametrize(("method", "body"), [("GET", b"<p>"), ("HEAD", b"")])
def test_a_page_is_answered_with_its_own_headers(method: str, body: bytes) -> None:
    home = house(assets=asset)
    answer = ask(home.gate, "/?channel=main", EVIL, method=method)
    assert (answer.status_code, answer.body) == (200, body)
    assert answer.headers.get_all("Content-Type") == ["text/html"]
    assert answer.headers.get_all("Content-Length") == ["3"]
    assert answer.headers["ETag"] == '"tag"'
    assert answer.headers["Content-Security-Policy"]
    assert home.counters.rejected == {}


@pytest.mark.parametrize(("method", "body"), [("GET", b"ok\n"), ("HEAD", b"")])
def test_the_process_is_healthy_while_it_turns_even_when_full(method: str, body: bytes) -> None:
    home = house(max_connections=0)
    home.gate.is_draining = True
    answer = ask(home.gate, "/healthz", method=method)
    assert (answer.status_code, answer.body) == (200, body)
    assert answer.headers["Content-Length"] == "3"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_pages_are_only_got(path: str, method: str) -> None:
    home = house(assets=asset)
    answer = ask(home.gate, path, method=method)
    assert refused(home, answer) == (405, "Only GET.\n", {"bad_request": 1})
    assert answer.headers["Allow"] == "GET, HEAD"


def test_a_head_is_answered_without_a_body_when_it_is_refused_too() -> None:
    answer = ask(house().gate, "/nothing", method="HEAD")
    assert (answer.status_code, answer.body) == (404, b"")
    assert answer.headers["Content-Length"] == str(len("There is nothing here.\n"))


# Refusals, and their order


def full(home: House) -> None:
    home.gate.max_connections = 0


def draining(home: House) -> None:
    home.gate.is_draining = True


def crowded(home: House) -> None:
    home.gate.enter(HERE)


def hurried(home: House) -> None:
    assert home.gate._rate is not None
    while home.gate._rate.take(1000.0):
        pass


ORIGIN: Final = (403, "This origin may not connect.\n", {"origin": 1}, None)
DRAINING: Final = (503, "The server is shutting down.\n", {"draining": 1}, "1")
FULL: Final = (503, "The server is full.\n", {"full": 1}, "1")
ADDRESS: Final = (429, "Too many connections from this address.\n", {"address": 1}, "1")
RATE: Final = (503, "Too many new connections now.\n", {"connect_rate": 1}, "1")
NEEDED: Final = (401, "A token is needed.\n", {"credentials": 1}, None)
BAD: Final = (401, "The token is not valid.\n", {"credentials": 1}, None)

GOOD: Final = (TOKEN,)


@pytest.mark.parametrize(
    ("troubles", "fields", "refusal"),
    [
        # Each alone …
        ((), (EVIL, TOKEN), ORIGIN),
        ((draining,), GOOD, DRAINING),
        ((full,), GOOD, FULL),
        ((crowded,), GOOD, ADDRESS),
        ((hurried,), GOOD, RATE),
        ((), (), NEEDED),
        ((), (("Authorization", "Bearer wrong"),), BAD),
        # … and with all that comes after it.
        ((draining, full, crowded, hurried), (EVIL,), ORIGIN),
        ((draining, full, crowded, hurried), (), DRAINING),
        ((full, crowded, hurried), (), FULL),
        ((crowded, hurried), (), ADDRESS),
        ((hurried,), (), RATE),
    ],
)
def test_refusals_in_order(
    troubles: tuple[Callable[[House], None], ...],
    fields: tuple[tuple[str, str], ...],
    refusal: tuple[int, str, dict[str, int], str | None],
) -> None:
    home = house(credentials=StaticTokens(["let-me-in"]), max_connections_per_ip=1, connect_rate=2)
    for trouble in troubles:
        trouble(home)
    answer = ask(home.gate, "/ws/news", *fields)
    assert (*refused(home, answer), answer.headers.get("Retry-After")) == refusal
    assert ("WWW-Authenticate" in answer.headers) is (refusal[0] == 401)


def test_the_path_comes_before_everything() -> None:
    home = house(credentials=StaticTokens(["let-me-in"]), max_connections=0)
    home.gate.is_draining = True
    assert refused(home, ask(home.gate, "/nothing", EVIL))[0] == 404


def test_who_is_refused_takes_no_place_and_quotes_nothing() -> None:
    home = house(credentials=StaticTokens(["let-me-in"]), max_connections=1)
    for path in ("/ws/<script>alert(1)</script>", "/ws/x?token=s3cret", "/<script>", "/ws/%ff<script>"):
        answer = ask(home.gate, path, ("Authorization", "Bearer s3cret"))
        whole = bytes(answer.serialize())
        assert b"script" not in whole
        assert b"s3cret" not in whole
    assert home.gate.open == 0


def test_places_are_counted_in_and_out() -> None:
    home = house(max_connections=2, max_connections_per_ip=1)
    home.gate.enter("192.0.2.7")
    assert isinstance(ask(home.gate), Admission)
    home.gate.enter(HERE)
    assert refused(home, ask(home.gate))[0] == 503
    home.gate.leave("192.0.2.7")
    assert refused(home, ask(home.gate))[0] == 429
    home.gate.leave(HERE)
    assert isinstance(ask(home.gate), Admission)
    assert home.gate.open == 0


def test_the_connect_rate_is_the_server_s_and_comes_back_with_time() -> None:
    home = house(connect_rate=2)
    assert [isinstance(ask(home.gate, now=1000.0), Admission) for _ in range(3)] == [True, True, False]
    assert isinstance(ask(home.gate, now=1000.5), Admission)
    assert home.counters.rejected == {"connect_rate": 1}


def test_each_who_is_turned_away_is_told_a_time_at_which_there_is_room() -> None:
    home = house(connect_rate=2)
    answers = [ask(home.gate, now=1000.0) for _ in range(8)]
    assert [answer.headers["Retry-After"] for answer in answers[2:]] == ["1", "1", "2", "2", "3", "3"]
    back = [ask(home.gate, now=1000.0 + second) for second in (1, 1, 2, 2, 3, 3)]
    assert all(isinstance(answer, Admission) for answer in back), "and who keeps to it is let in"


def test_while_browned_out_nobody_is_let_in_and_all_are_told_to_come_later() -> None:
    home = house(assets=asset)
    home.gate.brownout = 1
    answer = ask(home.gate)
    assert refused(home, answer) == (503, "The server is overloaded.\n", {"brownout": 1})
    assert int(answer.headers["Retry-After"]) == 5
    assert ask(home.gate, "/healthz").status_code == ask(home.gate, "/").status_code == 200
    home.gate.brownout = 0
    assert isinstance(ask(home.gate), Admission)


@pytest.mark.parametrize("origins", [(EVIL, EVIL), (EVIL, ("Origin", "https://chat.example.com"))])
def test_two_origins_are_refused(origins: tuple[tuple[str, str], ...]) -> None:
    home = house()
    assert refused(home, ask(home.gate, "/ws", *origins))[0] == 403


def test_the_page_of_the_server_itself_may_connect() -> None:
    assert isinstance(ask(house().gate, "/ws", ("Origin", "https://chat.example.com")), Admission)
    assert isinstance(ask(house(origins=Origins(("*",))).gate, "/ws", EVIL), Admission)


def test_whose_credentials_they_are_comes_with_the_admission() -> None:
    class Known:
        def check(self, token: str | None) -> Identity:
            if token != "ann's":
                raise Refused("no")
            return Identity("ann", 5.0)

    admission = ask(house(credentials=Known()).gate, "/ws/news?token=ann%27s")
    assert admission == Admission("raw", "news", Identity("ann", 5.0))


# Tokens in requests


@pytest.mark.parametrize(
    ("fields", "query", "token"),
    [
        ([], "", None),
        ([("Authorization", "Bearer abc")], "", "abc"),
        ([("authorization", "bearer abc")], "", "abc"),
        ([("Authorization", "BEARER   abc  ")], "", "abc"),
        ([("Authorization", "Bearer a b")], "", "a b"),
        ([("Authorization", "Bearer")], "", ""),
        ([("Authorization", "")], "", None),
        ([("Authorization", "Basic abc")], "", None),
        ([("Authorization", "abc")], "", None),
        ([("Authorization", "Bearer abc"), ("Authorization", "Bearer abc")], "", None),
        ([("Authorization", "Bearer abc")], "token=def", "abc"),
        ([("Authorization", "Basic abc")], "token=def", None),
        ([], "token=abc", "abc"),
        ([], "a=b&token=abc&c=d", "abc"),
        ([], "token=a%2Bb", "a+b"),
        ([], "token=a+b", "a b"),
        ([], "token=%C3%A9", "é"),
        ([], "token=%ff", "\ufffd"),
        ([], "token=", None),
        ([], "token", None),
        ([], "Token=abc", None),
        ([], "mytoken=abc", None),
        ([], "token=abc&token=abc", None),
        ([], "token=abc&token=def", None),
        ([], "&".join(["a=b"] * 40) + "&token=abc", None),
        ([], "token=abc" + "&a" * 40, None),
    ],
)
def test_a_token_is_found_or_it_is_not(fields: list[tuple[str, str]], query: str, token: str | None) -> None:
    assert bearer_token(Headers(fields), query) == token


def test_an_answer_ends_its_connection_and_says_how_long_it_is() -> None:
    answer = respond(HTTPStatus.OK, b"abc", (("Content-Type", "text/css"), ("Content-Length", "9")))
    assert answer.headers.get_all("Content-Type") == ["text/css"]
    assert answer.headers.get_all("Content-Length") == ["9"], "its own fields come first"
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Date"].endswith("GMT")
