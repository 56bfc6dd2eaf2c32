"""TLS with a Redis: what is wrong is said in words that help, files may be renewed, and giving up leaves no noise."""

from __future__ import annotations

import asyncio
import datetime
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.brokers.redis import parse
from server.brokers.redis.address import Tls
from server.brokers.redis.connection import Refused, connect
from server.brokers.redis.tls import TlsFault, context
from server.doctor.broker import brokers
from tests import keyring
from tests.authority import Authority, Papers
from tests.redis_nodes import KEPT, node, until
from tests.redis_server import RedisServer

LONG_AGO = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)


class TlsServer(RedisServer):
    """A redis-server that speaks nothing but TLS, and wants to see a certificate."""

    def __init__(self, papers: Papers, *options: str) -> None:
        super().__init__()
        self._options = ("--port", "0", "--tls-port", str(self.port), *papers.redis_options(), *options)


@dataclass
class Place:
    """Servers, and what there is to show them."""

    folder: Path
    ours: Authority
    theirs: Authority
    papers: Papers
    stranger: Papers
    redis: TlsServer
    expired: TlsServer
    older: TlsServer
    clear: RedisServer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    papers, stranger = ours.issue("node", "127.0.0.1"), theirs.issue("stranger", "127.0.0.1")
    expired = ours.issue("expired", "127.0.0.1", ends=LONG_AGO)
    (folder / "secret.key").write_text(keyring.private_pem(keyring.ec_key(), b"a password"))
    with (
        TlsServer(papers) as redis,
        TlsServer(expired) as late,
        TlsServer(papers, "--tls-protocols", "TLSv1.2") as older,
        RedisServer() as clear,
    ):
        yield Place(folder, ours, theirs, papers, stranger, redis, late, older, clear)


async def test_both_sides_show_who_they_are(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    for redis in (place.redis, place.older):
        async with node(f"rediss://127.0.0.1:{redis.port}?{place.papers.query()}") as a:
            await a.subscribe("news")
            await a.publish("news", b"secret" * 100_000, KEPT)
            await until(lambda a=a: a.ear.heard)
            assert len((await a.history("news")).publications) == 1
    assert not caplog.records


NOT_TRUSTED = "its certificate is not accepted: self-signed certificate in certificate chain; ca= in the address names"
URLS: dict[str, Callable[[Place], str]] = {
    NOT_TRUSTED: lambda place: f"rediss://127.0.0.1:{place.redis.port}?ca={place.theirs.file}",
    f"{NOT_TRUSTED} the authority to trust": lambda place: f"rediss://127.0.0.1:{place.redis.port}",
    "its certificate is not accepted: Hostname mismatch, certificate is not valid for 'localhost'": lambda place: (
        f"rediss://localhost:{place.redis.port}?{place.papers.query()}"
    ),
    "its certificate is not accepted: certificate has expired": lambda place: (
        f"rediss://127.0.0.1:{place.expired.port}?{place.papers.query()}"
    ),
    "it wants to see a certificate of ours: give cert= and key= in the address": lambda place: (
        f"rediss://127.0.0.1:{place.redis.port}?ca={place.ours.file}"
    ),
    "handshake failure; it may want to see a certificate of ours, cert= and key=": lambda place: (
        f"rediss://127.0.0.1:{place.older.port}?ca={place.ours.file}"
    ),
    "it does not accept our certificate, cert= in the address: tlsv1 alert unknown ca": lambda place: (
        f"rediss://127.0.0.1:{place.redis.port}?ca={place.ours.file}"
        f"&cert={place.stranger.cert}&key={place.stranger.key}"
    ),
    "it does not answer in TLS: it hangs, or the port is not one for TLS": lambda place: (
        f"rediss://127.0.0.1:{place.clear.port}?{place.papers.query()}"
    ),
    "Redis has ended the connection without a word; if it wants TLS, its address is rediss://": lambda place: (
        f"redis://127.0.0.1:{place.redis.port}"
    ),
    "ca=/nowhere.pem: no such file or directory": lambda place: "rediss://127.0.0.1:1?ca=/nowhere.pem",
    "node.key: no certificate or crl found": lambda place: f"rediss://127.0.0.1:1?ca={place.papers.key}",
    "key values mismatch": lambda place: (
        f"rediss://127.0.0.1:1?ca={place.ours.file}&cert={place.papers.cert}&key={place.stranger.key}"
    ),
    "secret.key: not pem, or an encrypted key": lambda place: (
        f"rediss://127.0.0.1:1?ca={place.ours.file}&cert={place.papers.cert}&key={place.folder}/secret.key"
    ),
}


@pytest.mark.parametrize(("words", "url"), URLS.items(), ids=URLS)
async def test_the_log_and_the_doctor_say_what_is_wrong(
    words: str, url: Callable[[Place], str], place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(url(place), must_be_up=False) as a:
        await until(lambda: sum(words in record.getMessage() for record in caplog.records) == 2)
        assert not a.broker.is_up
    assert len(caplog.records) == 2, "a line for each of its connections"
    [finding] = [finding async for finding in brokers(url(place), 1)]
    assert words in finding.advice


def test_files_are_read_again_when_they_have_changed_and_only_then(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    papers = authority.issue("node", "127.0.0.1")
    tls = Tls(str(papers.ca), str(papers.cert), str(papers.key))
    first = context(tls)
    assert context(tls) is first
    assert context(Tls()) is context(Tls()), "the system's authorities take a tenth of a second"
    authority.issue("node", "127.0.0.1")
    renewed = context(tls)
    assert renewed is not first
    papers.cert.unlink()
    with pytest.raises(TlsFault, match=r"cert=.*node\.pem, key=.*: no such file"):
        context(tls)
    authority.issue("node", "127.0.0.1")
    assert context(tls) is not renewed


async def test_giving_up_while_it_connects_leaves_no_noise(place: Place) -> None:
    """What create_connection() with TLS does on uvloop when it is cancelled: it reports an error to nobody."""
    loop = asyncio.get_running_loop()
    noise: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: noise.append(context))
    for query in (f"ca={place.theirs.file}", place.papers.query()):
        [address] = parse(f"rediss://127.0.0.1:{place.redis.port}?{query}")
        given_up = 0
        for moment in range(150):
            task = asyncio.create_task(connect(address, lambda: None, 5.0))
            loop.call_later(moment * 40e-6, task.cancel)
            await asyncio.gather(task, return_exceptions=True)
            given_up += task.cancelled()
            if not task.cancelled() and not task.exception():
                task.result().abort()
        gc.collect()
        assert given_up > 10, "the fault has not happened"
    await until(lambda: place.redis.ask("INFO", "clients")["connected_clients"] == 1)
    gc.collect()
    assert noise == []


async def test_one_that_has_no_room_for_us_is_quoted() -> None:
    with RedisServer("--maxclients", "1") as full:
        [address] = parse(full.url)
        first = await connect(address, lambda: None, 5.0)
        await first.open([("PING",)])
        second = await connect(address, lambda: None, 5.0)
        with pytest.raises(Refused, match="max number of clients reached"):
            await second.open([("PING",), ("PING",)])
        first.abort()
        await asyncio.wait((first.ended, second.ended))
