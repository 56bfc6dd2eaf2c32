"""Who may ask the internal port: what a request's own words tell of where it comes from.

A browser lets any page send requests to any port of this machine, and open WebSockets there. Two headers tell:
``Host``, which is the attacker's own where a name of theirs was pointed at us ("DNS rebinding"), and ``Origin``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from server.config import is_loopback
from server.edge.origins import Origins

_SAME_ORIGIN: Final = Origins(("same-origin",))


def names_this_machine(request: web.Request) -> bool:
    """Tell if a request asks for this machine by an address, or the name, that never means another one."""
    try:
        return is_loopback(urlsplit(f"//{request.host}").hostname or "")
    except ValueError:  # an address that is none
        return False


def is_of_own_page(request: web.Request) -> bool:
    """Tell if a request comes from a page of this very port, or from no page at all."""
    headers = request.headers
    return _SAME_ORIGIN.allow(headers.getall("Origin", []), headers.getall("Host", []))


@web.middleware
async def only_for_this_machine(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse a request that names another host."""
    if not names_this_machine(request):
        return web.Response(status=403, text="This port is for this machine.\n")
    return await handler(request)
