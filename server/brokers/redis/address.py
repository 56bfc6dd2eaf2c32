"""Where a Redis is, and how it is reached: what a URL says.

    redis://[user[:password]@]host[:port][/db]    rediss://… (TLS)    unix://[user[:password]@]/path[?db=0]

A query may give ``prefix`` (of all keys and channels), and with TLS ``ca``, ``cert`` and ``key`` (PEM files). Several
URLs, separated by commas, are several shards. A Redis Cluster is named by some of its nodes:

    redis+cluster://[user[:password]@]host[:port][,host[:port]…]    rediss+cluster://… (TLS)

Errors never repeat a password. Knows no sockets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

PREFIX: Final = "stentor"
PORT: Final = 6379

_SCHEMES: Final = ("redis", "rediss", "unix")
_CLUSTER: Final = "+cluster"
_BETWEEN: Final = re.compile(r",\s*(?=[a-z+]+://)")
# What a hash tag or a pattern is written with would change the meaning of every key.
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
# A name, an address, or an IPv6 address without its brackets.
_HOST: Final = re.compile(r"[A-Za-z0-9_.:-]+")
_TLS_KEYS: Final = frozenset({"ca", "cert", "key"})


class AddressError(ValueError):
    """A URL that does not say where a Redis is."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: whom to trust ("": the system's authorities), and what to show."""

    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """One Redis: by host and port or, if `path` is not empty, by a Unix socket."""

    host: str = ""
    port: int = PORT
    path: str = ""
    db: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: Tls | None = None
    prefix: str = PREFIX
    in_cluster: bool = False

    def __str__(self) -> str:
        """Name it without its password; the same on every node."""
        if self.path:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.db}"


def parse(text: str) -> tuple[Address, ...]:
    """Read one URL or several, separated by commas. Raises AddressError."""
    urls = [url.strip() for url in _BETWEEN.split(text)]
    if any(_is_cluster(url) for url in urls):
        if len(urls) > 1:
            raise AddressError("a cluster is named by one URL, with its nodes separated by commas")
        addresses = _seeds(urls[0])
    else:
        addresses = tuple(_address(url) for url in urls)
    if len({address.prefix for address in addresses}) > 1:
        raise AddressError("all shards must have the same prefix")
    if len({str(address) for address in addresses}) < len(addresses):
        raise AddressError("a shard is named twice")
    return addresses


def _is_cluster(url: str) -> bool:
    return url.partition("://")[0].endswith(_CLUSTER)


def _seeds(url: str) -> tuple[Address, ...]:
    """Read the URL of a cluster: an address for each of the nodes that it names."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.removesuffix(_CLUSTER)
    if scheme not in ("redis", "rediss"):
        raise AddressError("a cluster is at redis+cluster://host:port,host:port or rediss+cluster://…")
    split = re.search(r"[/?#]", rest)
    netloc, tail = (rest[: split.start()], rest[split.start() :]) if split else (rest, "")
    user, at, hosts = netloc.rpartition("@")
    if "," in hosts and not all(hosts.split(",")):
        raise AddressError("between and after the commas there must be hosts")
    seeds = tuple(replace(_address(f"{scheme}://{user}{at}{host}{tail}"), in_cluster=True) for host in hosts.split(","))
    if any(seed.db for seed in seeds):
        raise AddressError("a cluster has no databases but 0")
    return seeds


def _address(url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise AddressError(
            "not a URL, or its port is not a number up to 65535; in a password / ? # [ ] are %2F %3F %23 %5B %5D"
        ) from None
    if parts.scheme not in _SCHEMES:
        raise AddressError(
            "a Redis is at redis://host:port/db, rediss://host:port/db, unix:///path or redis+cluster://…"
        )
    if parts.fragment:
        raise AddressError("a # in a password must be written %23")
    query = _query(parts)
    is_socket = parts.scheme == "unix"
    path = unquote(parts.path) if is_socket else ""
    if is_socket and (path in ("", "/") or parts.hostname):
        raise AddressError("a Unix socket is at unix:///path, with three slashes")
    if parts.hostname:
        _ensure_host(parts.hostname)
    return Address(
        host="" if is_socket else parts.hostname or "localhost",
        port=PORT if port is None else port,
        path=path,
        db=_db(query.pop("db", "") if is_socket else parts.path.strip("/")),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=_tls(query) if parts.scheme == "rediss" else None,
        prefix=_prefix(query.pop("prefix", PREFIX)),
    )


def _ensure_host(host: str) -> None:
    if not _HOST.fullmatch(host):
        raise AddressError("the host must be a name or an address")
    try:
        host.encode("idna")  # as whoever looks it up will do
    except UnicodeError:
        raise AddressError("the host is no name: its parts, between the dots, have 1 to 63 characters") from None


def _query(parts: SplitResult) -> dict[str, str]:
    try:
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise AddressError("what follows the ? must be key=value, joined by &") from None
    _ensure_known(query, parts.scheme)
    return query


def _ensure_known(query: Mapping[str, str], scheme: str) -> None:
    known = {"prefix"} | ({"db"} if scheme == "unix" else _TLS_KEYS if scheme == "rediss" else set())
    if unknown := sorted(query.keys() - known):
        raise AddressError(f"unknown in the query of {scheme}://: {unknown[0]}; known are {', '.join(sorted(known))}")


def _tls(query: dict[str, str]) -> Tls:
    tls = Tls(**{key: query.pop(key, "") for key in _TLS_KEYS})
    if tls.key and not tls.cert:
        raise AddressError("key needs cert, the certificate that it is the key to")
    return tls


def _db(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise AddressError("the database must be a number")
    return int(text or 0)


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise AddressError("the prefix must be of letters, digits and _ . : / -, 64 at most")
    return text
