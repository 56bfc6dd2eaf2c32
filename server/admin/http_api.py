"""The server API over HTTP: a POST with a JSON object, the reply in one too, and a key at the door.

A reply is ``{"result": …}`` or ``{"error": {"code", "message"}}``, both with status 200, as Centrifugo's are.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from server.admin.api import Api
from server.admin.fields import BAD_REQUEST, ApiError
from server.config import is_loopback


def routes(api: Api, *, api_key: str | None, on_loopback: bool) -> list[web.RouteDef]:
    """Make a POST route per command, each behind the key, or open to loopback when there is none."""
    return [
        web.post(f"/api/{name}", _handler(api, name, api_key=api_key, on_loopback=on_loopback)) for name in api.commands
    ]


def _handler(
    api: Api, name: str, *, api_key: str | None, on_loopback: bool
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        if refusal := _refusal(request, api_key, on_loopback=on_loopback):
            return refusal
        try:
            body = orjson.loads(await request.read())
            if not isinstance(body, dict):
                raise ApiError(BAD_REQUEST, "the request is not a JSON object")
            reply: dict[str, Any] = {"result": await api.call(name, body)}
        except orjson.JSONDecodeError:
            reply = {"error": {"code": BAD_REQUEST, "message": "the request is not JSON"}}
        except ApiError as error:
            reply = {"error": {"code": error.code, "message": str(error)}}
        return web.Response(body=orjson.dumps(reply), content_type="application/json")

    return handle


def _refusal(request: web.Request, api_key: str | None, *, on_loopback: bool) -> web.Response | None:
    if api_key is not None:
        given = request.headers.get("X-API-Key", "").encode(errors="surrogateescape")
        if hmac.compare_digest(given, api_key.encode()):
            return None
        return web.Response(status=401, text="X-API-Key is missing or wrong.\n")
    # Without a key, only programs on this machine: not other hosts, and no web page that a browser here has open.
    if not on_loopback or not is_loopback(request.remote or ""):
        return web.Response(status=403, text="Set api_key to use the API from other machines.\n")
    if "Origin" in request.headers:
        return web.Response(status=403, text="Set api_key to use the API from a web page.\n")
    return None
