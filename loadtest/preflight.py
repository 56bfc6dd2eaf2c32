"""Tries the server before a thousand clients do: one connection, one sentence if it fails."""

from __future__ import annotations

import socket

from loadtest.opening import reason_of, resolve
from loadtest.options import Options
from loadtest.protocol import Handshake, ProtocolFault

PREFLIGHT_TIMEOUT = 5.0


class Stopped(Exception):
    """The run ends here; the message says why, in one sentence."""


def preflight(options: Options) -> None:
    """Open and close one connection.

    Raises:
        Stopped: there is no server, or none that speaks WebSocket here.
    """
    uri = options.dialect().target([options.channel(0)])
    where = options.url.split("?")[0]
    headers = [("Authorization", f"Bearer {options.token}")] if options.token else []
    try:
        address, _ = resolve(uri)
    except ProtocolFault as fault:
        raise Stopped(f"{where} cannot be reached: {fault}.") from None
    handshake = Handshake(uri, headers)
    try:
        with socket.create_connection(address[:2], timeout=PREFLIGHT_TIMEOUT) as sock:
            sock.sendall(handshake.request)
            while handshake.receive(data := sock.recv(16384)) is None:
                if not data:
                    raise ProtocolFault("closed during the handshake")
    except TimeoutError:
        raise Stopped(f"{where} does not answer within {PREFLIGHT_TIMEOUT:g} s.") from None
    except OSError as error:
        raise Stopped(f"{where} cannot be reached: {reason_of(error)}.") from None
    except ProtocolFault as fault:
        raise Stopped(f"{where} refuses the WebSocket handshake: {fault}.") from None
