"""Frames that real clients sent, and what they mean: taken down from the SDKs, not made by our codecs.

`centrifuge` 5.8.0 for JavaScript and `centrifuge-python` 0.7.0, each in JSON and in Protobuf, in the same session.
"""

from typing import NamedTuple

from server.core.history import Position
from server.dialects.centrifuge import commands as c
from server.dialects.centrifuge.commands import Command


class Frame(NamedTuple):
    name: str
    json: bytes
    protobuf: bytes
    commands: list[Command]


NEWS = {"channel": "news", "positioned": True, "recoverable": True, "join_leave": True, "flag": 1}

JAVASCRIPT = [
    # On opening, the SDK sends its connect command and all its subscriptions in one frame.
    Frame(
        "open",
        b'{"connect":{"token":"tok","data":{"who":"me"},"name":"js","version":"1.2","headers":{"x-a":"b"}},"id":1}\n'
        b'{"subscribe":{"channel":"news","token":"st","data":{"d":1},"positioned":true,"recoverable":true,'
        b'"join_leave":true,"flag":1},"id":2}\n'
        b'{"subscribe":{"channel":"docs","flag":1,"recover":true,"offset":1,"epoch":"eeee","delta":"fossil"},"id":3}\n'
        b'{"subscribe":{"channel":"secret","flag":1},"id":4}\n'
        b'{"subscribe":{"channel":"filtered","flag":1,"tf":{"key":"a","cmp":"eq","val":"b"}},"id":5}',
        b'*\x08\x01"&\n\x03tok\x12\x0c{"who":"me"}"\x02js*\x031.22\x08\n\x03x-a\x12\x01b'
        b'\x1f\x08\x02*\x1b\n\x04news\x12\x02stB\x07{"d":1}H\x01P\x01X\x01p\x01'
        b"\x1e\x08\x03*\x1a\n\x04docs\x18\x012\x04eeee8\x01b\x06fossilp\x01"
        b"\x0e\x08\x04*\n\n\x06secretp\x01"
        b'\x1c\x08\x05*\x18\n\x08filteredj\n\x12\x01a\x1a\x02eq"\x01bp\x01',
        [
            Command(1, c.Connect("tok", b'{"who":"me"}', name="js", version="1.2", headers={"x-a": "b"})),
            Command(2, c.Subscribe(token="st", data=b'{"d":1}', **NEWS)),
            Command(3, c.Subscribe("docs", recover=True, epoch="eeee", offset=1, delta="fossil", flag=1)),
            Command(4, c.Subscribe("secret", flag=1)),
            Command(5, c.Subscribe("filtered", flag=1, filtered=True)),
        ],
    ),
    Frame("pong", b"{}", b"\x00", [Command(0, c.Pong())]),
    Frame(
        "publish an object",
        b'{"publish":{"channel":"news","data":{"x":1.1,"s":"\xc3\xbcn\xc3\xaf"}},"id":6}',
        b'!\x08\x06:\x1d\n\x04news\x12\x15{"x":1.1,"s":"\xc3\xbcn\xc3\xaf"}',
        [Command(6, c.Publish("news", b'{"x":1.1,"s":"\xc3\xbcn\xc3\xaf"}'))],
    ),
    Frame(
        "publish a string",
        b'{"publish":{"channel":"news","data":"5"},"id":7}',
        b'\x0f\x08\x07:\x0b\n\x04news\x12\x03"5"',
        [Command(7, c.Publish("news", b'"5"'))],
    ),
    Frame(
        "publish null",
        b'{"publish":{"channel":"news","data":null},"id":8}',
        b"\x10\x08\x08:\x0c\n\x04news\x12\x04null",
        [Command(8, c.Publish("news", b"null"))],
    ),
    Frame(
        "presence",
        b'{"presence":{"channel":"news"},"id":10}',
        b"\n\x08\nB\x06\n\x04news",
        [Command(10, c.Presence("news"))],
    ),
    Frame(
        "presence stats",
        b'{"presence_stats":{"channel":"news"},"id":11}',
        b"\n\x08\x0bJ\x06\n\x04news",
        [Command(11, c.PresenceStats("news"))],
    ),
    Frame(
        "history since",
        b'{"history":{"channel":"news","since":{"offset":2,"epoch":"abcd"},"limit":10,"reverse":true},"id":12}',
        b"\x18\x08\x0cR\x14\n\x04news8\nB\x08\x08\x02\x12\x04abcdH\x01",
        [Command(12, c.History("news", 10, Position(2, "abcd"), True))],
    ),
    Frame(
        "history, the position alone",
        b'{"history":{"channel":"news"},"id":13}',
        b"\n\x08\rR\x06\n\x04news",
        [Command(13, c.History("news"))],
    ),
    Frame(
        "history without a limit",
        b'{"history":{"channel":"news","limit":-1},"id":14}',
        b"\x15\x08\x0eR\x11\n\x04news8\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        [Command(14, c.History("news", -1))],
    ),
    Frame(
        "rpc",
        b'{"rpc":{"method":"m","data":{"q":1}},"id":15}',
        b'\x10\x08\x0fj\x0c\n\x07{"q":1}\x12\x01m',
        [Command(15, c.Rpc("m", b'{"q":1}'))],
    ),
    Frame(
        "send",
        b'{"send":{"data":{"m":1}}}',
        b'\x0bb\t\n\x07{"m":1}',
        [Command(0, c.Send(b'{"m":1}'))],
    ),
    Frame(
        "unsubscribe",
        b'{"unsubscribe":{"channel":"filtered"},"id":17}',
        b"\x0e\x08\x112\n\n\x08filtered",
        [Command(17, c.Unsubscribe("filtered"))],
    ),
    Frame(
        "sub refresh",
        b'{"sub_refresh":{"channel":"news","token":"st2"},"id":18}',
        b"\x0f\x08\x12z\x0b\n\x04news\x12\x03st2",
        [Command(18, c.SubRefresh("news", "st2"))],
    ),
    Frame(
        "refresh",
        b'{"refresh":{"token":"tok2"},"id":19}',
        b"\n\x08\x13r\x06\n\x04tok2",
        [Command(19, c.Refresh("tok2"))],
    ),
    Frame(
        "subscribe again, after an unsubscribe of 2500",
        b'{"subscribe":{"channel":"news","token":"st2","data":{"d":1},"positioned":true,"recoverable":true,'
        b'"join_leave":true,"flag":1,"recover":true,"offset":7,"epoch":"abcd"},"id":21}',
        b'*\x08\x15*&\n\x04news\x12\x03st2\x18\x012\x04abcd8\x07B\x07{"d":1}H\x01P\x01X\x01p\x01',
        [Command(21, c.Subscribe(token="st2", data=b'{"d":1}', recover=True, epoch="abcd", offset=7, **NEWS))],
    ),
    Frame(
        "connect again, with a server-side subscription",
        b'{"connect":{"name":"js","subs":{"#u":{"recover":true,"offset":5,"epoch":"eeee"}}},"id":3}',
        b'\x1a\x08\x03"\x16\x1a\x10\n\x02#u\x12\n\x18\x012\x04eeee8\x05"\x02js',
        [Command(3, c.Connect(name="js", subs={"#u": c.Subscribe("#u", recover=True, epoch="eeee", offset=5)}))],
    ),
]

# Python's json leaves spaces between tokens and escapes what is not ASCII.
PYTHON = [
    Frame(
        "connect",
        b'{"id": 1, "connect": {"token": "tok", "data": {"who": "me"}, "name": "py", "version": "1.2"}}',
        b'!\x08\x01"\x1d\n\x03tok\x12\r{"who": "me"}"\x02py*\x031.2',
        [Command(1, c.Connect("tok", b'{"who": "me"}', name="py", version="1.2"))],
    ),
    Frame(
        "subscribe",
        b'{"id": 2, "subscribe": {"channel": "news", "token": "st", "data": {"d": 1}, "positioned": true, '
        b'"recoverable": true, "join_leave": true, "flag": 1}}',
        b'\x20\x08\x02*\x1c\n\x04news\x12\x02stB\x08{"d": 1}H\x01P\x01X\x01p\x01',
        [Command(2, c.Subscribe(token="st", data=b'{"d": 1}', **NEWS))],
    ),
    Frame(
        "subscribe with deltas",
        b'{"id": 3, "subscribe": {"channel": "docs", "flag": 1, "delta": "fossil"}}',
        b"\x14\x08\x03*\x10\n\x04docsb\x06fossilp\x01",
        [Command(3, c.Subscribe("docs", flag=1, delta="fossil"))],
    ),
    Frame(
        "publish",
        b'{"id": 5, "publish": {"channel": "news", "data": {"x": 1.1, "s": "\\u00fcn\\u00ef"}}}',
        b',\x08\x05:(\n\x04news\x12 {"x": 1.1, "s": "\\u00fcn\\u00ef"}',
        [Command(5, c.Publish("news", b'{"x": 1.1, "s": "\\u00fcn\\u00ef"}'))],
    ),
    Frame(
        "presence",
        b'{"id": 7, "presence": {"channel": "news"}}',
        b"\n\x08\x07B\x06\n\x04news",
        [Command(7, c.Presence("news"))],
    ),
    Frame(
        "presence stats",
        b'{"id": 8, "presence_stats": {"channel": "news"}}',
        b"\n\x08\x08J\x06\n\x04news",
        [Command(8, c.PresenceStats("news"))],
    ),
    Frame(
        "history",
        b'{"id": 9, "history": {"channel": "news", "limit": 10, "reverse": true, "since": {"offset": 2, '
        b'"epoch": "abcd"}}}',
        b"\x18\x08\tR\x14\n\x04news8\nB\x08\x08\x02\x12\x04abcdH\x01",
        [Command(9, c.History("news", 10, Position(2, "abcd"), True))],
    ),
    Frame(
        "history without a limit",
        b'{"id": 10, "history": {"channel": "news", "limit": -1, "reverse": false}}',
        b"\x15\x08\nR\x11\n\x04news8\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        [Command(10, c.History("news", -1))],
    ),
    Frame(
        "rpc",
        b'{"id": 11, "rpc": {"method": "m", "data": {"q": 1}}}',
        b'\x11\x08\x0bj\r\n\x08{"q": 1}\x12\x01m',
        [Command(11, c.Rpc("m", b'{"q": 1}'))],
    ),
    Frame(
        "sub refresh",
        b'{"id": 13, "sub_refresh": {"channel": "news", "token": "st2"}}',
        b"\x0f\x08\rz\x0b\n\x04news\x12\x03st2",
        [Command(13, c.SubRefresh("news", "st2"))],
    ),
    Frame(
        "refresh",
        b'{"id": 14, "refresh": {"token": "tok2"}}',
        b"\n\x08\x0er\x06\n\x04tok2",
        [Command(14, c.Refresh("tok2"))],
    ),
    Frame(
        "subscribe again",
        b'{"id": 16, "subscribe": {"channel": "news", "token": "st2", "data": {"d": 1}, "positioned": true, '
        b'"recoverable": true, "join_leave": true, "recover": true, "epoch": "abcd", "offset": 7, "flag": 1}}',
        b'+\x08\x10*\'\n\x04news\x12\x03st2\x18\x012\x04abcd8\x07B\x08{"d": 1}H\x01P\x01X\x01p\x01',
        [Command(16, c.Subscribe(token="st2", data=b'{"d": 1}', recover=True, epoch="abcd", offset=7, **NEWS))],
    ),
]

FRAMES = [frame._replace(name=f"javascript: {frame.name}") for frame in JAVASCRIPT] + [
    frame._replace(name=f"python: {frame.name}") for frame in PYTHON
]
