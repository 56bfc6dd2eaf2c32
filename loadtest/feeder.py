"""The other side of the generator's bench: a server that has nothing to do but to send, in a process of its own.

    with feeding(connections=500, batch=1, shared=True) as (port, taken):
        ...  # connect, receive, and keep ``taken.value`` up to date

Laws: it accepts so many connections, then keeps two rounds of ``batch`` messages in flight on each, measured by what
the receiver says it has taken; with a batch of 0 it only holds them. It is gone when the block ends, or the receiver.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from websockets.http11 import Request
from websockets.server import ServerProtocol

from loadtest.payload import Stream
from loadtest.protocol import TEXT, header

RUN = "beef"
SIZE = 128
_NAP = 0.0002
_GROUP = 20  # connections that are fed between two looks at what was taken
_LOOK = 0.5  # seconds between two looks at whether the receiver is still there


class Taken:
    """A number in memory that both processes see: how many messages the receiver has taken."""

    _number = struct.Struct("q")

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self._number.size)

    @property
    def value(self) -> int:
        """The number."""
        return int(self._number.unpack_from(self._memory)[0])

    @value.setter
    def value(self, value: int) -> None:
        self._number.pack_into(self._memory, 0, value)


@contextmanager
def feeding(connections: int, batch: int, shared: bool) -> Iterator[tuple[int, Taken]]:
    """Run a feeder; its port, and what it looks at. The caller stays on another core meanwhile.

    Args:
        shared: everyone gets the same bytes, those of channel 0; otherwise the n-th connection those of channel n.
    """
    cores = os.sched_getaffinity(0)
    memory = os.memfd_create("taken")
    os.ftruncate(memory, mmap.PAGESIZE)
    arguments = json.dumps({"connections": connections, "batch": batch, "shared": shared, "receiver": os.getpid()})
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        port, descriptors = int(listener.getsockname()[1]), (listener.fileno(), memory)
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.feeder", *map(str, descriptors), arguments],
            pass_fds=descriptors,
            cwd=Path(__file__).resolve().parent.parent,
        )
    try:
        use_core(1)
        yield port, Taken(memory)
    finally:
        os.close(memory)
        process.kill()
        process.wait()
        os.sched_setaffinity(0, cores)


def use_core(number: int) -> None:
    """Stay on one core, so that the two processes do not share one where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[number]})


def feed(listener: socket.socket, taken: Taken, connections: int, batch: int, shared: bool, receiver: int) -> None:
    """Accept the connections and feed them until the receiver, which is the parent process, has seen enough."""
    clients = [_accept(listener, receiver) for _ in range(connections)]
    if not batch:
        clients[0].recv(1)  # until the receiver goes
        return
    streams = [Stream(RUN, 0, 0 if shared else number, SIZE) for number in range(1 if shared else connections)]
    frame, sequence, sent = header(TEXT, SIZE), 0, 0
    # Whatever is done per message here, the generator would wait for.
    groups = [[client.sendall for client in clients[at : at + _GROUP]] for at in range(0, connections, _GROUP)]
    while True:
        now = time.monotonic_ns()
        batches = [
            b"".join(frame + stream.payload(sequence + number, now) for number in range(1, batch + 1))
            for stream in streams
        ]
        sequence += batch
        number = 0
        for group in groups:
            while sent - taken.value >= 2 * connections * batch:
                if os.getppid() != receiver:
                    return
                time.sleep(_NAP)
            for send in group:
                send(batches[0 if shared else number])
                number += 1
            sent += batch * len(group)


def _accept(listener: socket.socket, receiver: int) -> socket.socket:
    listener.settimeout(_LOOK)
    while True:
        try:
            client, _ = listener.accept()
            break
        except TimeoutError:
            if os.getppid() != receiver:
                raise
    client.settimeout(None)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    protocol, request = ServerProtocol(), b""
    while not request.endswith(b"\r\n\r\n"):
        request += client.recv(4096)
    protocol.receive_data(request)
    (event,) = protocol.events_received()
    assert isinstance(event, Request), "a handshake begins with a request"
    protocol.send_response(protocol.accept(event))
    client.sendall(b"".join(protocol.data_to_send()))
    return client


if __name__ == "__main__":
    use_core(0)
    try:
        feed(socket.socket(fileno=int(sys.argv[1])), Taken(int(sys.argv[2])), **json.loads(sys.argv[3]))
    except (OSError, KeyboardInterrupt):
        sys.exit(0)  # the receiver is gone
