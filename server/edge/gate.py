"""The gate: what is decided about a request before it becomes a WebSocket.

In this order, the cheap and the public first: path, origin, ceilings, credentials. Each refusal is one HTTP status, a
short text that quotes nothing of the request, and a bounded reason for the metric. The gate awaits nothing and calls
nobody: a request is judged while it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, unquote

from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response

from server.core.counters import Counters
from server.core.limits import AddressCeiling, TokenBucket
from server.core.names import name_fault
from server.core.returns import RETURNS_PER_SECOND, SOONEST, Appointments
from server.edge.credentials import Credentials, Identity, Refused
from server.edge.origins import Origins
from server.edge.static import Asset

Fields = tuple[tuple[str, str], ...]

DEFAULT_CHANNEL: Final = "main"
CENTRIFUGE_PATH: Final = "/connection/websocket"
JSON: Final = "centrifuge-json"
PROTOBUF: Final = "centrifuge-protobuf"
# What those put in the address who cannot, or will not, offer a subprotocol; the first one is of old SDKs.
_ASKS_FOR_PROTOBUF: Final = frozenset(("format=protobuf", "cf_protocol=protobuf"))
# A brown-out lasts for some seconds at least: nobody needs to ask sooner.
AFTER_BROWNOUT: Final = 5

_UNCACHED: Fields = (("Cache-Control", "no-store"),)


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that may become a WebSocket, in the dialect `dialect`, as `identity`.

    `channel` is the raw dialect's. In the Centrifuge dialect the client may say later who it is: `identity` is
    None then, and `is_protobuf` says what it speaks. `subprotocol` is the one that it offered and that is taken.
    """

    dialect: str
    channel: str
    identity: Identity | None
    subprotocol: str | None = None
    is_protobuf: bool = False


class Refusal(Exception):
    """Why a request may not: HTTP status, text for the client, reason for the metric."""

    def __init__(self, status: HTTPStatus, text: str, reason: str, headers: Fields = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.reason = reason
        self.headers = headers


class Gate:
    """Judges requests, and counts who is inside."""

    def __init__(
        self,
        counters: Counters,
        *,
        origins: Origins,
        credentials: Credentials,
        assets: Callable[[str], Asset | None],
        max_connections: int,
        max_connections_per_ip: int = 0,
        connect_rate: float = 0,
        max_channel_length: int = 128,
        may_subscribe: Callable[[Identity, str], bool] = lambda identity, channel: True,
        now: float = 0.0,
    ) -> None:
        self.open = 0
        self.is_draining = False
        self.brownout = 0  # the step that is taken now; from the first on, nobody new is let in
        self.max_connections = max_connections
        self._counters = counters
        self._origins = origins
        self._credentials = credentials
        self._assets = assets
        self.max_connections_per_ip = max_connections_per_ip
        self._addresses = AddressCeiling(max_connections_per_ip)
        self._rate = TokenBucket(connect_rate, now) if connect_rate else None
        self._appointments = Appointments(connect_rate or RETURNS_PER_SECOND, now)
        self._max_channel_length = max_channel_length
        self._may_subscribe = may_subscribe

    def judge(self, request: Request, address: str, now: float, scheme: str | None = None) -> Admission | Response:
        """Admit a request to the opening handshake, or answer it with HTTP.

        `address` is its client's, `scheme` what the client's side of a trusted proxy speaks, if that is known.
        """
        try:
            return self._judge(request, address, now, scheme)
        except Refusal as refusal:
            self._counters.rejected[refusal.reason] += 1
            body = refusal.text.encode() + b"\n"
            return respond(refusal.status, body, refusal.headers, with_body=request.method != "HEAD")

    def retry_after(self, now: float) -> int:
        """Say in how many seconds the next one who is turned away should come back: not all at once."""
        return self._appointments.give(now, AFTER_BROWNOUT if self.brownout else SOONEST)

    def enter(self, address: str) -> None:
        """Count a connection in."""
        self.open += 1
        self._addresses.enter(address)

    def leave(self, address: str) -> None:
        """Count a connection out."""
        self.open -= 1
        self._addresses.leave(address)

    def _judge(self, request: Request, address: str, now: float, scheme: str | None) -> Admission | Response:
        path, _, query = request.path.partition("?")
        route = self._route(path)
        if route is None:
            return self._page(request, path)
        self._check_origin(request, scheme)
        self._check_host(request)
        self._check_ceilings(address, now)
        dialect, channel = route
        token = bearer_token(request.headers, query)
        if dialect == "centrifuge":
            identity = self._check_credentials(token) if token is not None else None
            subprotocol = _subprotocol(request)
            is_protobuf = subprotocol == PROTOBUF or not _ASKS_FOR_PROTOBUF.isdisjoint(query.split("&"))
            return Admission(dialect, channel, identity, subprotocol, is_protobuf)
        identity = self._check_credentials(token)
        if dialect == "raw" and not self._may_subscribe(identity, channel):
            raise Refusal(HTTPStatus.FORBIDDEN, "This channel is not open to you.", "permission")
        return Admission(dialect, channel, identity)

    def _route(self, path: str) -> tuple[str, str] | None:
        """Name the dialect and the channel of a path; None when it is no WebSocket's."""
        if path == "/ws":
            return "raw", DEFAULT_CHANNEL
        if path == "/echo":
            return "echo", ""
        if path == CENTRIFUGE_PATH:
            return "centrifuge", ""
        if not path.startswith("/ws/"):
            return None
        try:
            channel = unquote(path[4:], errors="strict")
        except UnicodeDecodeError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "The channel's name is not UTF-8.", "bad_request") from None
        if not channel:
            raise Refusal(HTTPStatus.NOT_FOUND, "A channel has a name: /ws/NAME.", "not_found")
        if fault := name_fault(channel, self._max_channel_length):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"The channel's name {fault}.", "bad_request")
        return "raw", channel

    def _page(self, request: Request, path: str) -> Response:
        status, body, headers = HTTPStatus.OK, b"ok\n", _UNCACHED
        if path != "/healthz":
            asset = self._assets(path)
            if asset is None:
                raise Refusal(HTTPStatus.NOT_FOUND, "There is nothing here.", "not_found")
            body, headers = asset.body, asset.headers
            if asset.is_fresh(", ".join(request.headers.get_all("If-None-Match")) or None):
                status, body = HTTPStatus.NOT_MODIFIED, b""
        if request.method not in ("GET", "HEAD"):
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET.", "bad_request", (("Allow", "GET, HEAD"),))
        return respond(status, body, headers, with_body=request.method != "HEAD")

    def _check_origin(self, request: Request, scheme: str | None) -> None:
        if not self._origins.allow(request.headers.get_all("Origin"), request.headers.get_all("Host"), scheme):
            raise Refusal(HTTPStatus.FORBIDDEN, "This origin may not connect.", "origin")

    def _check_host(self, request: Request) -> None:
        # RFC 6455, section 4.2.1, and RFC 9112, section 3.2; the library does not look.
        if len(request.headers.get_all("Host")) != 1:
            raise Refusal(HTTPStatus.BAD_REQUEST, "A request names one host.", "bad_request")

    def _check_ceilings(self, address: str, now: float) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE
        if self.is_draining:
            text, reason = "The server is shutting down.", "draining"
        elif self.brownout:
            text, reason = "The server is overloaded.", "brownout"
        elif self.open >= self.max_connections:
            text, reason = "The server is full.", "full"
        elif self._addresses.full(address):
            status = HTTPStatus.TOO_MANY_REQUESTS
            text, reason = "Too many connections from this address.", "address"
        elif self._rate is not None and not self._rate.take(now):
            text, reason = "Too many new connections now.", "connect_rate"
        else:
            return
        raise Refusal(status, text, reason, (("Retry-After", str(self.retry_after(now))),))

    def _check_credentials(self, token: str | None) -> Identity:
        try:
            return self._credentials.check(token)
        except Refused as refused:
            raise Refusal(
                HTTPStatus.UNAUTHORIZED, str(refused), "credentials", (("WWW-Authenticate", "Bearer"),)
            ) from None


def bearer_token(headers: Headers, query: str) -> str | None:
    """Find the token of a request: ``Authorization: Bearer``, or else ``?token=``. None when there is none, or two."""
    try:
        authorization = headers.get("Authorization")
    except MultipleValuesError:
        return None
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None
    if "token=" not in query:
        return None
    try:
        tokens = parse_qs(query, max_num_fields=32).get("token", [])
    except ValueError:
        return None
    return tokens[0] if len(tokens) == 1 else None


def _subprotocol(request: Request) -> str | None:
    """Choose of what a Centrifuge client offers, as Centrifugo does; most offer nothing for JSON.

    Who offers something and gets none of it hangs up: so it is with `ws` in Node, and with browsers.
    """
    offered = [each.strip() for each in ",".join(request.headers.get_all("Sec-WebSocket-Protocol")).split(",")]
    return next((each for each in (JSON, PROTOBUF) if each in offered), None)


def respond(
    status: HTTPStatus,
    body: bytes,
    headers: Fields = (),
    *,
    with_body: bool = True,
) -> Response:
    """Make a plain HTTP answer that ends its connection."""
    fields = Headers(headers)
    if "Content-Type" not in fields:
        fields["Content-Type"] = "text/plain; charset=utf-8"
    fields["Date"] = formatdate(usegmt=True)
    fields["Connection"] = "close"
    if "Content-Length" not in fields:
        fields["Content-Length"] = str(len(body))
    return Response(status.value, status.phrase, fields, body if with_body else b"")
