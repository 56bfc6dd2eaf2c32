"""Who may ask the internal port: what a request's own words tell of where it comes from.

A browser lets any page send requests to any port of this machine, and open WebSockets there. Two headers tell:
``Host``, which is the attacker's own where a name of theirs was pointed at us ("DNS rebinding"), and ``Origin``.
"""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

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


def has_key(request: web.Request, api_key: str | None) -> bool:
    """Tell if a request shows the key of the server API, if there is one."""
    return api_key is not None and hmac.compare_digest(_given_key(request), api_key.encode())


def only_for_this_machine(api_key: str | None) -> Middleware:
    """Refuse every request that names another host, unless it shows the key: that no page can know."""

    @web.middleware
    async def refuse_others(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not names_this_machine(request) and not has_key(request, api_key):
            return web.Response(status=403, text="This port is for this machine.\n")
        return await handler(request)

    return refuse_others


def _given_key(request: web.Request) -> bytes:
    """Return the key of ``X-API-Key: KEY`` or, as older libraries send it, ``Authorization: apikey KEY``."""
    given = request.headers.get("X-API-Key", "")
    if not given:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = key if scheme.lower() == "apikey" else ""
    return given.encode(errors="surrogateescape")
