"""The server API: Centrifugo's commands over HTTP, so that its published libraries work unchanged.

A request is a JSON object; a reply is ``{"result": …}`` or ``{"error": {"code", "message"}}``, both with status 200, as
its documentation says (centrifugal.dev, "Server API"). Here: publish and broadcast.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import web

from server.core.frames import frame_size
from server.core.hub import Hub
from server.core.names import name_fault
from server.dialects import raw

# Centrifugo's error codes for the API.
INTERNAL: Final = 100
UNKNOWN_CHANNEL: Final = 102
BAD_REQUEST: Final = 107

# What one broadcast may name: more would keep the loop from everyone else.
MOST_CHANNELS: Final = 1000
# How long a publisher waits on a congested channel before it is told to come back.
PATIENCE: Final = 5.0

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ApiError(Exception):
    """What the caller is told: one of the codes above, and a sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """The commands, on one hub."""

    def __init__(self, hub: Hub, *, max_channel_length: int, max_message_size: int) -> None:
        self._hub = hub
        self._max_channel_length = max_channel_length
        self._max_message_size = max_message_size
        self.commands: dict[str, Command] = {"publish": self.publish, "broadcast": self.broadcast}

    async def publish(self, request: dict[str, Any]) -> dict[str, Any]:
        """``{"channel": …, "data": any JSON}`` or ``b64data`` for a binary message -> ``{}``."""
        channel = self._channel(request.get("channel"))
        await self._say(channel, self._frame(request))
        return {}

    async def broadcast(self, request: dict[str, Any]) -> dict[str, Any]:
        """``{"channels": […], "data": …}`` -> ``{"responses": [{"result": {}}, …]}``, in the order of the channels."""
        channels = request.get("channels")
        if not isinstance(channels, list) or not channels:
            raise ApiError(BAD_REQUEST, "channels: a list of names is needed")
        if len(channels) > MOST_CHANNELS:
            raise ApiError(BAD_REQUEST, f"channels: more than {MOST_CHANNELS}")
        names = [self._channel(name) for name in channels]
        frame = self._frame(request)
        for name in names:
            await self._say(name, frame)
        return {"responses": [{"result": {}} for _ in names]}

    async def _say(self, channel: str, frame: bytes) -> None:
        if self._hub.publish(channel, frame):
            return
        # Congested: hold the caller, as a client that publishes is held, until there is room again.
        relief = asyncio.get_running_loop().create_future()
        self._hub.on_relief(channel, lambda: None if relief.done() else relief.set_result(None))
        try:
            async with asyncio.timeout(PATIENCE):
                await relief
        except TimeoutError:
            raise ApiError(INTERNAL, "the channel is congested; this publication was taken, slow down") from None

    def _channel(self, name: object) -> str:
        if not isinstance(name, str) or not name:
            raise ApiError(BAD_REQUEST, "channel: a name is needed")
        if fault := name_fault(name, self._max_channel_length):
            raise ApiError(BAD_REQUEST, f"channel: the name {fault}")
        return name

    def _frame(self, request: dict[str, Any]) -> bytes:
        if "b64data" in request:
            try:
                frame = raw.encode_binary(base64.b64decode(request["b64data"], validate=True))
            except (binascii.Error, TypeError, ValueError):
                raise ApiError(BAD_REQUEST, "b64data: not base64") from None
        elif "data" in request:
            try:
                frame = raw.encode_data(request["data"])
            except TypeError:
                # It came as JSON; what may be read is deeper than what may be written.
                raise ApiError(BAD_REQUEST, "data: nested too deeply") from None
        else:
            raise ApiError(BAD_REQUEST, "data: a JSON value is needed")
        if len(frame) > frame_size(self._max_message_size):
            raise ApiError(BAD_REQUEST, f"data: larger than {self._max_message_size} bytes")
        return frame


def routes(api: Api, *, api_key: str | None, on_loopback: bool) -> list[web.RouteDef]:
    """Make a POST route per command, each behind the key, or open to loopback when there is none."""
    return [
        web.post(f"/api/{name}", _handler(command, api_key=api_key, on_loopback=on_loopback))
        for name, command in api.commands.items()
    ]


def _handler(
    command: Command, *, api_key: str | None, on_loopback: bool
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        if refusal := _refusal(request, api_key, on_loopback=on_loopback):
            return refusal
        try:
            body = orjson.loads(await request.read())
            if not isinstance(body, dict):
                raise ApiError(BAD_REQUEST, "the request is not a JSON object")
            reply: dict[str, Any] = {"result": await command(body)}
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


def is_loopback(host: str) -> bool:
    """Tell if an address, or the name ``localhost``, stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
