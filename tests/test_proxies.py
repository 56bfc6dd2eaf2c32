"""Who a client is when a proxy stands between: who is believed, how its word is read, and what becomes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers

from server.edge.listener import DOORWAY
from server.edge.proxies import (
    MAX_HEADER_BYTES,
    MAX_LINE_BYTES,
    Client,
    Proxies,
    ProxyHeader,
    ProxyHeaderError,
    read_proxy_header,
)
from server.edge.reader import PARSE_BYTES
from tests import wire
from tests.house import House, house
from tests.peers import listening, until

# What stands in front: two networks, and the addresses in them.
TRUSTED = ("10.0.0.0/8", "2001:db8:ffff::/48")
PROXY, INNER, OUTER = "10.0.0.1", "10.0.0.2", "2001:db8:ffff::1"
CLIENT, OTHER, SIX = "203.0.113.7", "198.51.100.9", "2001:db8::7"

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TO_FOUR = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + b"\xdc\x04\x1f\x40"
TO_SIX = bytes.fromhex("20010db8000000000000000000000007 20010db8ffff00000000000000000001") + b"\xdc\x04\x1f\x40"
BLOCK = SIGNATURE + b"\x21\x11\x00\x0c" + TO_FOUR
LINE = b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 8000\r\n"


def behind(*trusted: str, max_connections_per_ip: int = 0) -> House:
    """A house that believes the proxies of TRUSTED, or the ones given."""
    home = house(max_connections_per_ip=max_connections_per_ip)
    home.listener.proxies = Proxies(trusted or TRUSTED)
    return home


# Who is believed


@pytest.mark.parametrize(
    ("address", "is_trusted"),
    [
        (PROXY, True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        (OUTER, True),
        ("2001:db8:fffe::1", False),
        ("::ffff:10.0.0.1", True),  # a socket for both families
        ("::ffff:203.0.113.7", False),
        ("::10.0.0.1", False),
        ("2001:db8:ffff::1%eth0", True),
        ("", False),
        ("/run/stentor.sock", False),
        ("localhost", False),
    ],
)
def test_who_is_listed_is_trusted(address: str, is_trusted: bool) -> None:
    assert Proxies(TRUSTED).trust(address) is is_trusted
    assert not Proxies().trust(address)


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        # One proxy, which has appended whom it sees.
        ([CLIENT], CLIENT),
        ([f" {CLIENT}\t"], CLIENT),
        ([SIX], SIX),
        (["2001:DB8:0:0::0007"], SIX),
        ([f"[{SIX}]"], SIX),
        ([f"[{SIX}]:56324"], SIX),
        ([f"{CLIENT}:56324"], CLIENT),
        ([f"::ffff:{CLIENT}"], CLIENT),
        # What stands further left, the client may have said itself.
        ([f"{OTHER}, {CLIENT}"], CLIENT),
        ([f"{PROXY}, {CLIENT}"], CLIENT),
        ([f"<script>, {CLIENT}"], CLIENT),
        ([f"{OTHER}, , {CLIENT}"], CLIENT),
        ([OTHER, CLIENT], CLIENT),
        (["", CLIENT], CLIENT),
        # A chain of proxies.
        ([f"{CLIENT}, {INNER}"], CLIENT),
        ([f"{CLIENT},{OUTER},{INNER}"], CLIENT),
        ([f"{CLIENT}, [{OUTER}]:443", f"{INNER}:80"], CLIENT),
        ([f"{OTHER}, {CLIENT}, {INNER}"], CLIENT),
        ([f"{CLIENT}, {OTHER}, {INNER}"], OTHER),
        # From one of our own, the first of them.
        ([INNER], INNER),
        ([f"10.9.9.9, {INNER}"], "10.9.9.9"),
        # No address where one is needed.
        ([], PROXY),
        ([""], PROXY),
        ([","], PROXY),
        ([f"{CLIENT},"], PROXY),
        (["unknown"], PROXY),
        (["_hidden"], PROXY),
        ([f"{CLIENT}, unknown"], PROXY),
        ([f"{CLIENT}, unknown, {INNER}"], PROXY),
        (["203.0.113.7.1"], PROXY),
        (["203.0.113"], PROXY),
        (["203.0.113.256"], PROXY),
        (["203.0.113.07"], PROXY),  # octal, or not?
        (["3405803783"], PROXY),
        ([f"{CLIENT}:"], PROXY),
        ([f"{CLIENT}:x"], PROXY),
        ([f"{CLIENT} {OTHER}"], PROXY),
        ([f'"{CLIENT}"'], PROXY),
        ([f"[{SIX}"], PROXY),
        ([f"[{SIX}]x"], PROXY),
        ([f"{SIX}%eth0"], PROXY),
        (["2001:db8::7::"], PROXY),
        (["203.0.113.\xb2"], PROXY),  # a digit, and not ours
        (["a" * 8000], PROXY),
        ([":" * 8000], PROXY),
    ],
)
def test_the_client_is_the_last_whom_no_listed_proxy_answers_for(forwarded: list[str], address: str) -> None:
    headers = Headers([("X-Forwarded-For", value) for value in forwarded])
    assert Proxies(TRUSTED).client_of(PROXY, headers) == Client(address)
    # From anybody else, and where nobody is listed, it is not even looked at.
    assert Proxies(TRUSTED).client_of(OTHER, headers) == Client(OTHER)
    assert Proxies().client_of(PROXY, headers) == Client(PROXY)


@pytest.mark.parametrize(
    ("forwarded", "scheme"),
    [
        (["https"], "https"),
        (["http"], "http"),
        (["HTTPS "], "https"),
        (["wss"], "https"),
        (["ws"], "http"),
        ([], None),
        ([""], None),
        (["ftp"], None),
        (["https, http"], None),
        (["https", "https"], None),
    ],
)
def test_the_scheme_of_the_client_is_what_one_proxy_says(forwarded: list[str], scheme: str | None) -> None:
    headers = Headers([("X-Forwarded-Proto", value) for value in forwarded])
    assert Proxies(TRUSTED).client_of(PROXY, headers) == Client(PROXY, scheme)
    assert Proxies(TRUSTED).client_of(OTHER, headers) == Client(OTHER)


# The PROXY protocol


WHOLE = [
    (LINE, CLIENT),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:db8::7 2001:db8:ffff::1 56324 8000\r\n", SIX),
    (b"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0007 ::1 0 0\r\n", SIX),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:10.0.0.1 1 2\r\n", CLIENT),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN 203.0.113.7 and whatever\r\n", None),
    (b"PROXY UNKNOWN " + b"f" * (MAX_LINE_BYTES - 16) + b"\r\n", None),
    (BLOCK, CLIENT),
    (SIGNATURE + b"\x21\x21\x00\x24" + TO_SIX, SIX),
    (SIGNATURE + b"\x21\x21\x00\x24" + bytes(10) + b"\xff\xff" + TO_FOUR[:4] + TO_SIX[16:], CLIENT),
    # With more behind the addresses, which is skipped, well-formed or not: types 0x04 (padding) and nonsense.
    (SIGNATURE + b"\x21\x11\x00\x13" + TO_FOUR + b"\x04\x00\x04\x00\x00\x00\x00", CLIENT),
    (SIGNATURE + b"\x21\x11\x00\x0f" + TO_FOUR + b"\xff\xff\xff", CLIENT),
    (SIGNATURE + b"\x21\x11\x0f\xf0" + TO_FOUR + bytes(4068), CLIENT),
    # The proxy speaks for itself, and may say anything.
    (SIGNATURE + b"\x20\x00\x00\x00", None),
    (SIGNATURE + b"\x20\x11\x00\x0c" + TO_FOUR, None),
    (SIGNATURE + b"\x20\xff\x00\x01x", None),
    # Valid, but not TCP over IP: nothing specified, UDP, Unix.
    (SIGNATURE + b"\x21\x00\x00\x00", None),
    (SIGNATURE + b"\x21\x00\x00\x0c" + TO_FOUR, None),
    (SIGNATURE + b"\x21\x12\x00\x0c" + TO_FOUR, None),
    (SIGNATURE + b"\x21\x22\x00\x24" + TO_SIX, None),
    (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), None),
]

MALFORMED = [
    b"PROXY \r\n",
    b"PROXY  TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 203.0.113.7  10.0.0.1 1 2\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2 \r\n",
    b"PROXY TCP4\t203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2 3\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 01 2\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 65536\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 -1 2\r\n",
    b"PROXY TCP4 203.0.113.07 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.256 1 2\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
    b"PROXY TCP6 203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP4 localhost 10.0.0.1 1 2\r\n",
    b"PROXY TCP5 203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY unknown\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN \r \r\n",
    b"PROXY UNKNOWN \n \r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n\r\n",
    b"PROXY \xff\xfe\r\n",
    b"PROXY UNKNOWN " + b"f" * (MAX_LINE_BYTES - 15) + b"\r\n",  # one byte too long
    b"PROXY " + b"x" * MAX_LINE_BYTES,
    SIGNATURE + b"\x11\x11\x00\x0c" + TO_FOUR,  # version 1 in binary
    SIGNATURE + b"\x31\x11\x00\x0c" + TO_FOUR,
    SIGNATURE + b"\x22\x11\x00\x0c" + TO_FOUR,  # no such command
    SIGNATURE + b"\x21\x41\x00\x0c" + TO_FOUR,  # no such family
    SIGNATURE + b"\x21\x13\x00\x0c" + TO_FOUR,  # no such protocol
    SIGNATURE + b"\x21\x11\x00\x0b" + TO_FOUR,  # no room for the addresses
    SIGNATURE + b"\x21\x11\x00\x00",
    SIGNATURE + b"\x21\x21\x00\x0c" + TO_FOUR,
    SIGNATURE + b"\x21\x11\x0f\xf1" + TO_FOUR,  # more than is taken, said before it comes
    SIGNATURE + b"\x20\x00\xff\xff",
]


@pytest.mark.parametrize(("header", "address"), WHOLE)
@pytest.mark.parametrize("rest", [b"", b"GET /ws HTTP/1.1\r\n", LINE])
def test_a_header_is_read_to_its_end(header: bytes, address: str | None, rest: bytes) -> None:
    assert read_proxy_header(header + rest) == ProxyHeader(len(header), address)


@pytest.mark.parametrize(("header", "address"), WHOLE)
def test_a_header_that_is_not_whole_is_waited_for(header: bytes, address: str | None) -> None:
    assert len(header) <= MAX_HEADER_BYTES
    for end in range(len(header)):
        assert read_proxy_header(header[:end]) is None


@pytest.mark.parametrize("header", MALFORMED)
def test_what_begins_like_a_header_and_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read_proxy_header(header)


@pytest.mark.parametrize(
    "data",
    [b"GET /ws HTTP/1.1\r\n", b"POST", b"PROXZ", b"proxy TCP4", b"\r\nGET", b"\r\n\r\n\x00\r\nQUIT\r", b"\x16\x03"],
)
def test_where_there_is_no_header_nothing_is_taken(data: bytes) -> None:
    assert read_proxy_header(data) == ProxyHeader(0, None)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21"]), st.binary())
def test_anything_is_a_header_or_none_or_refused(start: bytes, rest: bytes) -> None:
    data = start + rest
    try:
        header = read_proxy_header(data)
    except ProxyHeaderError:
        return
    assert header is None or 0 <= header.size <= min(len(data), MAX_HEADER_BYTES)


# In a connection


@pytest.mark.parametrize(("header", "address"), WHOLE)
def test_the_address_in_a_header_is_the_client_s(header: bytes, address: str | None) -> None:
    home = behind()
    connection, transport = home.accept(address=PROXY)
    connection.data_received(header + wire.request())
    assert wire.answer(transport.take()).status == 101
    assert connection.address == (address or PROXY)
    transport.lose()
    assert [departure.address for departure in home.listener.recorder] == [address or PROXY]


@pytest.mark.parametrize("header", [LINE, BLOCK])
def test_a_header_may_come_a_byte_at_a_time(header: bytes) -> None:
    home = behind()
    connection, transport = home.accept(address=PROXY)
    for byte in header + wire.request():
        assert transport.writes == []
        connection.data_received(bytes([byte]))
    assert wire.answer(transport.take()).status == 101
    assert connection.address == CLIENT


def test_a_header_does_not_count_as_a_part_of_the_request() -> None:
    home = behind()
    connection, transport = home.accept(address=PROXY)
    long = SIGNATURE + b"\x21\x11\x0f\xf0" + TO_FOUR + bytes(4068)
    assert len(long) == MAX_HEADER_BYTES == PARSE_BYTES
    connection.data_received(long + wire.request())
    assert wire.answer(transport.take()).status == 101


@pytest.mark.parametrize(("method", "status"), [("GET", 101), ("PUT", 405)])
def test_a_trusted_proxy_need_not_send_one(method: str, status: int) -> None:
    home = behind()
    connection, transport = home.accept(address=PROXY)
    request = wire.request("/ws" if method == "GET" else "/healthz", f"X-Forwarded-For: {CLIENT}", method=method)
    for byte in request:
        connection.data_received(bytes([byte]))
    assert wire.answer(transport.take()).status == status
    assert connection.address == (CLIENT if status == 101 else PROXY)


@pytest.mark.parametrize("header", MALFORMED)
def test_a_malformed_header_drops_the_connection(header: bytes) -> None:
    home = behind()
    connection, transport = home.accept(address=PROXY)
    connection.data_received(header + wire.request())
    assert transport.is_aborted
    assert transport.writes == []
    assert home.counters.rejected == {"bad_request": 1}
    transport.lose()
    assert (home.gate.open, home.listener.connections) == (0, {})


@pytest.mark.parametrize("header", [LINE, BLOCK])
def test_a_header_that_is_cut_short_is_the_end(header: bytes) -> None:
    home = behind()
    connection, transport = home.accept(address=PROXY)
    connection.data_received(header[:-1])
    home.tick(4.9)
    assert not transport.is_aborted
    home.tick(0.2)
    assert transport.is_aborted, "open_timeout holds for the header too"
    connection, transport = home.accept(address=PROXY)
    connection.data_received(header[:-1])
    connection.eof_received()
    transport.lose()
    assert home.counters.opened == 0


@pytest.mark.parametrize("header", [LINE, BLOCK])
@pytest.mark.parametrize("peer", [OTHER, "127.0.0.1"])
def test_from_anybody_else_a_header_is_a_bad_request(header: bytes, peer: str) -> None:
    home = behind()
    connection, transport = home.accept(address=peer)
    connection.data_received(header + wire.request())
    assert wire.answer(transport.take()).status == 400
    assert not connection.is_open
    assert (connection.address, home.counters.rejected) == (peer, {"bad_request": 1})


def test_what_follows_no_header_is_not_looked_at() -> None:
    home = behind()
    connection, transport = home.accept(address=PROXY)
    connection.data_received(b"PROXY " + b"x" * 3 * PARSE_BYTES)
    assert (transport.is_aborted, home.counters.rejected) == (True, {"bad_request": 1})


def test_one_header_is_enough() -> None:
    home = behind()
    connection, transport = home.accept(address=PROXY)
    connection.data_received(LINE + LINE + wire.request())
    assert wire.answer(transport.take()).status == 400


def test_who_was_named_in_a_header_is_believed_only_if_it_is_listed_too() -> None:
    def address(source: str) -> str:
        connection, _ = home.accept(address=PROXY)
        header = f"PROXY TCP4 {source} {PROXY} 1 2\r\n".encode()
        connection.data_received(header + wire.request("/ws", f"X-Forwarded-For: {OTHER}"))
        assert connection.is_open
        return connection.address

    home = behind()
    assert address(CLIENT) == CLIENT
    assert address(INNER) == OTHER


def test_nothing_is_believed_where_nobody_is_listed() -> None:
    home = house()
    connection, _ = home.open("/ws", f"X-Forwarded-For: {CLIENT}", address=PROXY)
    assert connection.address == PROXY


# Same origin behind TLS


@pytest.mark.parametrize(
    ("peer", "proto", "origin", "status"),
    [
        (PROXY, "https", "https", 101),
        (PROXY, "https", "http", 403),  # a page that was not protected
        (PROXY, "http", "http", 101),
        (PROXY, "http", "https", 403),
        (PROXY, "", "https", 101),  # it does not say: either will do, as without a proxy
        (PROXY, "", "http", 101),
        (OTHER, "https", "http", 101),  # nobody to be believed
        (OTHER, "http", "https", 101),
    ],
)
def test_the_same_origin_has_the_scheme_that_the_proxy_speaks_outside(
    peer: str, proto: str, origin: str, status: int
) -> None:
    home = behind()
    connection, transport = home.accept(address=peer)
    fields = [f"Origin: {origin}://chat.example.com"] + [f"X-Forwarded-Proto: {proto}"] * bool(proto)
    connection.data_received(wire.request("/ws", *fields, host="chat.example.com"))
    assert wire.answer(transport.take()).status == status


# Ceilings


def shake_hands(home: House, client: str, *, header: bool) -> int:
    """Let `client` ask for a WebSocket by way of the proxy; return the status it gets."""
    connection, transport = home.accept(address=PROXY)
    if header:
        connection.data_received(f"PROXY TCP4 {client} {PROXY} 1 2\r\n".encode() + wire.request())
    else:
        connection.data_received(wire.request("/ws", f"X-Forwarded-For: {client}"))
    return wire.answer(transport.take()).status


@pytest.mark.parametrize("header", [True, False])
def test_the_ceiling_is_the_client_s_and_not_the_proxy_s(header: bool) -> None:
    home = behind(max_connections_per_ip=2)
    for number in range(100):
        assert shake_hands(home, f"203.0.113.{number}", header=header) == 101
    assert [shake_hands(home, CLIENT, header=header) for _ in range(3)] == [101, 429, 429]
    # The same address by another way is the same.
    assert [shake_hands(home, CLIENT, header=not header) for _ in range(1)] == [429]
    for connection in list(home.listener.connections):
        connection.transport.lose()  # type: ignore[attr-defined]
    assert home.gate.open == 0
    assert len(home.listener._doorway) == 0
    assert len(home.gate._addresses) == 0
    assert shake_hands(home, CLIENT, header=header) == 101


def test_one_client_may_not_fill_the_doorway_behind_a_proxy_either() -> None:
    home = behind(max_connections_per_ip=1)
    for _ in range(1 + DOORWAY):
        connection, transport = home.accept(address=PROXY)
        connection.data_received(LINE)
        assert transport.writes == []
    connection, transport = home.accept(address=PROXY)
    connection.data_received(LINE + wire.request())
    assert wire.answer(transport.take()).status == 503
    assert transport.is_closing()
    assert home.counters.rejected == {"address": 1}
    assert (connection.is_open, home.gate.open) == (False, 0), "what came behind the header is not looked at"
    transport.lose()
    connection, transport = home.accept(address=PROXY)
    connection.data_received(LINE.replace(b".7 ", b".8 ") + wire.request())
    assert wire.answer(transport.take()).status == 101


def test_the_doorway_has_an_end_for_proxies_too() -> None:
    home = behind()
    home.gate.max_connections = 0
    for _ in range(DOORWAY):
        home.accept(address=PROXY)
    _, transport = home.accept(address=PROXY)
    assert wire.answer(transport.take()).status == 503
    assert home.counters.rejected == {"full": 1}


# Over sockets


async def test_a_header_over_a_socket() -> None:
    async with listening(max_connections_per_ip=1) as server:
        server.home.listener.proxies = Proxies(["127.0.0.0/8"])
        first, second = await server.connect(), await server.connect()
        await first.send(BLOCK[:20])
        await second.send(LINE.replace(CLIENT.encode(), OTHER.encode()))
        await first.send(BLOCK[20:])
        await first.shake_hands()
        await second.shake_hands()
        assert (first.connection.address, second.connection.address) == (CLIENT, OTHER)
        await first.send(wire.text("hello"))
        assert await second.read_frames() == [(wire.TEXT, b"hello")]
        third = await server.connect()
        await third.send(SIGNATURE + b"\x2f")
        await third.send(b"\x11\x00\x0c")
        with pytest.raises(ConnectionResetError):
            await third.hung_up()
        await until(lambda: len(server.home.listener.connections) == 2)
