"""What the kernel knows of the server's sockets: queues, states, and whether anybody still holds them. Linux.

A connection of 127.0.0.1 is asked for by sock_diag(7), whose answer takes a tenth of a millisecond. In the table of
proc(5) there is a row for every connection that was closed within the last minute, and a scenario may have left ten
thousand: who reads it again and again has no time for anything else.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.harness import Server
from tests.scenarios.clients import Client


@dataclass(frozen=True)
class KernelSocket:
    """The server's end of a connection; queues in bytes."""

    state: str
    unacknowledged: int  # written by the server, not acknowledged by the peer's kernel
    unread: int  # received, not read by the server
    retransmissions: int
    is_held: bool  # somebody has a descriptor for it


_ESTABLISHED: Final = 1
_STATES: Final = {_ESTABLISHED: "ESTABLISHED", 4: "FIN-WAIT-1", 5: "FIN-WAIT-2", 6: "TIME-WAIT", 8: "CLOSE-WAIT"}

# netlink(7), sock_diag(7): linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")
_ASKED: Final = struct.Struct("=BBBxI")
_PORTS: Final = struct.Struct("!HH")
_REST_OF_ID: Final = struct.Struct("=16s16sIII")
_LOOPBACK: Final = socket.inet_aton("127.0.0.1")
_NO_COOKIE: Final = 0xFFFFFFFF
_ANSWER: Final = struct.Struct("=BBBB")
_FIGURES: Final = struct.Struct("=IIIII")


def kernel_socket(server_port: int, client_port: int) -> KernelSocket | None:
    """Look up the server's socket of a connection; None when the kernel knows none."""
    return _asked_for(server_port, client_port) or _in_the_table(server_port, client_port)


def _asked_for(server_port: int, client_port: int) -> KernelSocket | None:
    ports = _PORTS.pack(server_port, client_port)
    asked = _ASKED.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ports
    asked += _REST_OF_ID.pack(_LOOPBACK, _LOOPBACK, 0, _NO_COOKIE, _NO_COOKIE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.send(_HEADER.pack(_HEADER.size + len(asked), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + asked)
        answer = kernel.recv(65536)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        return None
    _, state, _, retransmissions = _ANSWER.unpack_from(answer, _HEADER.size)
    at = _HEADER.size + _ANSWER.size + _PORTS.size
    _, unread, unacknowledged, _, inode = _FIGURES.unpack_from(answer, at + _REST_OF_ID.size)
    if answer[at - _PORTS.size : at] != ports:
        return None  # it is the one that listens, which is found when there is no such connection
    return KernelSocket(_STATES.get(state, str(state)), unacknowledged, unread, retransmissions, inode != 0)


def _in_the_table(server_port: int, client_port: int) -> KernelSocket | None:
    for fields in _tcp_table():
        if _port(fields[1]) == server_port and _port(fields[2]) == client_port:
            unacknowledged, unread = (int(size, 16) for size in fields[4].split(":"))
            state = int(fields[3], 16)
            name = _STATES.get(state, str(state))
            return KernelSocket(name, unacknowledged, unread, int(fields[6], 16), fields[9] != "0")
    return None


def is_held(server: Server, client: Client) -> bool:
    """Tell if the server has a descriptor for a connection; an orphan of the kernel is nobody's."""
    row = kernel_socket(server.port, client.port)
    return row is not None and row.is_held


def held_ports(server: Server) -> set[int]:
    """Name the clients, by their ports, for whom the server has a descriptor; an orphan of the kernel has inode 0."""
    return {_port(fields[2]) for fields in _tcp_table() if _port(fields[1]) == server.port and fields[9] != "0"}


def serves_http(server: Server) -> bool:
    """Tell if somebody is connected to the internal port."""
    return any(_port(row[1]) == server.internal_port and int(row[3], 16) == _ESTABLISHED for row in _tcp_table())


def _tcp_table() -> list[list[str]]:
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
