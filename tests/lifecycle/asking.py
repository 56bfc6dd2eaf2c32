"""One request, or one client, on a blocking socket: for tables of what the server answers to what."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tests.harness import Server
from tests.wire import CLOSE, PING, PONG, Answer, Read, answer, frame, request, split

PATIENCE = 10.0


def ask(port: int, words: bytes) -> Answer:
    """Send the bytes of a request; return the answer, read to the end of the connection unless it is a 101."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(words)
        said = b""
        while data := sock.recv(65536):
            said += data
            if said.startswith(b"HTTP/1.1 101 ") and b"\r\n\r\n" in said:
                break
        return answer(said)


def bearer(token: str) -> str:
    """Write the header that shows a token."""
    return f"Authorization: Bearer {token}"


class Talk:
    """A WebSocket connection, after its handshake."""

    def __init__(self, sock: socket.socket, rest: bytes = b"") -> None:
        self._sock = sock
        self._frames: list[Read] = []
        self._rest = rest

    def send(self, data: bytes) -> None:
        """Send bytes as they are; a server that has heard enough already is no failure."""
        with contextlib.suppress(ConnectionError):
            self._sock.sendall(data)

    def read(self) -> Read:
        """Wait for the next frame; pings are answered on the way. Raises ConnectionError when there is no more."""
        while True:
            while not self._frames:
                data = self._sock.recv(65536)
                if not data:
                    raise ConnectionResetError("the connection has ended")
                self._frames, self._rest = split(self._rest + data)
            read = self._frames.pop(0)
            if read.opcode != PING:
                return read
            self.send(frame(PONG, read.payload))

    def read_until_closed(self) -> Read:
        """Read over whatever comes before the server's close frame, and return that."""
        while (read := self.read()).opcode != CLOSE:
            pass
        return read


@contextlib.contextmanager
def talk(server: Server, path: str = "/ws", *fields: str) -> Iterator[Talk]:
    """Open a WebSocket connection; it must be let in."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
        sock.sendall(request(path, *fields))
        said = b""
        while b"\r\n\r\n" not in said:
            data = sock.recv(65536)
            assert data, f"not let in: {said!r}"
            said += data
        head, _, rest = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield Talk(sock, rest)


def hears_itself(client: Talk, words: bytes) -> bool:
    """Tell if a client on a raw channel still hears what it says there."""
    client.send(frame(1, words))
    while (read := client.read()).payload != words:
        assert read.opcode != CLOSE, f"closed: {read.code} {read.reason}"
    return True
