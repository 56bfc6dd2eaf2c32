"""What a scrape costs, and whom it keeps waiting: ``python -m bench.scrape``.

10,000 clients on one server, some of them with a full queue if wished; one scrape after the other. All the while one
more client asks for an echo of its own words, again and again: the longest that it waits is the longest for which the
event loop did not turn. In between, for as long, the same without a scrape: so much of it is the machine's.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WARM = 5  # scrapes that do not count
PATIENCE = 30.0
# More than queue, transport and kernel hold for a client that does not read.
FILLING, FILLINGS = 60_000, 12
_TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A server in processes of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int, internal_port: int) -> None:
        self._process = process
        self.port = port
        self._scraper = socket.create_connection(("127.0.0.1", internal_port))

    def ask(self) -> None:
        """Ask for a scrape."""
        self._scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

    def answers(self) -> Iterator[bytes]:
        """Yield b"" until the scrape is there, and then the scrape."""
        said = b""
        while True:
            try:
                said += self._scraper.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
            head, _, body = said.partition(b"\r\n\r\n")
            size = re.search(rb"(?i)content-length: (\d+)", head)
            if size is not None and len(body) >= int(size[1]):
                if b" 200 " not in head:
                    raise SystemExit(f"the scrape failed: {head!r}")
                yield body
                return
            yield b""

    def scrape(self) -> bytes:
        self.ask()
        *_, body = self.answers()
        return body

    def cpu(self) -> float:
        """Return the seconds that all of its processes have worked."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        fields = [Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split() for each in (pid, *children)]
        return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


@contextmanager
def serving(workers: int) -> Iterator[Server]:
    """Run a server that throws out nobody, however slow."""
    command = [
        sys.executable, "-m", "server", "serve", "--port", "0", "--internal-port", "0", "--workers", str(workers),
        "--lag-policy", "drop_oldest", "--write-timeout", "1h", "--message-rate", "0", "--no-brownout",
        "--node-queue-bytes", "8GiB", "--log-level", "error",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            said = ""
            while not (found := re.search(r"page\D+[\d.]+:(\d+)/\s(?:.*\s)*?\s+metrics\D+[\d.]+:(\d+)/metrics", said)):
                line = process.stdout.readline()
                if not line:
                    raise SystemExit("the server does not start")
                said += line
            yield Server(process, int(found[1]), int(found[2]))
        finally:
            process.terminate()


def connect(port: int, path: str, receive_buffer: int = 0) -> socket.socket:
    """Open a client."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise SystemExit(f"handshake refused: {answer!r}")
        answer += byte
    return sock


def fill(server: Server, laggards: int, hold: ExitStack) -> None:
    """Let so many clients be told more than they read."""
    for _ in range(laggards):
        hold.enter_context(connect(server.port, "/ws/slow", receive_buffer=4096))
    deadline = time.monotonic() + PATIENCE
    with connect(server.port, "/ws/slow") as publisher:
        publisher.settimeout(PATIENCE)
        for _ in range(FILLINGS):
            publisher.sendall(b"\x82\xfe" + FILLING.to_bytes(2, "big") + bytes(4 + FILLING))
            heard = 0
            while heard < FILLING:
                heard += len(publisher.recv(1 << 20))
        while (lagging := _lagging(server)) < laggards:
            if time.monotonic() > deadline:
                raise SystemExit(f"{lagging} of {laggards} clients lag")
            time.sleep(0.1)


def _lagging(server: Server) -> float:
    found = re.findall(rb"^stentor_lagging_clients(?:\{.*\})? (\S+)$", server.scrape(), re.MULTILINE)
    return sum(map(float, found))


def waits(echo: socket.socket, seconds: float = PATIENCE) -> Iterator[float]:
    """Ask for an echo, again and again, for so long but once at least; yield the time that each took."""
    until = time.perf_counter() + seconds
    while True:
        asked = time.perf_counter()
        echo.sendall(b"\x81\x84\0\0\0\0echo")
        missing = len(b"\x81\x04echo")
        while missing:
            missing -= len(echo.recv(missing))
        yield time.perf_counter() - asked
        if time.perf_counter() >= until:
            return


def measure(server: Server, scrapes: int) -> None:
    """Scrape, and print the medians."""
    walls, longest, without = [], [], []
    with connect(server.port, "/echo") as echo:
        for _ in range(WARM + scrapes):
            began = time.perf_counter()
            server.ask()
            longest.append(max(wait for _, wait in zip(server.answers(), waits(echo), strict=False)))
            walls.append(time.perf_counter() - began)
            without.append(max(waits(echo, walls[-1])))
    cpu = server.cpu()
    for _ in range(scrapes):
        server.scrape()
    cpu = (server.cpu() - cpu) / scrapes
    wall, wait, quiet = (statistics.median(each[WARM:]) * 1e3 for each in (walls, longest, without))
    print(f"  a scrape takes {wall:.1f} ms and {cpu * 1e3:.1f} ms of CPU; others wait {wait:.2f} ms at most meanwhile")
    print(f"  and {quiet:.2f} ms without one (medians of {scrapes}); worst of all: {max(longest[WARM:]) * 1e3:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scrape", description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000, help="of them all (default: 10000)")
    parser.add_argument("--laggards", type=int, default=0, help="of them with a full queue (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes that serve (default: 1)")
    parser.add_argument("--scrapes", type=int, default=50, help="of which the medians are printed (default: 50)")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with serving(options.workers) as server, ExitStack() as hold:
        for _ in range(options.clients - options.laggards):
            hold.enter_context(connect(server.port, "/ws/quiet"))
        if options.laggards:
            fill(server, options.laggards, hold)
        print(f"{options.clients} clients, {options.laggards} of them lagging, {options.workers} worker(s)")
        measure(server, options.scrapes)


if __name__ == "__main__":
    main()
