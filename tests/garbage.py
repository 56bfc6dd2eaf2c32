"""Frames of a Centrifuge client that has lost its mind, from a seed: half of them almost make sense."""

from __future__ import annotations

import random

from tests.speaker import CONNECT, messages, number, part

PIECES = [
    "{", "}", "[", "]", ",", ":", '"', "\\", "\n", " ", "\x00", "\u2028", "é", "\\ud800", "\\u0000", "NaN", "Infinity",
    "-", "1e999", "9" * 400, "0.1", "1", "null", "true", '"id"', '"connect"', '"subscribe"', '"publish"', '"history"',
    '"channel"', '"data"', '"since"', '"offset"', '"epoch"', '"limit"', '"subs"', '"news"', '"token"',
    "18446744073709551615",
    "-9223372036854775808", "[" * 100, '{"a":' * 100, "]" * 50, '"id":7,', '"recover":true,', '"tf":{},',
]  # fmt: skip

LINES = [
    '{"id":7,"subscribe":{"channel":"news","recover":true,"offset":3,"epoch":"x"}}',
    '{"id":7,"subscribe":{"channel":"other","delta":"fossil","join_leave":true}}',
    '{"id":7,"unsubscribe":{"channel":"news"}}',
    '{"id":7,"publish":{"channel":"garbage","data":{"a":[1,2.50,"x"]}}}',
    '{"id":7,"history":{"channel":"news","limit":-1,"since":{"offset":1,"epoch":"EPOCH"},"reverse":true}}',
    '{"id":7,"presence":{"channel":"news"}}',
    '{"id":7,"presence_stats":{"channel":"news"}}',
    '{"id":7,"refresh":{"token":"x"}}',
    '{"id":7,"sub_refresh":{"channel":"news","token":"x"}}',
    '{"id":7,"rpc":{"method":"m","data":1}}',
    '{"send":{"data":1}}',
    CONNECT,
    '{"id":1,"connect":{"subs":{"news":{"recover":true,"offset":18446744073709551615}},"headers":{"a":"b"}}}',
]


def garbage(dice: random.Random) -> bytes:
    """Make a payload: words thrown together, or a command that something has happened to."""
    if dice.random() < 0.3:
        return "".join(dice.choices(PIECES, k=dice.randrange(1, 12))).encode()
    lines = "\n".join(dice.choices(LINES, k=dice.choice((1, 1, 1, 2, 5))))
    data = bytearray(lines.encode())
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        place = dice.randrange(len(data))
        act = dice.randrange(4)
        if act == 0:
            data[place] = dice.randrange(256)
        elif act == 1:
            del data[place : place + dice.choice((1, 1, 5, 20))]
        elif act == 2:
            data[place:place] = dice.choice(PIECES).encode()
        else:
            data[place:place] = data[place : place + dice.randrange(40)]
    return bytes(data or b"{}")


PROTOBUF = [
    number(1, 1) + part(4, part(3, b"")),
    number(1, 7) + part(5, part(1, b"news") + number(3, 1) + part(6, b"x") + number(7, 2**64 - 1)),
    number(1, 7) + part(6, part(1, b"news")),
    number(1, 7) + part(7, part(1, b"garbage") + part(2, b"\x00")),
    number(1, 7) + part(8, part(1, b"news")),
    number(1, 7) + part(10, part(1, b"news") + number(7, 2**64 - 1) + part(8, number(1, 2**64 - 1))),
    number(1, 7) + part(13, part(1, b"x")),
    b"",
]


def protobuf_garbage(dice: random.Random) -> bytes:
    data = bytearray(messages(*dice.choices(PROTOBUF, k=dice.choice((1, 1, 2, 5)))))
    for _ in range(dice.choice((0, 1, 1, 3))):
        place = dice.randrange(len(data))
        if dice.random() < 0.7:
            data[place] = dice.randrange(256)
        else:
            data[place:place] = dice.randbytes(dice.randrange(1, 8))
    return bytes(data)
