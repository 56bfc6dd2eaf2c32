"""The same server behind TLS: handshakes, the fan-out, laggards, the drain."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import keyring
from tests.harness import Server, serve, wait_until
from tests.lifecycle.crowd import (
    all_heard,
    assert_nothing_lost,
    connect,
    connect_many,
    gone,
    publishing,
    until,
)
from tests.wire import close, request

HALVES = 50


@dataclass
class Certificate:
    options: tuple[str, ...]
    trusting: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("tls")
    key = keyring.ec_key()
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_text(keyring.certificate(key))
    private.write_text(keyring.private_pem(key))
    return Certificate(
        ("--tls-cert", str(chain), "--tls-key", str(private)), ssl.create_default_context(cafile=str(chain))
    )


@pytest.fixture(scope="module")
def server(certificate: Certificate) -> Iterator[Server]:
    with serve(*certificate.options) as running:
        yield running


def test_the_end_of_the_certificate_is_on_the_metrics_page(server: Server) -> None:
    ends = server.metrics()["stentor_tls_certificate_expiry_timestamp_seconds"]
    assert ends == datetime.datetime(2119, 12, 8, tzinfo=datetime.UTC).timestamp()


async def test_the_fan_out(server: Server, certificate: Certificate) -> None:
    assert server.url.startswith("https://")
    clients = await connect_many(50, server.port, "/ws/tls", tls=certificate.trusting)
    async with publishing(server, "/ws/tls", rate=100, size=2000, tls=certificate.trusting) as publisher:
        await until(lambda: publisher.said >= 100)
    await all_heard(clients, through=publisher.said - 1)
    assert_nothing_lost(clients, through=publisher.said - 1)
    assert clients[0].transport.get_extra_info("cipher")[1] in ("TLSv1.2", "TLSv1.3")


async def test_an_origin_over_tls_is_https(server: Server, certificate: Certificate) -> None:
    async def status(scheme: str) -> int:
        origin = f"Origin: {scheme}://127.0.0.1:8000"
        return (await connect(server.port, "/ws", [origin], tls=certificate.trusting)).status

    assert await status("https") == 101
    assert await status("http") == 403


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("version", "spoken"), [("TLSv1_1", None), ("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")])
def test_versions(server: Server, version: str, spoken: str | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # this side would
    context.minimum_version = ssl.TLSVersion[version]
    context.maximum_version = ssl.TLSVersion[version]
    found = None
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock,
        contextlib.suppress(OSError),
        context.wrap_socket(sock) as wrapped,
    ):
        found = wrapped.version()
    assert found == spoken


async def test_who_does_not_speak_tls_is_cut_off_and_harms_nobody(server: Server, certificate: Certificate) -> None:
    client = await connect(server.port, "/ws/other", tls=certificate.trusting)
    plain = await connect(server.port)
    assert plain.status == 0
    await gone([plain])
    client.say("still here")
    await until(lambda: client.heard)
    assert "Traceback" not in server.log_text()


@pytest.mark.scenario
async def test_half_handshakes_are_gone_in_time(certificate: Certificate) -> None:
    with serve("--open-timeout", "1", *certificate.options) as server:
        await connect(server.port, tls=certificate.trusting)
        at_start = server.descriptors()
        sockets = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(HALVES)]
        start = time.monotonic()
        await asyncio.to_thread(wait_until, lambda: server.descriptors() >= at_start + HALVES, 1)
        client = await connect(server.port, tls=certificate.trusting)
        assert client.status == 101
        await asyncio.to_thread(wait_until, lambda: server.descriptors() <= at_start + 1, 30)
        waited = time.monotonic() - start
        for sock in sockets:
            sock.close()
        log = server.log_text()
    print(f"{HALVES} half TLS handshakes: the last gone after {waited:.2f} s")
    assert waited <= 2.0
    assert "Traceback" not in log
    assert len(log.splitlines()) < 20


@pytest.mark.scenario
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--write-timeout", "2", "--queue-messages", "100000", "--queue-bytes", "256MiB"), "write timeout"),
        (("--write-timeout", "60", "--queue-messages", "100"), "queue full"),
    ],
)
async def test_a_stalled_client_is_evicted(certificate: Certificate, options: tuple[str, ...], reason: str) -> None:
    with serve(*options, *certificate.options) as server:
        clients = await connect_many(10, server.port, tls=certificate.trusting)
        at_start = server.descriptors()
        stalled = await connect(server.port, tls=certificate.trusting, receive_buffer=4096)
        stalled.stop_reading()
        async with publishing(server, rate=50, size=16_000, tls=certificate.trusting) as publisher:
            start = time.monotonic()
            await asyncio.to_thread(wait_until, lambda: server.metrics()["stentor_slow_disconnects_total"], 30)
            evicted = time.monotonic() - start
            # The publisher is still connected.
            await asyncio.to_thread(wait_until, lambda: server.descriptors() <= at_start + 1, 30)
            released = time.monotonic() - start
        await all_heard(clients, through=publisher.said - 1)
        metrics = await asyncio.to_thread(server.metrics)
        disconnects = (await asyncio.to_thread(server.get_json, "/debug/disconnects"))["disconnects"]
        stalled.transport.abort()
        log = server.log_text()
    print(f"{reason}: evicted after {evicted:.2f} s, its descriptor gone after {released:.2f} s")
    assert_nothing_lost(clients, through=publisher.said - 1)
    metrics.assert_balanced()
    assert [(entry["code"], entry["reason"]) for entry in disconnects] == [(1013, reason)]
    assert metrics["stentor_slow_disconnects_total"] == 1
    assert metrics["stentor_lagging_clients"] == 0
    assert released - evicted <= 3.0
    assert "Traceback" not in log


@pytest.mark.scenario
def test_a_client_that_does_not_end_tls_holds_up_nothing(certificate: Certificate) -> None:
    """It answers the close frame, and then neither closes the socket nor answers the end of TLS (RFC 8446, 6.1)."""
    with serve("--drain-timeout", "2", *certificate.options) as server:
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        with certificate.trusting.wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(request())
            assert b" 101 " in sock.recv(1024)
            start = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert sock.recv(1024).startswith(b"\x88")
            sock.sendall(close(1001))
            assert server.process.wait(40) == 0
            took = time.monotonic() - start
    print(f"exit 0 after {took:.2f} s")
    assert took < 4


@pytest.mark.scenario
async def test_the_drain(certificate: Certificate) -> None:
    with serve("--drain-timeout", "3", *certificate.options) as server:
        clients = await connect_many(30, server.port, tls=certificate.trusting)
        stalled = await connect(server.port, tls=certificate.trusting, receive_buffer=4096)
        stalled.stop_reading()
        half = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await gone(clients)
        assert await asyncio.to_thread(server.process.wait, 20) == 0
        took = time.monotonic() - start
        half.close()
        stalled.transport.abort()
        log = server.log_text()
    assert {client.close_code for client in clients} == {1001}
    assert took < 5
    assert "Traceback" not in log
