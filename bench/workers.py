"""What the way through the supervisor costs: ``python -m bench.workers``.

A server with two workers, subscribers on both, and one publisher of 128 bytes at a steady rate: the supervisor's CPU
for each publication (each goes to both workers, and its publisher gets an answer), and the time from publish to
receipt.
The load shares the machine with the three processes, so that the latencies are an upper bound.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import uvloop
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from bench.channels import cpu, serving
from bench.pace import steadily

SUBSCRIBERS = 4
SIZE = 128


class Listener(asyncio.Protocol):
    """A raw client; notes when each publication came."""

    def __init__(self, port: int) -> None:
        self._handshake = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/ws/bench"))
        self._is_open = False
        self._rest = b""
        self.received = 0
        self.late: list[int] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._handshake.send_request(self._handshake.connect())
        transport.writelines(self._handshake.data_to_send())

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self._is_open:
            self._is_open = b"101" in data
            return
        # All frames have one size: a head of 4 bytes, and a payload that begins with the time. A ping may come all the
        # same (the first is anywhere in the interval), and says nothing.
        data = self._rest + data.replace(b"\x89\x00", b"")
        frame = SIZE + 4
        whole = len(data) // frame * frame
        self._rest = data[whole:]
        for start in range(0, whole, frame):
            self.late.append(now - int(data[start + 4 : start + 24]))
        self.received += whole // frame

    def say(self, payload: bytes) -> None:
        self.transport.write(b"\x82\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload)


async def load(port: int, pid: int, rate: int, seconds: float) -> str:
    """Publish for so long; return what there is to say."""
    loop = asyncio.get_running_loop()
    clients = [Listener(port) for _ in range(SUBSCRIBERS)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    await asyncio.sleep(1.0)  # for the workers to have subscribed
    before = cpu(pid)
    sent = await steadily(rate, seconds, lambda: clients[0].say(b"%020d" % time.monotonic_ns() + bytes(SIZE - 20)))
    await asyncio.sleep(0.5)
    spent = cpu(pid) - before
    late = sorted(time for client in clients for time in client.late)
    received = sum(client.received for client in clients)
    return (
        f"{rate:,} publications/s: {received:,} of {sent * SUBSCRIBERS:,} received, "
        f"supervisor {spent / sent * 1e6:.1f} us CPU for each publication, "
        f"p50 {late[len(late) // 2] / 1e6:.2f} ms, p99 {late[int(len(late) * 0.99)] / 1e6:.2f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--rates", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    for rate in given.rates:
        with serving("--workers", "2", "--latency-sample", "0", pinned=False) as (port, pid):
            print(uvloop.run(load(port, pid, rate, given.seconds)), flush=True)


if __name__ == "__main__":
    main()
