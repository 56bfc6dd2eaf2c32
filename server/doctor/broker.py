"""Redis, asked what it allows: whether it can be reached, and what it does with a subscriber that is behind.

Laws: each Redis is given two seconds for each question; what it does not want to tell (hosted ones have no CONFIG) is
not a fault. No password is repeated. Of a Redis Cluster those nodes are reached, too, that nobody has named: a server
goes by the addresses that the cluster tells, and these may be others than the certificates are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from server.brokers.redis.address import Address, AddressError, parse
from server.brokers.redis.connection import Command, Refused, Reply, connect, credentials
from server.brokers.redis.slots import SLOTS, Map, Unwell, read_map
from server.brokers.redis.survey import QUESTIONS
from server.doctor.finding import Finding, Verdict, count, size

PATIENCE: Final = 2.0
OLDEST: Final = (6, 2)
# The first with sharded channels.
OLDEST_CLUSTER: Final = (7, 0)
# Each process keeps one connection to publish and one to hear.
CONNECTIONS: Final = 2
# Redis' own default: what a subscriber may be behind before it is cut off.
USUAL_OUTPUT: Final = 32 * 1024 * 1024


async def brokers(text: str, processes: int) -> AsyncIterator[Finding]:
    """Look at each Redis of the option `broker`, for a server of so many processes."""
    try:
        addresses = parse(text)
    except AddressError as fault:
        yield Finding("broker", "", Verdict.BAD, f"broker: {fault}.")
        return
    for address in addresses:
        async for finding in _redis(address, processes):
            yield finding
    if addresses[0].in_cluster:
        async for finding in _cluster(addresses):
            yield finding


async def _cluster(seeds: Sequence[Address]) -> AsyncIterator[Finding]:
    """Look at the map of a Redis Cluster, and at the nodes on it that are no seeds."""
    why = ""
    for seed in seeds:
        try:
            facts, slots = [await _ask(seed, [question]) for question in QUESTIONS]
            seen = read_map(facts, slots, seed)
        except (Unwell, Refused) as fault:
            why = str(fault)
        except OSError:
            continue  # it has its own row
        else:
            break
    else:
        if why:
            yield Finding("redis cluster", "", Verdict.BAD, f"It has no map: {why}.")
        return
    yield cluster(seen)
    for node in seen.nodes:
        if node not in seeds:
            try:
                info = _fields(await _ask(node, [("INFO", "server")]))
            except (Refused, OSError) as error:
                yield _unreachable(node, error)
            else:
                yield version(str(node), info, OLDEST_CLUSTER)


def cluster(seen: Map) -> Finding:
    """Look at who has the slots."""
    primaries = seen.primaries
    covered = sum(map(len, primaries.values()))
    value = f"{count(covered)} of {count(SLOTS)} slots, at {len(primaries)} of {len(seen.nodes)} nodes"
    if covered < SLOTS:
        return Finding("redis cluster", value, Verdict.BAD, "Some slots are nobody's: their channels are refused.")
    return Finding("redis cluster", value)


def _unreachable(address: Address, error: Refused | OSError) -> Finding:
    if isinstance(error, Refused):
        return Finding("redis", str(address), Verdict.BAD, f"It refuses us: {error}.")
    why = error.strerror or str(error) or "no answer"
    return Finding("redis", str(address), Verdict.BAD, f"It cannot be reached: {why}.")


async def _redis(address: Address, processes: int) -> AsyncIterator[Finding]:
    try:
        info = _fields(await _ask(address, [("INFO", "everything")]))
    except (Refused, OSError) as error:
        yield _unreachable(address, error)
        return
    yield version(str(address), info, OLDEST_CLUSTER if address.in_cluster else OLDEST)
    if info.get("cluster_enabled") == "1" and not address.in_cluster:
        advice = "It is a node of a Redis Cluster, and has some channels only: name it as redis+cluster://."
        yield Finding("redis cluster", str(address), Verdict.WARNING, advice)
    if not address.in_cluster and info.get("role") == "slave" and info.get("slave_read_only") == "1":
        advice = "It is a replica, and takes no writes: name the primary, or what leads there."
        yield Finding("redis role", str(address), Verdict.BAD, advice)
    yield places(info, processes)
    yield eviction(info)
    try:
        answer = await _ask(address, [("CONFIG", "GET", "client-output-buffer-limit")])
    except (Refused, OSError):
        advice = "It does not tell its client-output-buffer-limit: see that pubsub has 32mb or more."
        yield Finding("redis output limit", "-", Verdict.UNSEEN, advice)
        return
    yield output_limit(_text(answer[1]) if isinstance(answer, list) and len(answer) > 1 else "")


def version(where: str, info: dict[str, str], oldest: tuple[int, int] = OLDEST) -> Finding:
    """Look at the version, and say that it can be reached."""
    said = info.get("redis_version", "")
    value = f"{where}, version {said or 'unknown'}"
    parts = said.split(".")
    if len(parts) > 1 and parts[0].isdecimal() and parts[1].isdecimal() and (int(parts[0]), int(parts[1])) < oldest:
        return Finding("redis", value, Verdict.BAD, f"Redis {oldest[0]}.{oldest[1]} or newer is needed.")
    return Finding("redis", value)


def places(info: dict[str, str], processes: int) -> Finding:
    """Look at how many connections it still takes."""
    most, used = info.get("maxclients", ""), info.get("connected_clients", "")
    if not (most.isdecimal() and used.isdecimal()):
        return Finding("redis clients", "-", Verdict.UNSEEN, "It does not tell its maxclients.")
    value, wanted = f"{count(int(used))} of {count(int(most))}", CONNECTIONS * processes
    if int(most) - int(used) < wanted:
        return Finding(
            "redis clients", value, Verdict.BAD, f"This server opens {wanted} connections: raise maxclients."
        )
    return Finding("redis clients", value)


def eviction(info: dict[str, str]) -> Finding:
    """Look at what it forgets when its memory is full."""
    policy, most = info.get("maxmemory_policy", ""), info.get("maxmemory", "0")
    if not policy:
        return Finding("redis memory", "-", Verdict.UNSEEN, "It does not tell its maxmemory-policy.")
    bounded = most.isdecimal() and int(most) > 0
    value = f"{size(int(most))} at most, {policy}" if bounded else f"no maxmemory, {policy}"
    if bounded and policy != "noeviction":
        advice = "A full Redis forgets histories: clients will be told that they cannot recover. Use noeviction."
        return Finding("redis memory", value, Verdict.WARNING, advice)
    return Finding("redis memory", value)


def output_limit(setting: str) -> Finding:
    """Look at client-output-buffer-limit: for each class a hard limit, a soft one, and the seconds of that."""
    words = setting.split()
    try:
        at = words.index("pubsub")
        hard, soft, seconds = (int(word) for word in words[at + 1 : at + 4])
    except ValueError:
        return Finding("redis output limit", "-", Verdict.UNSEEN, "It does not tell its client-output-buffer-limit.")
    value = f"pubsub: {_limit(hard)}, or {_limit(soft)} for {seconds} s"
    if 0 < hard < USUAL_OUTPUT:
        advice = (
            "A burst cuts us off, and clients are told of a gap: "
            'CONFIG SET client-output-buffer-limit "pubsub 32mb 8mb 60".'
        )
        return Finding("redis output limit", value, Verdict.WARNING, advice)
    return Finding("redis output limit", value)


async def _ask(address: Address, commands: Sequence[Command]) -> Reply:
    """Send commands on a connection of their own; return the last one's answer. Raises Refused and OSError."""
    connection = await connect(address, lambda: None, PATIENCE)
    try:
        async with asyncio.timeout(PATIENCE):
            replies = await connection.open([*credentials(address), *commands])
        return replies[-1]
    finally:
        connection.abort()


def _fields(info: Reply) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(info).splitlines() if not line.startswith("#"))
    return {key: value for key, separator, value in pairs if separator}


def _text(reply: Reply) -> str:
    return bytes(reply).decode("utf-8", "replace") if isinstance(reply, bytes) else ""


def _limit(number: int) -> str:
    return size(number) if number else "no limit"
