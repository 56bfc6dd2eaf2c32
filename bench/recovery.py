"""What a storm of recoveries does to the others: ``python -m bench.recovery``.

1,000 clients of the Centrifuge dialect listen to a channel with history, at 50 publications/s. Then, in the same run,
1,000 others connect at once, each 300 publications behind, and recover. Printed are the latencies of those who listened
all the time, before and during the storm, and how many of the others recovered. Server on one core, load on the other.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Sequence

import uvloop

from bench.channels import ROOT, Client, Tally, serving

BEHIND = 300
CLIENTS = 1000
RATE = 50
_EPOCH = re.compile(rb'"epoch":"([^"]+)"')


class Comer(Client):
    """Connects, recovers, and counts what it got at once."""

    def heard(self, data: bytes) -> None:
        self.tally.subscribed += data.count(b'"recovered":true')
        self.tally.delivered += data.count(b'"offset":')


def percentile(late: Sequence[int], part: float) -> float:
    """Return a percentile in ms."""
    return sorted(late)[int(len(late) * part)] / 1e6


async def run(port: int, seconds: float) -> str:
    """Load the server; return what there is to say."""
    loop, tally = asyncio.get_running_loop(), Tally()
    hello = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"live"}}'
    for _ in range(CLIENTS):
        client = Client(port, hello, tally)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    speaker = Comer(port, b'{"id":1,"connect":{}}\n{"id":2,"history":{"channel":"live"}}', Tally())
    await loop.create_connection(lambda: speaker, "127.0.0.1", port)
    while tally.subscribed < CLIENTS or not _EPOCH.search(speaker.all):  # noqa: ASYNC110  nobody tells of it
        await asyncio.sleep(0.1)
    found = _EPOCH.search(speaker.all)
    assert found is not None
    padding, published = "x" * 100, 0

    async def publish(during: float) -> None:
        nonlocal published
        began, first = time.monotonic(), published
        while (now := time.monotonic()) < began + during:
            while published - first < int((now - began) * RATE):
                data = f'{{"t":{time.monotonic_ns()},"p":"{padding}"}}'
                speaker.say(f'{{"id":{published + 3},"publish":{{"channel":"live","data":{data}}}}}'.encode())
                published += 1
            await asyncio.sleep(0.001)

    await publish(BEHIND / RATE + 0.5)
    tally.clear()
    await publish(seconds)
    before = list(tally.late)
    tally.clear()
    # A process of its own: what reads so much must not be what takes the time.
    storm = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.recovery", "--storm", str(port), found[1].decode(), str(published - BEHIND),
        stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    while storm.returncode is None:
        await publish(0.2)
    during = list(tally.late)
    assert storm.stdout is not None
    said = (await storm.stdout.read()).decode().strip()
    return (
        f"{said}; "
        f"p99 of the others {percentile(before, 0.99):.1f} ms before and {percentile(during, 0.99):.1f} ms during it, "
        f"p50 {percentile(before, 0.5):.1f} and {percentile(during, 0.5):.1f} ms"
    )


async def come(port: int, epoch: str, since: int) -> str:
    """Connect at once and recover; return how it went."""
    loop, tally = asyncio.get_running_loop(), Tally()
    place = f'"channel":"live","recover":true,"epoch":"{epoch}","offset":{since}'
    hello = f'{{"id":1,"connect":{{}}}}\n{{"id":2,"subscribe":{{{place}}}}}'.encode()
    began = time.monotonic()
    comers = [Comer(port, hello, tally) for _ in range(CLIENTS)]
    await asyncio.gather(*(loop.create_connection(lambda comer=comer: comer, "127.0.0.1", port) for comer in comers))
    while tally.subscribed < CLIENTS and time.monotonic() < began + 30:  # noqa: ASYNC110  nobody tells of it
        await asyncio.sleep(0.05)
    took = time.monotonic() - began
    return f"{tally.subscribed} of {CLIENTS} recovered {BEHIND} publications or more each within {took:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--storm", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.storm:
        port, epoch, since = given.storm
        print(uvloop.run(come(int(port), epoch, int(since))))
        return
    seconds = given.seconds
    with serving("--history-size", "1000") as (port, _):
        print(uvloop.run(run(port, seconds)), flush=True)


if __name__ == "__main__":
    main()
