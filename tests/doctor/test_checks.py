"""What is thought of what was seen, and how many clients fit: on machines and settings made up for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from server.config import Settings
from server.doctor import capacity, checks
from server.doctor.capacity import Bound, bounds
from server.doctor.certificate import certificate
from server.doctor.finding import Finding, Verdict, count, size
from server.doctor.machine import UNLIMITED, Machine
from tests import keyring

GIB = 1024**3
USUAL = Machine(
    files_soft=65536,
    files_hard=65536,
    files_at_most=1048576,
    files_of_all=2000000,
    files_in_use=1000,
    memory_available=4 * GIB,
    processors=4,
    accept_queue=4096,
    handshake_queue=2048,
    ports=(32768, 60999),
    tcp_memory=(GIB // 4, GIB // 3, GIB // 2),
    send_buffer=(4096, 16384, 4194304),
    receive_buffer=(4096, 131072, 6291456),
)


def settings(**options: Any) -> Settings:
    return Settings.model_validate({"max_connections": 1000, **options})


Check = Callable[[Machine, Settings], Finding]
BY_MACHINE: Mapping[str, Check] = {
    "open files": lambda machine, _: checks.open_files(machine),
    "files of all processes": lambda machine, _: checks.files_of_all(machine),
    "memory": checks.free_memory,
    "processors": checks.processors,
    "accept queue": checks.accept_queue,
    "half-open connections": lambda machine, _: checks.handshake_queue(machine),
    "local ports": checks.ports,
    "TCP memory": lambda machine, _: checks.tcp_memory(machine),
    "send buffer": lambda machine, _: checks.send_buffer(machine),
    "receive buffer": lambda machine, _: checks.receive_buffer(machine),
}


def test_a_usual_machine_has_nothing_to_do() -> None:
    found = list(checks.of_machine(USUAL, settings()))
    assert [finding.check for finding in found] == list(BY_MACHINE)
    assert {finding.verdict for finding in found} == {Verdict.OK}
    assert {finding.advice for finding in found} == {""}


@pytest.mark.parametrize("check", BY_MACHINE)
def test_what_cannot_be_seen_is_said(check: str) -> None:
    finding = BY_MACHINE[check](Machine(), settings())
    assert (finding.check, finding.verdict) == (check, Verdict.UNSEEN)
    assert finding.advice


@pytest.mark.parametrize(
    ("check", "machine", "options", "value", "advice"),
    [
        ("open files", {"files_soft": 1024}, {}, "soft 1,024, hard 65,536", "ulimit -n 65536 "),
        ("open files", {"files_hard": UNLIMITED}, {}, "soft 65,536, hard unlimited", "LimitNOFILE=1048576 "),
        ("files of all processes", {"files_in_use": 1900000}, {}, "1,900,000 of 2,000,000 in use", "fs.file-max"),
        ("processors", {}, {"workers": 5}, "4 for 5 workers", "Lower workers to 4,"),
        ("processors", {"processor_quota": 2.5}, {"workers": 3}, "2.5 by the control group's quota", "workers to 2,"),
        ("processors", {"processor_quota": 0.5}, {}, "0.5 by the control group's quota", "Lower workers to 1"),
        ("accept queue", {"accept_queue": 128}, {}, "somaxconn 128, backlog 4,096", "net.core.somaxconn=4096"),
        ("half-open connections", {"handshake_queue": 128}, {}, "128", "tcp_max_syn_backlog"),
        (
            "local ports",
            {},
            {"trusted_proxies": ("10.0.0.1", "10.0.0.2"), "max_connections": 60000},
            "32768 to 60999: 28,232 for each pair of addresses",
            "56,464 from those in trusted_proxies",
        ),
        ("send buffer", {"send_buffer": (4096, 16384, 65536)}, {}, "at most 64 KiB", "tcp_wmem"),
    ],
)
def test_what_is_advised(check: str, machine: dict[str, Any], options: dict[str, Any], value: str, advice: str) -> None:
    finding = BY_MACHINE[check](replace(USUAL, **machine), settings(**options))
    assert finding.verdict == Verdict.WARNING
    assert value in finding.value
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("check", "machine", "options"),
    [
        ("open files", {"files_soft": UNLIMITED, "files_hard": UNLIMITED}, {}),
        ("processors", {"processor_quota": 8.0}, {"workers": 4}),
        ("accept queue", {"accept_queue": 128}, {"backlog": 128}),
        ("local ports", {}, {"trusted_proxies": ("10.0.0.0/24",), "max_connections": 60000}),
        ("local ports", {}, {"max_connections": 60000}),
    ],
)
def test_what_is_well_as_it_is(check: str, machine: dict[str, Any], options: dict[str, Any]) -> None:
    assert BY_MACHINE[check](replace(USUAL, **machine), settings(**options)).verdict == Verdict.OK


def test_queues_that_do_not_fit_into_memory_are_bad() -> None:
    finding = checks.free_memory(replace(USUAL, memory_left_by_group=200 * 1024**2), settings())
    assert finding.verdict == Verdict.BAD
    assert finding.value.startswith("200 MiB free under the control group's limit; 326 MiB for the server")
    assert "lower node_queue_bytes (256 MiB)" in finding.advice


def test_a_firewall_that_is_near_its_end() -> None:
    finding = checks.tracking(Machine(tracked_at_most=1000, tracked=900))
    assert (finding.verdict, finding.value) == (Verdict.WARNING, "900 of 1,000 in use")
    assert checks.tracking(Machine(tracked_at_most=1000, tracked=9)).verdict == Verdict.OK


@pytest.mark.parametrize(
    ("options", "check", "advice"),
    [
        ({"ping_interval": 55.0}, "pings", "lower ping_interval under 55"),
        ({"allowed_origins": "*"}, "access", "Any web page"),
        ({"host": "0.0.0.0"}, "access", "Whoever reaches the public port can publish"),
        ({"tokens": ("x",)}, "configuration", "tokens has no effect"),
    ],
)
def test_settings_that_want_a_word(options: dict[str, Any], check: str, advice: str) -> None:
    [finding] = [each for each in checks.of_settings(settings(**options)) if each.verdict != Verdict.OK]
    assert (finding.check, finding.verdict) == (check, Verdict.WARNING)
    assert advice in finding.advice


@pytest.mark.parametrize("options", [{}, {"ping_interval": 54.9}, {"host": "0.0.0.0", "publish": False}])
def test_settings_that_want_none(options: dict[str, Any]) -> None:
    assert {each.verdict for each in checks.of_settings(settings(**options))} == {Verdict.OK}


def test_how_long_a_round_takes() -> None:
    assert checks.round_of_all(1000, 1) == Finding("fan-out", "9 ms from the first to the last of all on one channel")
    slow = checks.round_of_all(20000, 2)
    assert slow.value.startswith("90 ms ")
    assert "With 11,111 it takes 50 ms" in slow.advice


# How many fit


@pytest.mark.parametrize(
    ("machine", "options", "limit"),
    [
        ({}, {}, "open files"),
        ({"memory_available": GIB}, {}, "memory"),
        ({"memory_left_by_group": GIB}, {}, "memory"),
        ({"files_of_all": 10000}, {}, "open files of all processes"),
        ({"tracked_at_most": 3000}, {}, "connection tracking"),
    ],
)
def test_the_limit_that_binds_first(machine: dict[str, Any], options: dict[str, Any], limit: str) -> None:
    assert bounds(replace(USUAL, **machine), settings(**options))[0].limit == limit


def test_how_many_fit_is_reckoned_from_what_was_measured() -> None:
    found = {bound.limit: bound.clients for bound in bounds(replace(USUAL, tracked_at_most=9000), settings(workers=2))}
    queues, processes = 2 * 268435456, 3 * 70 * 1024**2
    assert found == {
        "open files": 2 * (65536 - 64),
        "open files of all processes": 2000000 - 1000 - 2 * 64,
        "memory": (4 * GIB - queues - processes) // round(12.4 * 1024),
        "connection tracking": 9000,
    }


def test_an_unlimited_machine_is_bound_by_what_a_process_may_open() -> None:
    machine = Machine(files_soft=UNLIMITED, files_hard=UNLIMITED, files_at_most=1048576, files_of_all=UNLIMITED)
    assert bounds(machine, settings()) == [Bound("open files", 1048576 - 64)]


def test_nothing_seen_is_nothing_reckoned() -> None:
    assert bounds(Machine(), settings()) == []


def test_no_room_is_no_clients_and_not_less() -> None:
    starved = replace(USUAL, memory_available=1, files_soft=10, tracked_at_most=1, tracked=5)
    assert [bound.clients for bound in bounds(starved, settings())][:3] == [0, 0, 0]


def test_a_client_of_tls_costs_more(tmp_path: Path) -> None:
    key = keyring.ec_key()
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_text(keyring.certificate(key))
    key_file.write_text(keyring.private_pem(key))
    assert capacity.cost(settings(tls_cert=cert_file, tls_key=key_file)) == capacity.cost(settings()) + 24 * 1024


def test_what_the_settings_let_in() -> None:
    assert capacity.wanted(USUAL, settings(workers=3), is_default=False) == 3000
    assert capacity.wanted(USUAL, settings(workers=3), is_default=True) == 3 * (65536 - 64)
    assert capacity.wanted(Machine(), settings(), is_default=True) == 1000


# Certificates


@pytest.mark.parametrize(
    ("left", "verdict", "advice"),
    [
        (timedelta(days=365000), Verdict.BAD, "It holds from"),
        (timedelta(days=22), Verdict.OK, ""),
        (timedelta(days=20, hours=1), Verdict.WARNING, "It ends in 20 days: renew it"),
        (timedelta(0), Verdict.BAD, "It has ended"),
    ],
)
def test_when_a_certificate_ends(tmp_path: Path, left: timedelta, verdict: Verdict, advice: str) -> None:
    file = tmp_path / "cert.pem"
    file.write_text(keyring.certificate(keyring.ec_key()))
    ends = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    finding = certificate(file, max(ends - left, datetime(1, 1, 2, tzinfo=UTC)))
    assert (finding.verdict, finding.value) == (verdict, f"until {ends:%Y-%m-%d}, for localhost")
    assert advice in finding.advice


def test_a_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert certificate(file, datetime(2026, 1, 1, tzinfo=UTC)).verdict == Verdict.UNSEEN


# Words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (268435456, "256 MiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (2**41, "2 TiB"),
    ],
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


def test_counts() -> None:
    assert count(1234567) == "1,234,567"
