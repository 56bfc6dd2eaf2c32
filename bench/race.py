"""The small race: the same load on Stentor and on other Python fan-outs, in turn, in one run.

The server has core 0, the load core 1. The load is one publisher and N subscribers in one thread; all frames have one
size, so deliveries are counted in bytes and nothing is parsed: it costs less than any of the servers. CPU is that of
the server's process, user and system.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import PEERS

SIZE = 128
FRAME = SIZE + 4  # a header of four bytes: 126 is the first size that needs them
PATIENCE = 20.0  # seconds without the last deliveries, after which they count as lost
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """One server's figures: microseconds, KiB and rates per second."""

    connects: float
    kib: float
    cpu: float
    p99: float
    open_rate: float
    open_cpu: float
    open_p99: float
    lost: float


def run(subscribers: int, messages: int, rate: float, rounds: int) -> None:
    """Race and print the medians."""
    results: dict[str, list[Result]] = {}
    for _ in range(rounds):
        for name in ("stentor", *PEERS):
            results.setdefault(name, []).append(_measure(name, subscribers, messages, rate))
    print(f"{subscribers} subscribers, {SIZE} B; one in flight, then {rate:.0f}/s (medians of {rounds})")
    print(
        f"  {'server':14}{'connects/s':>11}{'KiB/conn':>10}{'CPU us':>8}{'p99 ms':>8}"
        f"{'open: delivered/s':>19}{'CPU us':>8}{'p99 ms':>9}{'lost':>7}"
    )
    for name, rows in results.items():
        middle = Result(*(statistics.median(getattr(row, field) for row in rows) for field in Result.__annotations__))
        print(
            f"  {name:14}{middle.connects:>11.0f}{middle.kib:>10.1f}{middle.cpu:>8.2f}{middle.p99 * 1e3:>8.1f}"
            f"{middle.open_rate:>19.0f}{middle.open_cpu:>8.2f}{middle.open_p99 * 1e3:>9.1f}{middle.lost:>7.0f}"
        )


def _measure(name: str, subscribers: int, messages: int, rate: float) -> Result:
    with _server(name) as (pid, port):
        before = _rss(pid)
        started = time.perf_counter()
        crowd = Crowd(port, subscribers)
        connects = subscribers / (time.perf_counter() - started)
        with contextlib.closing(crowd):
            kib = (_rss(pid) - before) / subscribers
            crowd.run(messages // 10 or 1)  # warm
            cpu, closed = _cpu(pid), crowd.run(messages)
            cpu_closed = (_cpu(pid) - cpu) / (subscribers * messages)
            cpu, opened = _cpu(pid), crowd.run(messages, rate)
            cpu_open = (_cpu(pid) - cpu) / max(opened.delivered, 1)
        lost = subscribers * messages - opened.delivered
        rate_seen = opened.delivered / opened.seconds
        return Result(connects, kib, cpu_closed * 1e6, closed.p99, rate_seen, cpu_open * 1e6, opened.p99, lost)


@dataclass(frozen=True)
class Run:
    """What came of one run; times in seconds."""

    delivered: int
    seconds: float
    p99: float


class Crowd:
    """One publisher and many subscribers, all on one selector."""

    def __init__(self, port: int, subscribers: int) -> None:
        self._sockets = [_connect(port) for _ in range(subscribers)]
        self._publisher = _connect(port)
        self._selector = selectors.EpollSelector()
        for sock in (*self._sockets, self._publisher):
            self._selector.register(sock, selectors.EVENT_READ)
        self._buffer = bytearray(1 << 20)

    def close(self) -> None:
        self._selector.close()
        for sock in (*self._sockets, self._publisher):
            sock.close()

    def run(self, messages: int, rate: float = 0) -> Run:
        """Publish `messages`, `rate` a second by the clock, or each when the last has reached everyone."""
        clients = len(self._sockets)
        frame = b"\x81\xfe" + SIZE.to_bytes(2, "big") + bytes(4) + b"x" * SIZE
        received: dict[int, int] = dict.fromkeys((sock.fileno() for sock in self._sockets), 0)
        own = self._publisher.fileno()
        due: list[float] = []
        late: list[float] = []
        delivered = 0
        start = last = now = time.perf_counter()
        while delivered < clients * messages and now - last < PATIENCE:
            now = time.perf_counter()
            while len(due) < messages and (now >= start + len(due) / rate if rate else delivered == clients * len(due)):
                due.append(start + len(due) / rate if rate else now)
                self._publisher.sendall(frame)
            for key, _ in self._selector.select(0.001 if rate else 0.05):
                count = key.fileobj.recv_into(self._buffer)  # type: ignore[union-attr]
                if not count:
                    raise SystemExit("a server closed a connection")
                if key.fd == own:
                    continue
                now = last = time.perf_counter()
                before, received[key.fd] = received[key.fd], received[key.fd] + count
                first, end = before // FRAME, received[key.fd] // FRAME
                delivered += end - first
                late += [now - due[index] for index in range(first, end)]
        late.sort()
        return Run(delivered, last - start, late[int(len(late) * 0.99)] if late else float("nan"))


@contextlib.contextmanager
def _server(name: str) -> Iterator[tuple[int, int]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    if name == "stentor":
        options = ["--internal-port", "0", "--message-rate", "0", "--ping-interval", "1h", "--log-level", "error"]
        command = [sys.executable, "-m", "server", "serve", "--port", str(port), *options]
    else:
        command = [sys.executable, "-m", "bench.peers", name, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _pin(process.pid)
        _wait_for(port, process)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def _pin(server: int) -> None:
    cores = sorted(os.sched_getaffinity(0) | os.sched_getaffinity(server))
    if len(cores) > 1:
        os.sched_setaffinity(server, cores[:1])
        os.sched_setaffinity(0, cores[1:2])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"a server died: {process.args}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise SystemExit("a server does not listen")


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise SystemExit(f"handshake refused: {answer!r}")
        answer += byte
    return sock


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss(pid: int) -> float:
    return float(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])
