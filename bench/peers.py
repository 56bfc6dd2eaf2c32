"""Other ways to fan out in Python, as their documentation shows them: `python -m bench.peers NAME PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from aiohttp import WSMsgType, web
from websockets.asyncio.server import ServerConnection, broadcast, serve


async def _serve_broadcast(port: int) -> None:
    clients: set[ServerConnection] = set()

    async def handler(client: ServerConnection) -> None:
        clients.add(client)
        try:
            async for message in client:
                broadcast(clients, message)
        finally:
            clients.discard(client)

    async with serve(handler, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096):
        await asyncio.Future()


async def _serve_gather(port: int) -> None:
    clients: set[ServerConnection] = set()

    async def handler(client: ServerConnection) -> None:
        clients.add(client)
        try:
            async for message in client:
                await asyncio.gather(*(other.send(message) for other in clients), return_exceptions=True)
        finally:
            clients.discard(client)

    async with serve(handler, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096):
        await asyncio.Future()


async def _serve_aiohttp(port: int) -> None:
    clients: set[web.WebSocketResponse] = set()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse(compress=False)
        await client.prepare(request)
        clients.add(client)
        try:
            async for message in client:
                if message.type is WSMsgType.TEXT:
                    for other in list(clients):
                        await other.send_str(message.data)
        finally:
            clients.discard(client)
        return client

    app = web.Application()
    app.router.add_get("/ws", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Future()


PEERS: dict[str, Any] = {"broadcast()": _serve_broadcast, "gather(send)": _serve_gather, "aiohttp": _serve_aiohttp}

if __name__ == "__main__":
    uvloop.run(PEERS[sys.argv[1]](int(sys.argv[2])))
