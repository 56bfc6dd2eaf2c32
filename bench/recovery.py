"""What a storm of recoveries does to the others: ``python -m bench.recovery``.

2,000 clients of the Centrifuge dialect listen to a channel with history, at 25 publications/s. Half of them lose their
connections, 300 publications pass, and they come back all at once and recover. Printed are the latencies of those who
listened all the time, while all were there before and during the storm, and how many of the others recovered. Server on
one core, load on the other, where those who come back are the nicer ones: what is measured is the server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from subprocess import PIPE

import uvloop

from bench.channels import ROOT, Client, Tally, serving

BEHIND = 300
CLIENTS = 1000
RATE = 25
# While the others are away.
FAST = 100
_EPOCH = re.compile(rb'"epoch":"([^"]+)"')
_RECOVERED = b'"recovered":true'
_HELLO = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"live"}}'


class Comer(Client):
    """Connects, recovers, and counts what it got at once."""

    tail = b""

    def heard(self, data: bytes) -> None:
        self.tally.subscribed += data.count(b'"subscribe":')
        # A read may end anywhere in it.
        text, self.tail = self.tail + data, data[-len(_RECOVERED) + 1 :]
        self.tally.delivered += text.count(_RECOVERED)


def percentile(late: Sequence[int], part: float) -> float:
    """Return a percentile in ms."""
    return sorted(late)[int(len(late) * part)] / 1e6


class Speaker:
    """Publishes to the channel, and counts."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._padding = "x" * 100
        self.published = 0

    async def publish(self, rate: int, during: float) -> None:
        began, first = time.monotonic(), self.published
        while (now := time.monotonic()) < began + during:
            while self.published - first < int((now - began) * rate):
                data = f'{{"t":{time.monotonic_ns()},"p":"{self._padding}"}}'
                self._client.say(f'{{"id":{self.published + 3},"publish":{{"channel":"live","data":{data}}}}}'.encode())
                self.published += 1
            await asyncio.sleep(0.001)


async def run(port: int, seconds: float) -> str:
    """Load the server; return what there is to say."""
    loop, tally = asyncio.get_running_loop(), Tally()
    for _ in range(CLIENTS):
        client = Client(port, _HELLO, tally)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    others = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.recovery", "--others", str(port), stdin=PIPE, stdout=PIPE, cwd=ROOT
    )
    assert others.stdin is not None
    assert others.stdout is not None
    ask, answer = others.stdin, others.stdout
    await answer.readline()
    voice = Comer(port, b'{"id":1,"connect":{}}\n{"id":2,"history":{"channel":"live"}}', Tally())
    await loop.create_connection(lambda: voice, "127.0.0.1", port)
    while tally.subscribed < CLIENTS or not _EPOCH.search(voice.all):  # noqa: ASYNC110  nobody tells of it
        await asyncio.sleep(0.1)
    found = _EPOCH.search(voice.all)
    assert found is not None
    speaker = Speaker(voice)
    await speaker.publish(RATE, 1.0)
    tally.clear()
    await speaker.publish(RATE, seconds)
    before = list(tally.late)
    since = speaker.published
    await _ask(ask, answer, b"leave")
    await speaker.publish(FAST, BEHIND / FAST + 0.1)
    await speaker.publish(RATE, 0.5)
    tally.clear()
    storm = asyncio.create_task(_ask(ask, answer, b"return %b %d" % (found[1], since)))
    while not storm.done():
        await speaker.publish(RATE, 0.2)
    during = list(tally.late)
    ask.close()
    await others.wait()
    return (
        f"{(await storm).decode().strip()}; "
        f"p99 of the others {percentile(before, 0.99):.1f} ms before and {percentile(during, 0.99):.1f} ms during it, "
        f"p50 {percentile(before, 0.5):.1f} and {percentile(during, 0.5):.1f} ms"
    )


async def _ask(ask: StreamWriter, answer: StreamReader, what: bytes) -> bytes:
    ask.write(what + b"\n")
    return await answer.readline()


async def be_others(port: int) -> None:
    """Be those who go and come back, as the lines on the standard input say."""
    loop = asyncio.get_running_loop()
    said = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    # Those who are measured have the core whenever they want it, also when all was started under `chrt`.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(19)
    comers: list[Comer] = []

    async def come(hello: bytes) -> Tally:
        tally = Tally()
        comers[:] = [Comer(port, hello, tally) for _ in range(CLIENTS)]
        await asyncio.gather(*(loop.create_connection(lambda c=c: c, "127.0.0.1", port) for c in comers))
        deadline = time.monotonic() + 30
        while tally.subscribed < CLIENTS and time.monotonic() < deadline:  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0.05)
        return tally

    await come(_HELLO)
    print("there", flush=True)
    while line := await said.readline():
        what, *rest = line.decode().split()
        if what == "leave":
            for comer in comers:
                comer.transport.abort()
            print("gone", flush=True)
            continue
        place = f'"channel":"live","recover":true,"epoch":"{rest[0]}","offset":{rest[1]}'
        began = time.monotonic()
        tally = await come(f'{{"id":1,"connect":{{}}}}\n{{"id":2,"subscribe":{{{place}}}}}'.encode())
        # The answer to whoever subscribed last may not be all here yet.
        while tally.delivered < CLIENTS and time.monotonic() < began + 30:  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0.01)
        took = time.monotonic() - began
        print(
            f"{tally.delivered} of {CLIENTS} recovered {BEHIND} publications or more each within {took:.1f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--others", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.others:
        uvloop.run(be_others(given.others))
        return
    seconds = given.seconds
    with serving("--history-size", "1000") as (port, _):
        print(uvloop.run(run(port, seconds)), flush=True)


if __name__ == "__main__":
    main()
