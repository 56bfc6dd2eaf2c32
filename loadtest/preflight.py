"""Tries the server before a thousand clients do: one connection to each node, one sentence if it fails."""

from __future__ import annotations

import socket

from loadtest.dialect import Introduction
from loadtest.opening import reason_of, resolve
from loadtest.options import Options
from loadtest.protocol import ProtocolFault

PREFLIGHT_TIMEOUT = 5.0


class Stopped(Exception):
    """The run ends here; the message says why, in one sentence."""


def preflight(options: Options) -> None:
    """Open and close one connection to each node.

    Raises:
        Stopped: there is no server, or none that speaks WebSocket and the dialect here.
    """
    for number in range(len(options.nodes)):
        _try(options, number)


def _try(options: Options, node: int) -> None:
    dialect, channels = options.make_dialect(node), [options.channel(0)]
    where = options.nodes[node].url.split("?")[0]
    headers = [("Authorization", f"Bearer {options.token}")] if options.token else []
    try:
        address, _ = resolve(dialect.target(channels))
    except ProtocolFault as fault:
        raise Stopped(f"{where} cannot be reached: {fault}.") from None
    introduction = Introduction(dialect, channels, headers)
    try:
        with socket.create_connection(address[:2], timeout=PREFLIGHT_TIMEOUT) as sock:
            rest: bytes | None = None
            while rest is None:
                sock.sendall(introduction.outgoing)
                introduction.outgoing = b""
                data = sock.recv(16384)
                if not data:
                    raise ProtocolFault("closed during the handshake" if not introduction.upgraded else "closed")
                rest = introduction.receive(data)
    except TimeoutError:
        raise Stopped(f"{where} does not answer within {PREFLIGHT_TIMEOUT:g} s.") from None
    except OSError as error:
        raise Stopped(f"{where} cannot be reached: {reason_of(error)}.") from None
    except ProtocolFault as fault:
        what = f"does not let the client in ({dialect.name} dialect)"
        what = what if introduction.upgraded else "refuses the WebSocket handshake"
        raise Stopped(f"{where} {what}: {fault}.") from None
