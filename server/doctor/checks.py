"""What is looked at on the machine and in the settings, one function for each. Pure: what was read is handed in.

Advice is an instruction that can be followed as it stands, or a sentence that says what will happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from server.config import is_loopback
from server.doctor import capacity
from server.doctor.finding import Finding, Verdict, count, size, unseen
from server.doctor.machine import UNLIMITED, Machine

if TYPE_CHECKING:
    from server.config import Settings

# Load balancers and other things on the way commonly cut what is idle for a minute.
USUAL_IDLE_TIMEOUT: Final = 60.0
LATEST_PING: Final = 55.0
# Under it a node under attack, or after a restart, is out of room for half-open connections at once.
SMALL_HANDSHAKE_QUEUE: Final = 1024
# A publication's way through all clients of a worker, above which it is felt.
SLOW_ROUND: Final = 0.05


def of_machine(machine: Machine, settings: Settings) -> Iterator[Finding]:
    """Look at everything that the kernel has a say in."""
    yield open_files(machine)
    yield files_of_all(machine)
    yield free_memory(machine, settings)
    yield processors(machine, settings)
    yield accept_queue(machine, settings)
    yield handshake_queue(machine)
    yield ports(machine, settings)
    yield tcp_memory(machine)
    yield send_buffer(machine)
    yield receive_buffer(machine)
    if machine.tracked_at_most is not None:
        yield tracking(machine)


def of_settings(settings: Settings) -> Iterator[Finding]:
    """Look at what the settings say of the world around."""
    yield pings(settings)
    yield origins(settings)
    for sentence in settings.warnings():
        yield Finding("configuration", "", Verdict.WARNING, sentence)


def open_files(machine: Machine) -> Finding:
    soft, hard = machine.files_soft, machine.files_hard
    if soft is None or hard is None:
        return unseen("open files")
    value = f"soft {_limit(soft)}, hard {_limit(hard)}"
    ceiling = min(hard, machine.files_at_most or UNLIMITED)
    if soft < ceiling:
        advice = f"ulimit -n {ceiling} before the start, or LimitNOFILE={ceiling} in the systemd unit."
        return Finding("open files", value, Verdict.WARNING, advice)
    return Finding("open files", value)


def files_of_all(machine: Machine) -> Finding:
    most, used = machine.files_of_all, machine.files_in_use
    if most is None or used is None:
        return unseen("files of all processes")
    value = f"{count(used)} of {_limit(most)} in use"
    if used > 0.8 * most:
        advice = "Raise fs.file-max: sysctl -w fs.file-max=NUMBER."
        return Finding("files of all processes", value, Verdict.WARNING, advice)
    return Finding("files of all processes", value)


def free_memory(machine: Machine, settings: Settings) -> Finding:
    available = capacity.memory(machine)
    if available is None:
        return unseen("memory")
    whose = " under the control group's limit" if available == machine.memory_left_by_group else ""
    fixed, each = capacity.fixed_memory(settings), capacity.cost(settings)
    value = f"{size(available)} free{whose}; {size(fixed)} for the server, {size(each)} a client"
    if fixed > available:
        advice = f"What may wait for laggards does not fit: lower node_queue_bytes ({size(settings.node_queue_bytes)})."
        return Finding("memory", value, Verdict.BAD, advice)
    return Finding("memory", value)


def processors(machine: Machine, settings: Settings) -> Finding:
    cores = machine.processors
    if cores is None:
        return unseen("processors")
    quota = machine.processor_quota
    have = cores if quota is None else min(cores, quota)
    value = f"{have:g}" + (" by the control group's quota" if quota is not None and quota < cores else "")
    value += f" for {settings.workers} worker" + ("s" if settings.workers > 1 else "")
    if settings.workers > have:
        return Finding(
            "processors", value, Verdict.WARNING, f"Lower workers to {max(1, int(have))}, or add processors."
        )
    if quota is not None and quota < 1:
        advice = "With less than one processor the process is stopped now and then, and everyone waits for it."
        return Finding("processors", value, Verdict.WARNING, advice)
    return Finding("processors", value)


def accept_queue(machine: Machine, settings: Settings) -> Finding:
    most = machine.accept_queue
    if most is None:
        return unseen("accept queue")
    value = f"somaxconn {count(most)}, backlog {count(settings.backlog)}"
    if most < settings.backlog:
        advice = (
            f"The kernel holds {count(most)} only: sysctl -w net.core.somaxconn={settings.backlog}, or lower backlog."
        )
        return Finding("accept queue", value, Verdict.WARNING, advice)
    return Finding("accept queue", value)


def handshake_queue(machine: Machine) -> Finding:
    most = machine.handshake_queue
    if most is None:
        return unseen("half-open connections")
    if most < SMALL_HANDSHAKE_QUEUE:
        advice = "Connects of many clients at once are answered late: sysctl -w net.ipv4.tcp_max_syn_backlog=4096."
        return Finding("half-open connections", count(most), Verdict.WARNING, advice)
    return Finding("half-open connections", count(most))


def ports(machine: Machine, settings: Settings) -> Finding:
    if machine.ports is None:
        return unseen("local ports")
    low, high = machine.ports
    number = max(0, high - low + 1)
    value = f"{low} to {high}: {count(number)} for each pair of addresses"
    proxies = [ip_network(proxy) for proxy in settings.trusted_proxies]
    addresses = sum(proxy.num_addresses for proxy in proxies)
    if proxies and addresses * number < settings.max_connections:
        advice = (
            f"A proxy with a range like this one opens {count(number)} connections from one address to one port: "
            f"{count(addresses * number)} from those in trusted_proxies. Widen net.ipv4.ip_local_port_range there, or "
            "give it more addresses."
        )
        return Finding("local ports", value, Verdict.WARNING, advice)
    return Finding("local ports", value)


def tcp_memory(machine: Machine) -> Finding:
    if machine.tcp_memory is None:
        return unseen("TCP memory")
    _, pressure, most = machine.tcp_memory
    laggards = most // capacity.LAGGARD
    return Finding("TCP memory", f"{size(pressure)}, at most {size(most)}: {count(laggards)} clients that do not read")


def send_buffer(machine: Machine) -> Finding:
    if machine.send_buffer is None:
        return unseen("send buffer")
    least, usual, most = machine.send_buffer
    value = f"{size(least)}, {size(usual)}, at most {size(most)}"
    # The server tells the kernel to take 64 KiB that were not sent yet; less makes it wake up for each part.
    if most < capacity.LAGGARD:
        advice = 'Clients far away get little at a time: sysctl -w net.ipv4.tcp_wmem="4096 16384 4194304".'
        return Finding("send buffer", value, Verdict.WARNING, advice)
    return Finding("send buffer", value)


def receive_buffer(machine: Machine) -> Finding:
    if machine.receive_buffer is None:
        return unseen("receive buffer")
    least, usual, most = machine.receive_buffer
    return Finding("receive buffer", f"{size(least)}, {size(usual)}, at most {size(most)}")


def tracking(machine: Machine) -> Finding:
    most, used = machine.tracked_at_most or 0, machine.tracked or 0
    value = f"{count(used)} of {count(most)} in use"
    if used > 0.8 * most:
        advice = "The firewall drops what it has no room for: raise net.netfilter.nf_conntrack_max."
        return Finding("connection tracking", value, Verdict.WARNING, advice)
    return Finding("connection tracking", value)


def pings(settings: Settings) -> Finding:
    interval = settings.ping_interval
    value = f"every {interval:g} s, {settings.pong_timeout:g} s for the answer"
    if interval >= LATEST_PING:
        advice = (
            f"Many proxies end what is idle for {USUAL_IDLE_TIMEOUT:g} s: lower ping_interval under {LATEST_PING:g}."
        )
        return Finding("pings", value, Verdict.WARNING, advice)
    return Finding("pings", value)


def origins(settings: Settings) -> Finding:
    allowed = settings.allowed_origins
    value = f"{'listed' if isinstance(allowed, tuple) else allowed}, auth {settings.auth}"
    if allowed == "*" and settings.auth == "none":
        advice = "Any web page can connect its visitors, and publish: list allowed_origins, or ask for credentials."
        return Finding("access", value, Verdict.WARNING, advice)
    if settings.auth == "none" and settings.publish and not is_loopback(settings.host):
        advice = "Whoever reaches the public port can publish: set auth, or publish = false."
        return Finding("access", value, Verdict.WARNING, advice)
    return Finding("access", value)


def round_of_all(clients: int, workers: int) -> Finding:
    """Say how long a lone publication takes to the last of so many clients, all on its channel."""
    seconds = clients / workers * capacity.DELIVERY
    value = f"{seconds * 1000:.3g} ms from the first to the last of all on one channel"
    if seconds > SLOW_ROUND:
        fitting = int(workers * SLOW_ROUND / capacity.DELIVERY)
        advice = f"With {count(fitting)} it takes {SLOW_ROUND * 1000:g} ms: add workers where that matters."
        return Finding("fan-out", value, Verdict.OK, advice)
    return Finding("fan-out", value)


def _limit(number: int) -> str:
    return "unlimited" if number >= UNLIMITED else count(number)
