"""The server API over HTTP: a POST with a JSON object, the reply in one too, and a key at the door.

A reply is ``{"result": …}`` or ``{"error": {"code", "message"}}``, both with status 200, as Centrifugo's are; that to a
batch is ``{"replies": […]}``. A POST to ``/api`` itself is the old way, which older libraries still go: lines of
``{"method": …, "params": {…}}``, and a line in return for each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from server.admin import guard
from server.admin.api import MOST_COMMANDS, Api
from server.admin.fields import BAD_REQUEST, NOT_FOUND, ApiError
from server.admin.port import MAX_REQUEST
from server.config import is_loopback

Reply = dict[str, Any]


def routes(api: Api, *, api_key: str | None, on_loopback: bool) -> list[web.RouteDef]:
    """Make a POST route per command, each behind the key, or open to loopback when there is none."""

    def guarded(answer: Callable[[bytes], Awaitable[bytes]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            if refusal := _refusal(request, api_key, on_loopback=on_loopback):
                return refusal
            try:
                body = await request.read()
            except web.HTTPRequestEntityTooLarge:
                told = ApiError(BAD_REQUEST, f"the request is larger than {MAX_REQUEST} bytes").told
                return web.Response(body=orjson.dumps({"error": told}), content_type="application/json")
            return web.Response(body=await answer(body), content_type="application/json")

        return handle

    def one(name: str) -> Callable[[bytes], Awaitable[bytes]]:
        async def answer(body: bytes) -> bytes:
            return orjson.dumps(await _do(api, name, body))

        return answer

    async def lines(body: bytes) -> bytes:
        return await _do_lines(api, body)

    return [web.post(f"/api/{name}", guarded(one(name))) for name in api.commands] + [web.post("/api", guarded(lines))]


async def _do(api: Api, name: str, body: bytes) -> Reply:
    try:
        answer = await api.call(name, _object(body), body.decode())
    except ApiError as error:
        return {"error": error.told}
    return answer if name == "batch" else {"result": answer}


async def _do_lines(api: Api, body: bytes) -> bytes:
    """Do commands of the old form: one JSON object, or one in each line; none if one of them cannot be read."""
    try:
        commands = [(_object(line), line.decode()) for line in _lines(body)]
    except ApiError as error:
        return orjson.dumps({"error": error.told})
    return b"\n".join([orjson.dumps(await _do_old(api, *command)) for command in commands])


def _lines(body: bytes) -> list[bytes]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > MOST_COMMANDS:
        raise ApiError(BAD_REQUEST, f"more than {MOST_COMMANDS} lines")
    try:
        orjson.loads(lines[0] if lines else b"")
    except orjson.JSONDecodeError:
        return [body]  # one object, written over several lines
    return lines


async def _do_old(api: Api, command: dict[str, Any], text: str) -> Reply:
    reply: Reply = {"id": command["id"]} if command.get("id") else {}
    try:
        fields = api.fields(command, text)
        name = fields.text("method").lower()
        if name not in api.commands or name == "batch":
            raise ApiError(NOT_FOUND, "there is no such method")
        return reply | {"result": await api.do(name, fields.part("params") or api.fields({}))}
    except ApiError as error:
        return reply | {"error": error.told}


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ApiError(BAD_REQUEST, "the request is not JSON") from None
    if not isinstance(value, dict):
        raise ApiError(BAD_REQUEST, "the request is not a JSON object")
    return value


def _refusal(request: web.Request, api_key: str | None, *, on_loopback: bool) -> web.Response | None:
    if api_key is not None:
        if guard.has_key(request, api_key):
            return None
        return web.Response(status=401, text="X-API-Key is missing or wrong.\n")
    # Without a key, only programs on this machine, and the operator's page: not other hosts, and no other web page that
    # a browser here has open.
    if not on_loopback or not is_loopback(request.remote or ""):
        return web.Response(status=403, text="Set api_key to use the API from other machines.\n")
    if "Origin" in request.headers and not (guard.names_this_machine(request) and guard.is_of_own_page(request)):
        return web.Response(status=403, text="Set api_key to use the API from a web page.\n")
    return None
