"""Real load balancers before two real servers, configured by the files in deploy/, of which only the ports are changed.

Every balancer must pass on what the clients say and hear, give each new one to the server with the fewest, and let a
server go whose time has come; and the servers must see the clients behind it, each with its own address.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import keyring
from tests.absence import absent
from tests.harness import REPOSITORY, Server, serve, wait_until
from tests.lifecycle import crowd as lifecycle
from tests.scenarios.clients import Client, Crowd, eventually, request
from tests.scenarios.ledger import Ledger
from tests.scenarios.stage import Stage

# What a client may claim of itself; nobody must believe it.
FORGED = ("X-Forwarded-For: 198.51.100.99", "X-Forwarded-Proto: https")
CHANNEL = "news"
TRUSTING = ("--trusted-proxies", "127.0.0.1")

Changes = dict[str, tuple[str, int]]  # what stands in the committed file: what takes its place, and how often it stands


@dataclass(frozen=True)
class Kind:
    """A way to stand before the servers, as deploy/ shows it."""

    program: str
    file: str
    reads_requests: bool = True
    proxy_line: bool = False  # version 1 of the PROXY protocol, instead of the committed 2


WEB = Kind("haproxy", "haproxy.cfg")
STREAM = Kind("haproxy", "haproxy.cfg", reads_requests=False)
STREAM_OF_LINES = Kind("haproxy", "haproxy.cfg", reads_requests=False, proxy_line=True)
NGINX = Kind("nginx", "nginx.conf")

every_kind = pytest.mark.parametrize("kind", [WEB, STREAM, STREAM_OF_LINES, NGINX], ids=["web", "v2", "v1", "nginx"])
every_reader = pytest.mark.parametrize("kind", [WEB, NGINX], ids=["haproxy", "nginx"])


@dataclass
class Balanced:
    """Two servers behind a balancer that listens on `port`."""

    one: Server
    two: Server
    port: int
    crowd: Crowd
    log: Path

    async def join(self, address: str, *, path: str = f"/ws/{CHANNEL}", **options: bool) -> Client:
        """Let a client with this address in, which lies about it."""
        return await self.crowd.join(path, headers=FORGED, sock=socket_at(address), **options)

    async def join_many(self, count: int, start: int) -> list[Client]:
        """Let clients in one after another, each with an address of its own."""
        return [await self.join(f"127.0.1.{start + number}") for number in range(count)]

    async def status(self, address: str, *fields: str) -> int:
        """Ask for a WebSocket; return the status of the answer, and leave."""
        loop = asyncio.get_running_loop()
        with socket_at(address) as sock:
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
            await loop.sock_sendall(sock, request(f"/ws/{CHANNEL}", headers=fields))
            answer = b""
            while b"\r\n" not in answer:
                data = await loop.sock_recv(sock, 4096)
                assert data, "hung up without an answer"
                answer += data
        return int(answer.split(b" ")[1])

    async def open(self) -> tuple[int, int]:
        """How many clients each of the two has."""
        metrics = [await asyncio.to_thread(server.metrics) for server in (self.one, self.two)]
        one, two = (int(each['stentor_connections{dialect="raw"}']) for each in metrics)
        return one, two

    async def settled(self, one: int, two: int) -> None:
        async def is_so() -> bool:
            return await self.open() == (one, two)

        await eventually(is_so, 10, f"{one} clients on one and {two} on two")

    async def on(self, server: Server, clients: list[Client]) -> list[Client]:
        """Find out which of `clients` are on `server`, by saying something there."""
        before = {client: len(client.inbox) for client in clients}
        answer = await asyncio.to_thread(server.api, "publish", {"channel": CHANNEL, "data": "who is there?"})
        assert "result" in answer, answer
        count = (await self.open())[0 if server is self.one else 1]

        def found() -> list[Client]:
            return [client for client in clients if len(client.inbox) > before[client]]

        await eventually(lambda: len(found()) == count, 10, "everyone on the server has heard it")
        return found()

    async def addresses_seen(self, server: Server) -> set[str]:
        answer = await asyncio.to_thread(server.get_json, "/debug/disconnects")
        return {entry["address"] for entry in answer["disconnects"]}


def socket_at(address: str) -> socket.socket:
    """Make a client's socket: all of 127.0.0.0/8 is ours."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((address, 0))
    return sock


def program(name: str) -> str:
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        absent(f"{name} is not installed (Debian packages haproxy and nginx-light)")
    return path


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def committed(file: str, changes: Changes) -> str:
    """Read a file of deploy/ and change in it what must be changed here: that, and each as often as it stands there."""
    text = (REPOSITORY / "deploy" / file).read_text()
    for old, (new, times) in changes.items():
        assert text.count(old) == times, f"{old!r} stands in {file} {text.count(old)} times"
        text = text.replace(old, new)
    return text


def haproxy_changes(kind: Kind, one: Server, two: Server, port: int, idle: int, tls: Path | None) -> Changes:
    changes: Changes = {
        f"10.0.0.1{number}:8000 check port 9000": (f"127.0.0.1:{server.port} check port {server.internal_port}", 2)
        for number, server in ((1, one), (2, two))
    }
    web = f"bind 127.0.0.1:{port}" + (f" ssl crt {tls} alpn http/1.1" if tls else "")
    changes["    bind :80\n"] = (f"    {web if kind.reads_requests else f'bind 127.0.0.1:{idle}'}\n", 1)
    changes["    bind :8080\n"] = (f"    bind 127.0.0.1:{idle if kind.reads_requests else port}\n", 1)
    changes["log /dev/log local0"] = ("log stdout format raw local0", 1)
    # So short that what holds a silent connection is the tunnel's own.
    changes["timeout client 30s"] = ("timeout client 1s", 1)
    changes["timeout server 30s"] = ("timeout server 1s", 1)
    if kind.proxy_line:
        changes["send-proxy-v2"] = ("send-proxy", 1)
    return changes


def nginx_changes(one: Server, two: Server, port: int, folder: Path, tls: Path | None) -> Changes:
    listen = f"listen 127.0.0.1:{port};"
    if tls:
        listen = f"listen 127.0.0.1:{port} ssl; ssl_certificate {tls}; ssl_certificate_key {tls};"
    return {
        "10.0.0.11:8000": (f"127.0.0.1:{one.port}", 1),
        "10.0.0.12:8000": (f"127.0.0.1:{two.port}", 1),
        "        listen 80;\n": (f"        {listen}\n", 1),
        "/var/log/nginx/stentor.log": (str(folder / "access.log"), 1),
    }


@contextlib.contextmanager
def balancer(kind: Kind, one: Server, two: Server, folder: Path, tls: Path | None = None) -> Iterator[tuple[int, Path]]:
    """Run a balancer in the foreground; yields its port and where it logs."""
    path = program(kind.program)
    port, idle = free_ports(2)
    config, log = folder / kind.file, folder / "balancer.log"
    if kind.program == "haproxy":
        config.write_text(committed(kind.file, haproxy_changes(kind, one, two, port, idle, tls)))
        command = [path, "-db", "-f", str(config)]
    else:
        config.write_text(committed(kind.file, nginx_changes(one, two, port, folder, tls)))
        directives = f"daemon off; pid {folder}/nginx.pid;"
        command = [path, "-p", str(folder), "-c", str(config), "-e", str(log), "-g", directives]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: accepts(port) or process.poll() is not None, what=f"{kind.program} listens")
        assert process.poll() is None, log.read_text()
        yield port, log if kind.program == "haproxy" else folder / "access.log"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.asynccontextmanager
async def balanced(kind: Kind, folder: Path, *options: str) -> AsyncIterator[Balanced]:
    """Set two servers up behind a balancer."""
    with (
        serve(*TRUSTING, *options) as one,
        serve(*TRUSTING, *options) as two,
        balancer(kind, one, two, folder) as (port, log),
    ):
        async with Crowd(port) as crowd:
            yield Balanced(one, two, port, crowd, log)


async def assert_all_is_heard(clients: list[Client]) -> None:
    """Let the first of `clients`, who share a server, talk to all of them, and demand a clean account of each."""
    ledger = Ledger()
    accounts = [ledger.open_account(CHANNEL) for _ in clients]
    for client, account in zip(clients, accounts, strict=True):
        client.account = account
    await clients[0].publish(ledger, CHANNEL, rate=200, seconds=0.5, size=300)
    await eventually(lambda: not any(account.lost for account in accounts), 10, f"all is heard: {accounts}")
    ledger.assert_complete(accounts)
    for client in clients:
        client.account = None


@every_kind
async def test_clients_of_two_servers_behind_a_balancer(kind: Kind, tmp_path: Path) -> None:
    async with balanced(kind, tmp_path, "--max-connections-per-ip", "2") as on:
        descriptors = on.two.descriptors()
        crowded = [await on.join("127.0.2.1") for _ in range(4)]
        assert await on.open() == (2, 2), "least connections"
        assert await on.status("127.0.2.1", *FORGED) == 429, "the ceiling is the client's"
        clients = await on.join_many(10, start=1)
        assert await on.open() == (7, 7)
        assert await on.status("127.0.2.1") == 429
        for client in crowded:
            client.leave()
        await on.settled(5, 5)

        ones, twos = await on.on(on.one, clients), await on.on(on.two, clients)
        assert not set(ones) & set(twos)
        await assert_all_is_heard(ones)
        await assert_all_is_heard(twos)
        assert not any(client.is_gone for client in clients)

        # Who leaves makes room where it was.
        for client in ones[:4]:
            client.leave()
        await on.settled(1, 5)
        more = await on.join_many(4, start=21)
        assert await on.open() == (5, 5)
        for client in [*clients, *more]:
            client.leave()
        await on.settled(0, 0)
        seen = await on.addresses_seen(on.one) | await on.addresses_seen(on.two)
        assert seen == {"127.0.2.1", *(f"127.0.1.{number}" for number in (*range(1, 11), *range(21, 25)))}
        await Stage(on.two, on.crowd, Ledger(), descriptors).aftermath()


@every_kind
async def test_a_server_that_stops_gets_nobody_new(kind: Kind, tmp_path: Path) -> None:
    async with balanced(kind, tmp_path, "--drain-timeout", "8") as on:
        clients = await on.join_many(6, start=1)
        leaving = await on.on(on.one, clients)
        staying = [client for client in clients if client not in leaving]
        # One that does not answer the goodbye keeps the server waiting.
        leaving[0].answers_close = False
        on.one.process.terminate()
        await eventually(lambda: all(client.close_code == 1001 for client in leaving), 5, "everyone there is told")
        assert (await asyncio.to_thread(on.one.get, "/readyz"))[0] == 503
        assert on.one.process.poll() is None
        # At once, and when HAProxy, which asks, has been told.
        newcomers = await on.join_many(6, start=31)
        if kind is not NGINX:
            told = "one is DOWN, reason: Layer7 wrong status, code: 503"
            await eventually(lambda: told in on.log.read_text(), 10, "the balancer has asked")
        await asyncio.to_thread(on.one.process.wait, 15)
        assert on.one.process.returncode == 0
        newcomers += await on.join_many(6, start=41)
        metrics = await asyncio.to_thread(on.two.metrics)
        assert metrics['stentor_connections{dialect="raw"}'] == len(staying) + len(newcomers) == 15
        # Some have been silent for longer than the balancer waits for a request, or for an answer to one.
        await assert_all_is_heard([*newcomers, *staying])


@every_reader
async def test_when_all_are_full_the_client_is_told_so(kind: Kind, tmp_path: Path) -> None:
    async with (
        balanced(kind, tmp_path, "--max-connections", "1") as on,
        Crowd(on.one.port) as beside_one,
        Crowd(on.two.port) as beside_two,
    ):
        # Of these the balancer knows nothing.
        await beside_one.join()
        if kind is WEB:
            # It tries the other one, whosever turn it is.
            for number in (1, 2, 3):
                client = await on.join(f"127.0.1.{number}")
                client.leave()
                await on.settled(1, 0)
        await beside_two.join()
        for _ in range(4):
            assert await on.status("127.0.1.9") == 503


@every_reader
async def test_a_token_does_not_get_into_the_balancer_s_log(kind: Kind, tmp_path: Path) -> None:
    async with balanced(kind, tmp_path, "--auth", "token", "--tokens", "s3cret") as on:
        client = await on.join("127.0.1.1", path="/ws/logged?token=s3cret")
        client.leave()
        await eventually(lambda: "/ws/logged" in on.log.read_text(), 10, "the end of the connection is logged")
        assert "127.0.1.1" in on.log.read_text()
        assert "s3cret" not in on.log.read_text()


@every_reader
async def test_the_same_origin_behind_a_balancer_that_ends_tls(kind: Kind, tmp_path: Path) -> None:
    key = keyring.ec_key()
    pair = tmp_path / "pair.pem"
    pair.write_text(keyring.certificate(key) + keyring.private_pem(key))
    trusting = ssl.create_default_context(cafile=str(pair))
    with serve(*TRUSTING) as one, serve(*TRUSTING) as two, balancer(kind, one, two, tmp_path, pair) as (port, _):

        async def status(origin: str) -> int:
            # What the client says of its scheme is not passed on.
            fields = [f"Origin: {origin}", "X-Forwarded-Proto: http"]
            try:
                return (await lifecycle.connect(port, "/ws", fields, tls=trusting)).status
            finally:
                await lifecycle.cut_everyone_off()

        host = "127.0.0.1:8000"  # as the client writes it
        assert await status(f"https://{host}") == 101
        assert await status(f"http://{host}") == 403
        assert await status("https://evil.example") == 403
