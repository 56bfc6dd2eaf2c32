from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from loadtest.options import Options
from loadtest.preflight import Stopped, preflight
from tests.engine import parsed
from tests.test_loadtest_protocol import accepted


def tried(answer: Callable[[bytes], bytes]) -> str:
    """What preflight says of a server that gives this answer; empty if nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(answer(client.recv(4096)))

        server = threading.Thread(target=serve)
        server.start()
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        try:
            preflight(Options.of(parsed(url=url)))
        except Stopped as stopped:
            return str(stopped).removeprefix(f"{url}/ws/{{channel}} ")
        finally:
            server.join()
    return ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (accepted, ""),
        (lambda request: b"HTTP/1.1 401 Unauthorized\r\n\r\n", "refuses the WebSocket handshake: HTTP 401."),
        (lambda request: b"", "refuses the WebSocket handshake: closed during the handshake."),
        (
            lambda request: b"220 mail\r\n",
            "refuses the WebSocket handshake: not an HTTP server: it says b'220 mail\\r\\n'.",
        ),
    ],
)
def test_a_server_is_tried_once(answer: Callable[[bytes], bytes], said: str) -> None:
    assert tried(answer) == said


def test_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.preflight.PREFLIGHT_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Stopped, match=r"does not answer within 0\.05 s\.$"):
            preflight(Options.of(parsed(url=url)))


def test_a_name_without_an_address_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(
        Stopped, match=r"cannot be reached: no\.such\.invalid has no address: Name or service not known\.$"
    ):
        preflight(Options.of(parsed(url="ws://no.such.invalid:1")))
