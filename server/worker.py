"""One process: builds the house from its settings, runs it, and takes it down.

Laws: ready only while it listens and is not draining; the first signal drains and exits with 0, the second exits now;
what was bound is printed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import ssl
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import uvloop
from websockets.asyncio.server import broadcast

from server import __version__, logs
from server.admin.api import Api, is_loopback
from server.admin.app import Internal
from server.config.rules import open_file_ceiling
from server.core.backlog import Backlog
from server.core.counters import Counters
from server.core.hub import Hub
from server.core.lag import LagLimits, LagPolicy
from server.core.subscription import Subscription
from server.edge import static
from server.edge.connection import Connection
from server.edge.credentials import Credentials, JsonWebTokens, NoCredentials, StaticTokens, signing_keys
from server.edge.gate import Gate
from server.edge.heartbeat import Wheel
from server.edge.listener import Listener, Terms
from server.edge.origins import Origins
from server.edge.recorder import Recorder

if TYPE_CHECKING:
    from server.config import Settings

log = logging.getLogger("stentor")

# Exit codes: drained; a second signal cut the drain short; a port could not be had.
DRAINED: Final = 0
CUT_SHORT: Final = 1
CANNOT_LISTEN: Final = 2


def run(settings: Settings) -> int:
    """Serve until a signal comes; return the exit code."""
    writer = logs.start(settings.log_level, settings.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings))
    finally:
        writer.close()


async def _serve(settings: Settings) -> int:
    # Before anything is said: a signal that comes with the first printed line is already one to drain for.
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    house = House(settings)
    try:
        announcement = await house.open()
    except OSError as error:
        print(f"stentor: cannot listen: {error.strerror or error}", file=sys.stderr)
        await house.internal.stop()
        return CANNOT_LISTEN
    calm_the_collector()
    try:
        print(announcement, flush=True)
    except OSError:
        log.warning("nobody reads the standard output")
    return await house.until_signalled(signals)


class House:
    """Everything one process consists of, joined together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        loop = asyncio.get_running_loop()
        clock = time.monotonic
        counters = Counters()
        backlog = Backlog(counters, settings.node_queue_bytes, _say_observed)
        self.hub = Hub(
            counters,
            backlog,
            fan_out=_fan_out,
            clock=clock,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            evict=_evict,
            report=lambda text: log.warning("fan-out: %s", text),
            fanout_slice=settings.fanout_slice,
            batch_delay=settings.batch_delay_seconds,
        )
        self.wheel = Wheel(
            ping_interval=settings.ping_interval,
            pong_timeout=settings.pong_timeout,
            open_timeout=settings.open_timeout,
            write_timeout=settings.write_timeout,
            loop_lag=counters.event_loop_lag,
            clock=clock,
            call_later=loop.call_later,
        )
        self.listener = Listener(
            _terms(settings),
            hub=self.hub,
            gate=_gate(settings, counters, clock()),
            wheel=self.wheel,
            recorder=Recorder(),
            clock=clock,
        )
        self.internal = Internal(
            self.listener,
            Api(
                self.hub,
                max_channel_length=settings.max_channel_length,
                max_message_size=settings.max_message_size,
            ),
            clock,
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            on_loopback=is_loopback(settings.internal_host),
        )

    async def open(self) -> str:
        """Listen on both ports; return what to tell the user. Raises OSError."""
        settings = self._settings
        tls = _tls(settings)
        internal_port = await self.internal.listen(settings.internal_host, settings.internal_port)
        port = await self.listener.listen(settings.host, settings.port, backlog=settings.backlog, tls=tls)
        self.wheel.start()
        host, internal_host = _url_host(settings.host), _url_host(settings.internal_host)
        log.info("listening on %s:%d, internal port on %s:%d", host, port, internal_host, internal_port)
        secure = "s" if tls else ""
        return (
            f"Stentor {__version__} is listening\n"
            f"  page       http{secure}://{host}:{port}/\n"
            f"  websocket  ws{secure}://{host}:{port}/ws/{{channel}}\n"
            f"  metrics    http://{internal_host}:{internal_port}/metrics\n"
        )

    async def until_signalled(self, signals: asyncio.Queue[int]) -> int:
        """Serve; drain at the first signal, stop at the second; return the exit code."""
        first = await signals.get()
        # From here on, before anything is awaited: not ready, and nobody gets in.
        self.listener.stop_accepting()
        log.info("%s: draining %d connections", signal.Signals(first).name, self.listener.gate.open)
        drain = asyncio.create_task(self.listener.drain(self._settings.drain_timeout, self._settings.drain_rate))
        second = asyncio.create_task(signals.get())
        await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
        code = DRAINED if drain.done() else CUT_SHORT
        drain.cancel()
        second.cancel()
        for outcome in await asyncio.gather(drain, second, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("the drain failed", exc_info=outcome)
                code = CUT_SHORT
        self.listener.abort_all()
        await self.listener.all_dropped()
        self.wheel.stop()
        await self.internal.stop()
        log.info("stopped" if code == DRAINED else "stopped before everyone was gone")
        return code


def _fan_out(subscriptions: Iterable[Subscription], wire: bytes) -> None:
    # text=True only names the slot that broadcast() calls: what is in it takes the wire as it is.
    broadcast(subscriptions, wire, text=True)  # type: ignore[arg-type]


def _evict(owner: object, why: str) -> None:
    assert isinstance(owner, Connection)
    owner.evict(why)


def _say_observed(owner: object) -> None:
    assert isinstance(owner, Connection)
    log.warning("the lag policy would act on %s", owner.address)


def _terms(settings: Settings) -> Terms:
    limits = LagLimits(
        policy=LagPolicy(settings.lag_policy),
        messages=settings.queue_messages,
        bytes=settings.queue_bytes,
        enforce=settings.lag_policy_mode == "enforce",
    )
    return Terms(
        lag=limits,
        may_publish=settings.publish,
        message_rate=settings.message_rate,
        max_message_size=settings.max_message_size,
    )


def _gate(settings: Settings, counters: Counters, now: float) -> Gate:
    return Gate(
        counters,
        origins=Origins(_list(settings.allowed_origins), tls=settings.tls_cert is not None),
        credentials=_credentials(settings),
        assets=static.StaticFiles().lookup,
        # More than there are descriptors for would be cut off by the kernel, uncounted, and a scrape with them.
        max_connections=min(settings.max_connections, open_file_ceiling()),
        max_connections_per_ip=settings.max_connections_per_ip,
        connect_rate=settings.connect_rate,
        max_channel_length=settings.max_channel_length,
        now=now,
    )


def _credentials(settings: Settings) -> Credentials:
    if settings.auth == "token":
        return StaticTokens([token.get_secret_value() for token in settings.tokens])
    if settings.auth == "jwt":
        return JsonWebTokens(
            signing_keys(
                secret=settings.jwt_secret.get_secret_value() if settings.jwt_secret else None,
                public_key=settings.jwt_public_key,
                jwks_file=settings.jwt_jwks_file,
            ),
            settings.jwt_algorithm,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            require_exp=settings.jwt_require_exp,
        )
    return NoCredentials()


def _list(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def calm_the_collector() -> None:
    """Keep the garbage collector off what lives for ever, and from looking at everything too often.

    A full collection looks at every object of every connection; what ends here is freed by counting references.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
