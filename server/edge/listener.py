"""The public port: its sockets, everyone who is connected, and the way out for all of them.

Laws: every accepted socket is in `connections` until it is lost, and counted once; what is opened is closed once, with
one code. Stops accepting before it says goodbye; never waits for a client longer than it was told to.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from websockets.server import ServerProtocol

from server.core.backlog import Backlog
from server.core.counters import Counters
from server.core.limits import AddressCeiling
from server.edge.closing import Cause, Close, close_label
from server.edge.connection import Connection
from server.edge.gate import Admission, Gate
from server.edge.heartbeat import Wheel
from server.edge.proxies import Proxies
from server.edge.recorder import Departure, Recorder
from server.edge.session import Session
from server.edge.sessions import Sessions
from server.edge.turnstile import Turnstile
from server.node.node import Node

log = logging.getLogger("stentor.edge")

# The library logs headers and paths at debug, where tokens are; and what it logs at info is ours to count.
_library_log = logging.getLogger("stentor.websockets")
_library_log.setLevel(logging.WARNING)

# Sockets that may stand in the doorway, beyond the connections that are served, before they are turned away unread.
# Together with what the process needs for itself this is below the 64 descriptors that `max_connections` leaves free.
DOORWAY: Final = 32
# How many goodbyes are said in one turn of the loop.
FAREWELLS: Final = 256
# Linux: pause the writer when this much has not been *sent* yet, whatever the size of the kernel's buffer.
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_NOTSENT_BYTES: Final = 64 * 1024

# The code and the reason for the next one who is sent away.
Farewell = Callable[[], tuple[int, str]]

_TURNED_AWAY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


def goodbye() -> tuple[int, str]:
    """The server ends."""
    return Close.GOING_AWAY, "server shutting down"


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every client of a listener; sizes in bytes, times in seconds, rates per second."""

    message_rate: float = 1000.0
    max_message_size: int = 65536
    trusted_proxies: tuple[str, ...] = ()


class Listener:
    """Accepts clients, holds them, and lets them go."""

    def __init__(
        self,
        terms: Terms,
        *,
        node: Node,
        sessions: Sessions,
        gate: Gate,
        wheel: Wheel,
        recorder: Recorder,
        turnstile: Turnstile,
        clock: Callable[[], float],
    ) -> None:
        self.terms = terms
        self.node = node
        self.hub = hub = node.hub
        self._sessions = sessions
        self.gate = gate
        self.wheel = wheel
        self.recorder = recorder
        self.turnstile = turnstile
        self.clock = clock
        self.counters: Counters = hub.counters
        self.backlog: Backlog = hub.backlog
        self.message_rate = terms.message_rate
        self.proxies = Proxies(terms.trusted_proxies)
        self.connections: dict[Connection, None] = {}
        self.open_by_dialect: dict[str, int] = {"raw": 0, "echo": 0, "centrifuge": 0}
        # Sockets by address, handshakes included: one address may not fill the doorway for all others. A trusted
        # proxy's own is not counted: it stands for many.
        self._doorway = AddressCeiling(gate.max_connections_per_ip and gate.max_connections_per_ip + DOORWAY)
        # What tells our connections from those of other processes, and of other lives.
        self._name = uuid4().hex[:8]
        self._arrivals = 0
        self._servers: list[asyncio.Server] = []
        self.certificate_expires: float | None = None  # Unix time; None without TLS
        self.sockets: list[socket.socket] = []
        self._empty: asyncio.Event = asyncio.Event()

    # Sockets

    async def listen(
        self, host: str, port: int, *, backlog: int, tls: ssl.SSLContext | None = None, shared: bool = False
    ) -> int:
        """Accept on every address of `host`, all on one port (a free one when 0); return the port. Raises OSError.

        A `shared` port is one that other processes listen on, too; the kernel gives each of them its part.
        """
        loop = asyncio.get_running_loop()
        # Until its handshake is through, a TLS connection is not one of ours, and no deadline of ours holds for it.
        within = self.wheel.opening.timeout if tls else None
        for sock in bind(host, port, backlog, shared=shared):
            self.sockets.append(sock)
            self._servers.append(
                await loop.create_server(
                    lambda: Connection(self), sock=sock, backlog=backlog, ssl=tls, ssl_handshake_timeout=within
                )
            )
            port = sock.getsockname()[1]
        return port

    @property
    def is_accepting(self) -> bool:
        return any(server.is_serving() for server in self._servers)

    def stop_accepting(self) -> None:
        """Close the listening sockets; what is connected stays. Idempotent."""
        self.gate.is_draining = True
        for server in self._servers:
            server.close()

    async def drain(self, within: float, rate: float = 0.0, farewell: Farewell = goodbye) -> None:
        """Say goodbye to everyone, `rate` a second (0: as fast as is fair), and wait at most `within` seconds.

        What is queued for a client goes out before its close frame, if the client takes it in time.
        """
        self.stop_accepting()
        try:
            async with asyncio.timeout(within):
                await self._say_goodbye(rate, farewell)
                await self._all_gone()
        except TimeoutError:
            log.warning("%d connections did not close within %.1f s", len(self.connections), within)
            self.abort_all()
            await self.all_dropped()

    def abort_all(self) -> None:
        """Drop everyone now. Idempotent."""
        for connection in list(self.connections):
            connection.abort("server stopped")

    async def all_dropped(self) -> None:
        """Wait, a second at most, until the loop has told us of everyone who was dropped."""
        try:
            async with asyncio.timeout(1.0):
                await self._all_gone()
        except TimeoutError:
            log.error("%d connections could not be dropped", len(self.connections))

    async def _say_goodbye(self, rate: float, farewell: Farewell = goodbye) -> None:
        pause, step = _pace(rate)
        # Requests that are still on their way come last: most get their 503 by themselves until then.
        leaving = sorted(self.connections, key=lambda connection: connection.session is None)
        for start in range(0, len(leaving), step):
            for connection in leaving[start : start + step]:
                if connection.session is None:
                    connection.abort("server stopped")
                else:
                    connection.finish(*farewell())
            await asyncio.sleep(pause)

    async def _all_gone(self) -> None:
        while self.connections:
            self._empty.clear()
            await self._empty.wait()

    # Whom an operator may mean

    def client_id(self, connection: Connection) -> str:
        """Name one connection: by its client's own id, or, where the dialect has none, by one that is used once."""
        session = connection.session
        return (session.client if session is not None else "") or f"{self._name}-{connection.number}"

    def find(self, client: str) -> Connection | None:
        """Return the connection that `client_id` names so; None when it is gone."""
        name, _, number = client.rpartition("-")
        if name == self._name and number.isdecimal() and len(number) < 20:
            wanted = int(number)
            return next((each for each in self.connections if each.number == wanted), None)
        for each in self.connections:
            if each.session is not None and each.session.client == client:
                return each
        return None

    # Called by connections

    def new_protocol(self) -> ServerProtocol:
        return ServerProtocol(max_size=self.terms.max_message_size, logger=_library_log)

    def new_session(self, connection: Connection, admission: Admission) -> Session:
        return self._sessions.new(connection, admission)

    def joined(self, connection: Connection) -> None:
        """Take note of an accepted socket."""
        now = self.clock()
        self.connections[connection] = None
        self._arrivals += 1
        connection.number = self._arrivals
        connection.accepted_at = now
        self.wheel.opening.add(connection, now)
        if not self._enter_doorway(connection):
            self._turn_away(connection, "address")
        elif len(self.connections) > self.gate.max_connections + DOORWAY:
            self._turn_away(connection, "full")

    def identified(self, connection: Connection, address: str) -> bool:
        """Take note of whose connection it is, as a trusted proxy says first of all; false when it is turned away."""
        connection.address = address
        has_room = self._enter_doorway(connection)
        if not has_room:
            self._turn_away(connection, "address")
        return has_room

    def admitted(self, connection: Connection, address: str) -> None:
        """Take note of whose request the gate has let in, as a trusted proxy says in it."""
        connection.address = address
        self._enter_doorway(connection)

    def _enter_doorway(self, connection: Connection) -> bool:
        """Count a socket by its address; false when there are too many from there."""
        if self.proxies.trust(connection.address):
            return True
        is_crowded = self._doorway.full(connection.address)
        self._doorway.enter(connection.address)
        return not is_crowded

    def _turn_away(self, connection: Connection, reason: str) -> None:
        self.counters.rejected[reason] += 1
        connection.transport.write(_TURNED_AWAY % self.gate.retry_after(self.clock()))
        connection.transport.close()

    def opened(self, connection: Connection, admission: Admission) -> None:
        """Take note of a finished handshake."""
        now = connection.opened_at
        self.wheel.opening.discard(connection)
        self.counters.opened += 1
        self.counters.handshake_duration.observe(now - connection.accepted_at)
        self.open_by_dialect[admission.dialect] += 1
        identity = admission.identity
        # A Centrifuge client's time begins with its connect command, and it is given some to bring a new token.
        if identity is not None and identity.expires is not None and admission.dialect != "centrifuge":
            # Wall-clock time is looked at once: a clock that jumps later disconnects nobody.
            self.wheel.expiring[connection] = now + identity.expires - time.time()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("open %s %s %r", connection.address, admission.dialect, admission.channel)

    def left(self, connection: Connection, cause: Cause | None) -> None:
        """Settle the account of a lost socket; None: it never became a client's."""
        self.connections.pop(connection, None)
        if not self.proxies.trust(connection.address):
            self._doorway.leave(connection.address)
        self.wheel.forget(connection)
        if not self.connections:
            self._empty.set()
        session = connection.session
        if session is None or cause is None:
            return
        self.gate.leave(connection.address)
        self.counters.closed[close_label(cause.code)] += 1
        self.open_by_dialect[session.dialect] -= 1
        departure = self._departure(connection, session, cause)
        self.recorder.record(departure)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("close %s %d %s after %.1f s", departure.address, *cause, departure.connected)

    def slow(self, connection: Connection, why: str) -> None:
        """Take note of a client that is thrown out for being slow."""
        self.counters.slow_disconnects += 1
        log.debug("slow %s: %s", connection.address, why)

    def fault(self, connection: Connection) -> None:
        """Log an error of our own, which is being handled."""
        log.exception("internal error on the connection of %s", connection.address)

    def _departure(self, connection: Connection, session: Session, cause: Cause) -> Departure:
        now = self.clock()
        lost = session.outbox.lost if session.outbox is not None else None
        return Departure(
            at=time.time(),
            address=connection.address,
            client=self.client_id(connection),
            dialect=session.dialect,
            channel=session.channel,
            code=cause.code,
            reason=cause.reason,
            queue_messages=lost.messages if lost else 0,
            queue_bytes=lost.bytes if lost else 0,
            queue_age=now - lost.oldest if lost else 0.0,
            connected=now - connection.opened_at,
            rtt=connection.rtt,
            loop_lag=self.wheel.last_lag,
        )


def _pace(rate: float) -> tuple[float, int]:
    """Turn goodbyes a second into a pause (seconds) and how many are said at once; 0 is as fast as is fair."""
    if not rate:
        return 0.0, FAREWELLS
    if rate <= 100:
        return 1 / rate, 1
    return 0.1, round(rate / 10)


def bind(host: str, port: int, backlog: int, *, shared: bool = False) -> Iterator[socket.socket]:
    """Bind a listening socket for each address of `host` ("" for all); the port of the first serves for the rest."""
    for family, address in _addresses(host, port):
        sock = socket.create_server(
            (address, port),
            family=family,
            backlog=backlog,
            reuse_port=shared,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
        # Inherited by every socket that is accepted: a shallow pipe, so that a laggard is seen early and what it has
        # not been sent yet can still be dropped or conflated.
        try:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
        except OSError:
            log.warning("TCP_NOTSENT_LOWAT is not to be had here: slow clients are noticed later")
        port = sock.getsockname()[1]
        yield sock


def reserve(host: str, port: int) -> Iterator[socket.socket]:
    """Bind a socket that shares its port, but does not listen, for each address of `host`; as `bind` otherwise.

    Nobody else gets the port, but who asks to share it (SO_REUSEPORT, of the same user). Raises OSError.
    """
    for family, address in _addresses(host, port):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family == socket.AF_INET6:
                is_dual = host == "::" and socket.has_dualstack_ipv6()
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
            _take(sock, address, port)
        except OSError:
            sock.close()
            raise
        port = sock.getsockname()[1]
        yield sock


def _take(sock: socket.socket, address: str, port: int) -> None:
    """Bind a socket to an address that nobody has, and let it be shared from then on."""
    if sys.platform != "linux":  # there a socket that has listened does so until it is closed
        if port:
            socket.create_server((address, port), family=sock.family, backlog=1).close()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, port))
        return
    if port:
        # What lingers there of earlier connections is no obstacle.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    if port:
        # Of several that have come so far at once, one may listen: here it is decided who has the port.
        sock.listen(1)
        # Whoever binds from now on is refused, too; set while it still listens, lest somebody slips in between.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        sock.shutdown(socket.SHUT_RD)  # it listens no more, and stays bound
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))
