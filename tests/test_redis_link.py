"""Connections that come back: how long they wait, what they say about it, and how they are opened."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.brokers.redis import Address, parse
from server.brokers.redis.connection import Connection, Reply, connect, credentials
from server.brokers.redis.link import Backoff, Link
from tests.redis_nodes import KEPT, node, until
from tests.redis_server import RedisServer, free_port

SOON = Backoff(0.01, 0.05)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer(password="s3cret") as server:
        yield server


class Counted:
    """A backoff that counts how often it was asked."""

    least, most = SOON.least, SOON.most

    def __init__(self) -> None:
        self.tries = 0

    def delay(self, tries: int, luck: float) -> float:
        self.tries += 1
        return SOON.delay(tries, luck)


class Kept:
    """A link, and what it told."""

    def __init__(self, url: str | Address, patience: float = 2.0) -> None:
        self.told: list[object] = []
        self.is_of_use = True
        self.backoff = Counted()
        address = url if isinstance(url, Address) else parse(url)[0]
        self.link = Link(
            "test",
            address,
            opening=lambda: [("ECHO", "hello")],
            up=self.up,
            down=lambda: self.told.append("down"),
            patience=patience,
            backoff=self.backoff,
        )

    def up(self, connection: Connection, replies: list[Reply]) -> None:
        self.told.append(replies)
        if self.is_of_use:
            self.link.confirm()


def test_the_delay_doubles_to_its_most_with_luck() -> None:
    backoff = Backoff(0.1, 3.0)
    assert [backoff.delay(tries, 1.0) for tries in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0]
    assert backoff.delay(3, 0.0) == 0.4
    assert backoff.delay(10_000, 0.5) == 2.25


async def test_it_opens_and_comes_back_until_it_is_stopped(redis: RedisServer) -> None:
    kept = Kept(f"redis://:s3cret@127.0.0.1:{redis.port}/3")
    kept.link.start()
    kept.link.start()
    await until(lambda: len(kept.told) == 1)
    for times in (1, 2, 3):
        kept.link.drop("for a test")
        await until(lambda times=times: len(kept.told) == 2 * times + 1)
    await kept.link.stop()
    await kept.link.stop()
    assert kept.told == [[b"hello"], "down"] * 4
    assert kept.link.reconnects == 3


async def test_a_user_without_a_password_is_that_user(redis: RedisServer) -> None:
    redis.ask("ACL", "SETUSER", "ann", "on", "nopass", "+@all")
    address = parse(f"redis://ann@127.0.0.1:{redis.port}")[0]
    connection = await connect(address, lambda: None, patience=2.0)
    try:
        assert (await connection.open([*credentials(address), ("ACL", "WHOAMI")]))[-1] == b"ann"
    finally:
        connection.abort()
        await connection.ended


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("redis://:wrong@127.0.0.1:{port}", "it refuses us: WRONGPASS"),
        ("redis://127.0.0.1:{port}", "it refuses us: NOAUTH"),
        ("redis://127.0.0.1:{other}", "cannot be reached"),
    ],
)
async def test_who_is_refused_tries_again_and_says_so_once_without_secrets(
    redis: RedisServer, address: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(address.format(port=redis.port, other=free_port()))
    kept.link.start()
    await until(lambda: kept.backoff.tries == 5)
    await kept.link.stop()
    assert kept.told == []
    [record] = caplog.records
    assert words in record.getMessage()
    assert "wrong@" not in record.getMessage()
    assert kept.link.trouble == record.getMessage()


async def test_a_connection_that_is_of_no_use_does_not_end_an_outage(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(f"redis://:s3cret@127.0.0.1:{redis.port}")
    kept.is_of_use = False
    kept.link.start()
    for tries in range(1, 5):
        await until(lambda tries=tries: len(kept.told) == 2 * tries - 1)
        kept.link.refused("NOPERM not for you" if tries > 1 else "LOADING")
        kept.link.refused("NOPERM not for you")
        await until(lambda tries=tries: len(kept.told) == 2 * tries)
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said == ["it refuses us: LOADING", "it refuses us: NOPERM not for you"], "each kind once"
    assert kept.link.trouble.endswith("NOPERM not for you")
    assert kept.link.reconnects == -1
    kept.is_of_use = True
    await until(lambda: not kept.link.trouble)
    kept.link.confirm()
    assert kept.link.reconnects == 0
    assert [record.getMessage().partition(": ")[2] for record in caplog.records[2:]] == ["connected again"]
    await kept.link.stop()


async def test_it_is_said_why_redis_refuses_also_after_the_connection_was_lost(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(f"redis://:s3cret@127.0.0.1:{redis.port}")
    kept.link.start()
    await until(lambda: kept.told)
    kept.is_of_use = False
    assert kept.link._connection is not None
    kept.link._connection.abort()
    await until(lambda: len(kept.told) == 3)
    kept.link.refused("NOPERM")
    await until(lambda: len(kept.told) == 5)
    await kept.link.stop()
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said == ["cannot be reached: the connection was lost", "it refuses us: NOPERM"]


async def test_what_nobody_foresaw_is_logged_once_and_does_not_end_the_trying(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = Kept(Address("a..b"))  # no name for an encoder of names: a UnicodeError, which is no OSError
    kept.link.start()
    await until(lambda: kept.backoff.tries == 5)
    await kept.link.stop()
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert "cannot be reached" in kept.link.trouble


async def test_a_fault_of_its_owner_ends_the_connection_and_not_the_trying(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(f"redis://:s3cret@127.0.0.1:{redis.port}")

    def fail(connection: Connection, replies: list[Reply]) -> None:
        kept.told.append("up")
        raise ZeroDivisionError("for a test")

    kept.link._up = fail
    kept.link.start()
    await until(lambda: kept.told == ["up", "down"] * 3)
    await kept.link.stop()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_who_does_not_answer_is_given_up() -> None:
    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: accepted.append(writer), "127.0.0.1", 0)
    kept = Kept(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", patience=0.1)
    kept.link.start()
    await until(lambda: len(accepted) >= 3)
    await kept.link.stop()
    assert kept.told == []
    for writer in accepted:
        writer.close()
    server.close()


async def test_who_makes_no_sense_is_given_up() -> None:
    accepted = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    kept = Kept(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    kept.link.start()
    await until(lambda: accepted >= 3)
    await kept.link.stop()
    assert kept.told == []
    server.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a certificate for localhost; its key is beside it."""
    file = tmp_path / "certificate.pem"
    subprocess.run(
        ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(file.with_suffix(".key")), "-out", str(file)),
        check=True, capture_output=True,
    )  # fmt: skip
    return file


async def test_over_tls_and_only_with_an_authority_that_is_trusted(
    certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, key = free_port(), certificate.with_suffix(".key")
    options = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with RedisServer(*options, "--tls-auth-clients", "no", "--tls-ca-cert-file", str(certificate)):
        async with node(f"rediss://127.0.0.1:{port}?ca={certificate}") as a:
            await a.subscribe("news")
            await a.publish("news", b"secret", KEPT)
            await until(lambda: a.ear.heard)
        assert not caplog.records
        async with node(f"rediss://127.0.0.1:{port}", must_be_up=False) as untrusting:
            await until(lambda: sum("cannot be reached" in record.message for record in caplog.records) == 2)
            assert not untrusting.broker.is_up
