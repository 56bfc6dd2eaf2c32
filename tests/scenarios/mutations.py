"""What the fuzzing scenarios send: requests and streams of frames, each a little wrong. All of it from one dice."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from tests.scenarios.clients import request
from tests.scenarios.wire import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, frame

Lines = list[bytes]

_PATHS: Final = (
    b"/ws/", b"/ws/%ff", b"/ws/%00", b"/ws/a%20b", b"/nothing", b"/../ws", b"//ws", b"/ws/" + b"x" * 200, b"*",
    b"/ws/" + b"x" * 9000, b"/" + b"%61" * 3000, b"http://127.0.0.1/ws", b"/ws?token=%", b"/ws?" + b"&" * 2000,
    b"/connection/websocket", b"/ws/\xc3\xa9",
)  # fmt: skip
_STARTS: Final = (
    b"GET /ws HTTP/1.0", b"GET /ws HTTP/2.0", b"GET /ws", b"GET  /ws HTTP/1.1", b"get /ws HTTP/1.1",
    b"HEAD /ws HTTP/1.1", b"POST /ws HTTP/1.1", b"CONNECT 127.0.0.1:443 HTTP/1.1", b"PRI * HTTP/2.0",
    b"GET\t/ws\tHTTP/1.1", b"",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(48),  # a TLS ClientHello
)  # fmt: skip
_FIELDS: Final = (
    b"Content-Length: 5", b"Content-Length: " + b"9" * 400, b"Content-Length: -1", b"Transfer-Encoding: chunked",
    b"Origin: https://evil.example", b"Origin: null", b"Origin: https://a\r\nOrigin: https://b", b"Host: other",
    b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Extensions: ;;;,,,", b"Upgrade: h2c",
    b"Sec-WebSocket-Extensions: " + b" " * 7000, b"Sec-WebSocket-Protocol: a, b, \xff", b"Connection: keep-alive",
    b"Sec-WebSocket-Protocol: " + b"," * 4000, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Expect: 100-continue",
    b"Sec-WebSocket-Version: 13", b"Authorization: Bearer \x80", b"Authorization: Basic x", b"X: " + b"y" * 8200,
    b" folded: yes", b"no colon", b": no name", b"Na me: x", b"Nul: \x00", b"X-Forwarded-For: 10.0.0.1",
)  # fmt: skip
_VALUES: Final = (
    b"Sec-WebSocket-Key: dG9vIHNob3J0", b"Sec-WebSocket-Key: not base64!", b"Sec-WebSocket-Key:", b"Upgrade: websocke",
    b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Version: 99999999999999999999", b"Sec-WebSocket-Version: \xb2",
    b"Connection: close, Upgrade", b"Connection: Upgrade, , ,", b"Upgrade: WebSocket, h2c", b"Upgrade: websocket/13",
)  # fmt: skip


def mutated_request(dice: random.Random) -> bytes:
    """Make an opening handshake with one to three things wrong with it; now and then nothing is."""
    lines = request("/ws/fuzz").split(b"\r\n")[:-2]
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        dice.choice(_REQUEST_MUTATIONS)(dice, lines)
    ending = b"\r\n" if dice.random() < 0.95 else b"\n"
    data = ending.join(lines) + ending * 2
    match dice.randrange(12):
        case 0:
            data = data[: dice.randrange(len(data))]
        case 1:
            data = _with_flipped_bytes(dice, data)
        case 2:
            data += frame(TEXT, b"too early")
        case 3:
            data += data
        case 4 if dice.random() < 0.3:
            data = dice.randbytes(dice.randrange(1, 3000))
    return data


def _change_start(dice: random.Random, lines: Lines) -> None:
    lines[0] = dice.choice(_STARTS)


def _change_path(dice: random.Random, lines: Lines) -> None:
    lines[0] = b"GET " + dice.choice(_PATHS) + b" HTTP/1.1"


def _change_value(dice: random.Random, lines: Lines) -> None:
    line = dice.choice(_VALUES)
    name = line.partition(b":")[0]
    lines[:] = [line if old.startswith(name + b":") else old for old in lines]


def _add_field(dice: random.Random, lines: Lines) -> None:
    lines.insert(dice.randrange(1, len(lines) + 1), dice.choice(_FIELDS))


def _add_many(dice: random.Random, lines: Lines) -> None:
    lines += [b"X: y"] * dice.choice((120, 123, 124, 200, 2000))


def _remove(dice: random.Random, lines: Lines) -> None:
    if len(lines) > 1:
        del lines[dice.randrange(len(lines))]


def _double(dice: random.Random, lines: Lines) -> None:
    lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))


def _swap(dice: random.Random, lines: Lines) -> None:
    first, second = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]


def _damage(dice: random.Random, lines: Lines) -> None:
    at = dice.randrange(len(lines))
    lines[at] = _with_flipped_bytes(dice, lines[at])


def _fold(dice: random.Random, lines: Lines) -> None:
    lines[dice.randrange(len(lines))] += dice.choice((b"\r\n folded", b"\n", b"\r", b"\x00", b"\x80", b" ", b"\t"))


_REQUEST_MUTATIONS: Final[tuple[Callable[[random.Random, Lines], None], ...]] = (
    _change_start, _change_path, _change_value, _add_field, _add_field, _add_many, _remove, _double, _swap, _damage,
    _fold,
)  # fmt: skip


def _with_flipped_bytes(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 4)):
        if changed:
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def mutated_stream(dice: random.Random, max_size: int) -> bytes:
    """Make one to eight frames; most of them are right, and in their place."""
    stream, is_open = b"", False
    for _ in range(dice.randrange(1, 9)):
        encoded, is_open = _frame(dice, max_size, is_open)
        stream += encoded
    if dice.random() < 0.1:
        stream += dice.randbytes(dice.randrange(1, 40))
    if dice.random() < 0.1:
        stream = stream[: dice.randrange(len(stream)) + 1]
    if dice.random() < 0.05:
        stream = _with_flipped_bytes(dice, stream)
    return stream


def _frame(dice: random.Random, max_size: int, is_open: bool) -> tuple[bytes, bool]:
    """Make a frame, where a fragmented message `is_open` or not; return it, and if one is then."""
    fitting = (CONTINUATION,) if is_open != (dice.random() < 0.03) else (TEXT, TEXT, BINARY)
    opcode = dice.choice((*fitting, *fitting, PING, PONG) if dice.random() < 0.93 else (CLOSE, *range(16)))
    fin = opcode >= CLOSE or dice.random() < 0.7
    if opcode < CLOSE:
        is_open = not fin
    elif dice.random() < 0.02:
        fin = False
    payload = _close_payload(dice) if opcode == CLOSE else _payload(dice, opcode, max_size)
    length, width, declared = len(payload), None, None
    if dice.random() < 0.1:
        # More bytes for the length than it needs: the RFC forbids it, and parsers differ.
        width = 8 if length > 65535 else dice.choice((2, 8))
    if dice.random() < 0.02:
        width, declared = 8, dice.choice((max_size + 1, 2**31, 2**32 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1))
    encoded = frame(
        opcode,
        payload,
        fin=fin,
        reserved=dice.randrange(8) if dice.random() < 0.02 else 0,
        key=None if dice.random() < 0.02 else dice.choice((KEY, dice.randbytes(4))),
        declared=declared,
        width=width,
    )
    return encoded, is_open


def _payload(dice: random.Random, opcode: int, max_size: int) -> bytes:
    if opcode in (PING, PONG):
        return dice.randbytes(dice.choice((0, 1, 4, 125, 125 if dice.random() < 0.9 else 126)))
    size = dice.choices(
        (0, 1, 125, 126, 127, dice.randrange(2000), 65535, max_size, max_size + 1), (5, *[6] * 5, 1, 1, 1)
    )[0]
    if opcode == BINARY or dice.random() < 0.04:
        return dice.randbytes(size)
    letter = dice.choice(("a", "é", "€", "😀")).encode()
    text = letter * (size // len(letter))
    return text[:-1] if dice.random() < 0.03 else text


def _close_payload(dice: random.Random) -> bytes:
    code = dice.choice((1000, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1015, 2999, 3000, 4999, 5000, 0))
    reason = dice.choice((b"", b"bye", "schön".encode(), b"\xff", b"x" * 123))
    return dice.choice((b"", b"\x03", code.to_bytes(2, "big") + reason, code.to_bytes(2, "big") + reason))
