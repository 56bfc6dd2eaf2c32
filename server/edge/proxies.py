"""Clients behind proxies: whose word is taken on who a client is, and how it is read.

A proxy speaks of its client in the request (``X-Forwarded-For``, ``X-Forwarded-Proto``), or before the first byte of
it, in a header of the PROXY protocol (versions 1 and 2; haproxy.org, proxy-protocol.txt). Laws:

- nobody is believed who is not listed; of a chain of proxies, as far back as each one is listed.
- an address that leaves here was parsed, and is written in one way: no text of a stranger's gets into a log.
- what a proxy may make us hold before its header is whole is MAX_HEADER_BYTES.

Knows neither connections nor sockets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from struct import unpack_from
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from websockets.datastructures import Headers

# The specification's own ceiling for version 1, and what we take of version 2, which could announce 64 KiB.
MAX_LINE_BYTES: Final = 107
MAX_HEADER_BYTES: Final = 4096

_LINE_SIGNATURE: Final = b"PROXY "
_BLOCK_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_BLOCK_HEAD: Final = 16  # bytes: signature, version and command, family and protocol, length of the rest

_PORT: Final = rb"(?:0|[1-9][0-9]{0,4})"
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|"
    rb"TCP(?P<family>[46]) (?P<source>[0-9A-Fa-f:.]+) (?P<target>[0-9A-Fa-f:.]+) "
    rb"(?P<port>" + _PORT + rb") (?P<target_port>" + _PORT + rb"))"
)
# An address, or one with a port behind it; IPv6 then in brackets. No zone: it means nothing on another machine.
_HOP: Final = re.compile(
    r"\[(?P<bracketed>[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|(?P<four>[0-9.]+)(?::[0-9]{1,5})?|(?P<six>[0-9A-Fa-f:.]+)"
)
# Some proxies name the scheme of the WebSocket, not of its handshake.
_SCHEMES: Final = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


class Client(NamedTuple):
    """Whom a request comes from: the address, and the scheme of what the browser asked for, where that is known."""

    address: str
    scheme: str | None = None


class ProxyHeader(NamedTuple):
    """A header of the PROXY protocol: how many bytes it takes, and the client that it names, if it names one."""

    size: int
    address: str | None


class ProxyHeaderError(ValueError):
    """What begins like a header of the PROXY protocol and is none."""


class Proxies:
    """Addresses and networks (CIDR) whose word on their clients is taken."""

    __slots__ = ("_networks",)

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks = [ip_network(network) for network in trusted]

    def trust(self, address: str) -> bool:
        """Tell if what comes from `address` is believed."""
        if not self._networks:
            return False
        try:
            parsed = _unmapped(ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client_of(self, peer: str, headers: Headers) -> Client:
        """Say whom a request from `peer` comes from: from `peer`, unless that is trusted and says otherwise."""
        if not self.trust(peer):
            return Client(peer)
        address = self._last_stranger(peer, headers.get_all("X-Forwarded-For"))
        return Client(address, _scheme(headers.get_all("X-Forwarded-Proto")))

    def _last_stranger(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Go back from `peer`, which is trusted, to the first address that is not.

        Every proxy appends who connected to it, so that what a client made up stands to the left of its own address.
        If all are trusted it is the first of them; `peer` if something on the way is no address.
        """
        client = peer
        for hop in reversed(",".join(forwarded_for).split(",")):
            address = _address(hop.strip(" \t"))
            if address is None:
                return peer
            client = address
            if not self.trust(address):
                break
        return client


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header of the PROXY protocol with which the first bytes of a connection begin; None: more must come.

    One of size 0 when there is none. Raises ProxyHeaderError.
    """
    for signature, read in ((_LINE_SIGNATURE, _read_line), (_BLOCK_SIGNATURE, _read_block)):
        if data.startswith(signature):
            return read(data)
        if signature.startswith(data):
            return None
    return ProxyHeader(0, None)


def _read_line(data: bytes) -> ProxyHeader | None:
    """Read version 1: a line. Section 2.1."""
    end = data.find(b"\r\n", 0, MAX_LINE_BYTES)
    if end < 0:
        if len(data) >= MAX_LINE_BYTES:
            raise ProxyHeaderError("a PROXY line without an end")
        return None
    match = _LINE.fullmatch(data, 0, end)
    if match is None:
        raise ProxyHeaderError("not a PROXY line")
    size = end + 2
    if match["family"] is None:
        return ProxyHeader(size, None)
    family = IPv4Address if match["family"] == b"4" else IPv6Address
    try:
        source, _ = (family(match[name].decode("ascii")) for name in ("source", "target"))
    except ValueError:
        raise ProxyHeaderError("not an address in a PROXY line") from None
    if max(int(match["port"]), int(match["target_port"])) > 65535:
        raise ProxyHeaderError("not a port in a PROXY line")
    return ProxyHeader(size, str(_unmapped(source)))


def _read_block(data: bytes) -> ProxyHeader | None:
    """Read version 2: a block, and whatever else it carries is skipped. Section 2.2."""
    if len(data) < _BLOCK_HEAD:
        return None
    command, family, length = unpack_from("!BBH", data, len(_BLOCK_SIGNATURE))
    size = _BLOCK_HEAD + length
    if command not in (0x20, 0x21):
        raise ProxyHeaderError("a PROXY header of another version, or with another command")
    if size > MAX_HEADER_BYTES:
        raise ProxyHeaderError("a PROXY header that is too long")
    if len(data) < size:
        return None
    is_local = command == 0x20  # the proxy's own connection, such as a health check
    return ProxyHeader(size, None if is_local else _source(family, data[_BLOCK_HEAD:size]))


def _source(family: int, block: bytes) -> str | None:
    """Read the source of a version 2 block; None when it is not of TCP over IP, which is valid."""
    if family >> 4 > 3 or family & 0x0F > 2:
        raise ProxyHeaderError("a PROXY header of an unknown family or protocol")
    match family:
        case 0x11 if len(block) >= 12:
            return str(IPv4Address(block[:4]))
        case 0x21 if len(block) >= 36:
            return str(_unmapped(IPv6Address(block[:16])))
        case 0x11 | 0x21:
            raise ProxyHeaderError("a PROXY header without room for its addresses")
    return None


def _address(hop: str) -> str | None:
    match = _HOP.fullmatch(hop)
    if match is None or match.lastgroup is None:
        return None
    try:
        return str(_unmapped(ip_address(match[match.lastgroup])))
    except ValueError:
        return None


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Write an IPv4 address in IPv6's clothes, as a socket for both families has it, as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _scheme(forwarded_proto: Sequence[str]) -> str | None:
    """Name the scheme that one proxy speaks of; None when none does, or several do."""
    return _SCHEMES.get(forwarded_proto[0].strip(" \t").lower()) if len(forwarded_proto) == 1 else None
