"""What the server says, one of each kind, with the bytes of each in JSON and in Protobuf.

The Protobuf bytes were read back with the code that others generated from client.proto (`centrifuge-python`'s).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import codes
from server.dialects.centrifuge import replies as r
from server.dialects.centrifuge.codec import Codec

Say = Callable[[Codec], bytes]


class Said(NamedTuple):
    name: str
    say: Say
    json: bytes
    protobuf: bytes


ALICE = ClientInfo("alice", "a-1", b'{"name": "Alice"}', b"[1.10]")
NOBODY = ClientInfo("", "b-2")
NEWS = Publication(b'{"a": 1.10}', offset=4, info=ALICE, tags={"k": "v"}, published_at=1_700_000_000_001)


def reply(name: str, result: r.Result, json: bytes, protobuf: bytes) -> Said:
    return Said(name, lambda codec: codec.encode_reply(300, result), json, protobuf)


def push(name: str, said: r.Push, json: bytes, protobuf: bytes, channel: str = "news") -> Said:
    return Said(name, lambda codec: codec.encode_push(channel, said), json, protobuf)


def error(said: codes.Error, json: bytes, protobuf: bytes) -> Said:
    return Said(said.message, lambda codec: codec.encode_error(7, said), json, protobuf)


def publication(name: str, said: Publication, json: bytes, protobuf: bytes) -> Said:
    return Said(name, lambda codec: codec.encode_publication("news", said), json, protobuf)


def delta(name: str, said: Publication, patch: bytes | None, json: bytes, protobuf: bytes) -> Said:
    return Said(name, lambda codec: codec.encode_delta_publication("news", said, patch), json, protobuf)


SUBSCRIBED = r.SubscribeResult(
    recoverable=True, epoch="abcd", publications=[NEWS], recovered=True, offset=3, positioned=True, was_recovering=True
)

ALL = [
    reply(
        "connect, barely",
        r.ConnectResult("c-1"),
        b'{"id":300,"connect":{"client":"c-1"}}',
        b"\x08\xac\x02*\x05\n\x03c-1",
    ),
    reply(
        "connect",
        r.ConnectResult(
            "c-1", "1.0", True, 3600, b'{"hello":\n1.10}', {"#u": SUBSCRIBED}, 25, True, "s", "n", 1_700_000_000_000
        ),
        (
            b'{"id":300,"connect":{"client":"c-1","version":"1.0","expires":true,"ttl":3600,"dat'
            b'a":{"hello":1.10},"subs":{"#u":{"recoverable":true,"epoch":"abcd","publications":['
            b'{"data":{"a": 1.10},"info":{"user":"alice","client":"a-1","conn_info":{"name": "Al'
            b'ice"},"chan_info":[1.10]},"offset":4,"tags":{"k":"v"},"time":1700000000001}],"reco'
            b'vered":true,"offset":3,"positioned":true,"was_recovering":true}},"ping":25,"pong":'
            b'true,"session":"s","node":"n","time":1700000000000}}'
        ),
        (
            b'\x08\xac\x02*\x92\x01\n\x03c-1\x12\x031.0\x18\x01 \x90\x1c*\x0f{"hello":\n1.10}2_\n'
            b'\x02#u\x12Y\x18\x012\x04abcd:G"\x0b{"a": 1.10}*\'\n\x05alice\x12\x03a-1\x1a\x11{"n'
            b'ame": "Alice"}"\x06[1.10]0\x04:\x06\n\x01k\x12\x01vH\x81\xd0\x95\xff\xbc1@\x01H\x03'
            b"P\x01`\x018\x19@\x01J\x01sR\x01nX\x80\xd0\x95\xff\xbc1"
        ),
    ),
    reply("subscribe, barely", r.SubscribeResult(), b'{"id":300,"subscribe":{}}', b"\x08\xac\x022\x00"),
    reply(
        "subscribe",
        SUBSCRIBED,
        (
            b'{"id":300,"subscribe":{"recoverable":true,"epoch":"abcd","publications":[{"data":{'
            b'"a": 1.10},"info":{"user":"alice","client":"a-1","conn_info":{"name": "Alice"},"ch'
            b'an_info":[1.10]},"offset":4,"tags":{"k":"v"},"time":1700000000001}],"recovered":tr'
            b'ue,"offset":3,"positioned":true,"was_recovering":true}}'
        ),
        (
            b'\x08\xac\x022Y\x18\x012\x04abcd:G"\x0b{"a": 1.10}*\'\n\x05alice\x12\x03a-1\x1a\x11'
            b'{"name": "Alice"}"\x06[1.10]0\x04:\x06\n\x01k\x12\x01vH\x81\xd0\x95\xff\xbc1@\x01H'
            b"\x03P\x01`\x01"
        ),
    ),
    reply(
        "subscribe, expiring",
        r.SubscribeResult(data=b'{"x":1}', expires=True, ttl=60),
        b'{"id":300,"subscribe":{"expires":true,"ttl":60,"data":{"x":1}}}',
        b'\x08\xac\x022\r\x08\x01\x10<Z\x07{"x":1}',
    ),
    reply(
        "subscribe with deltas",
        r.SubscribeResult(publications=[NEWS], delta=True),
        (
            b'{"id":300,"subscribe":{"publications":[{"data":"{\\"a\\": 1.10}","info":{"user":"a'
            b'lice","client":"a-1","conn_info":{"name": "Alice"},"chan_info":[1.10]},"offset":4,'
            b'"tags":{"k":"v"},"time":1700000000001}],"delta":true}}'
        ),
        (
            b'\x08\xac\x022K:G"\x0b{"a": 1.10}*\'\n\x05alice\x12\x03a-1\x1a\x11{"name": "Alice"}'
            b'"\x06[1.10]0\x04:\x06\n\x01k\x12\x01vH\x81\xd0\x95\xff\xbc1h\x01'
        ),
    ),
    reply("unsubscribe", r.UnsubscribeResult(), b'{"id":300,"unsubscribe":{}}', b"\x08\xac\x02:\x00"),
    reply("publish", r.PublishResult(), b'{"id":300,"publish":{}}', b"\x08\xac\x02B\x00"),
    reply(
        "presence",
        r.PresenceResult({"a-1": ALICE}),
        (
            b'{"id":300,"presence":{"presence":{"a-1":{"user":"alice","client":"a-1","conn_info"'
            b':{"name": "Alice"},"chan_info":[1.10]}}}}'
        ),
        (b'\x08\xac\x02J0\n.\n\x03a-1\x12\'\n\x05alice\x12\x03a-1\x1a\x11{"name": "Alice"}"\x06[1.10]'),
    ),
    reply(
        "presence of nobody known",
        r.PresenceResult({"b-2": NOBODY}),
        b'{"id":300,"presence":{"presence":{"b-2":{"user":"","client":"b-2"}}}}',
        b"\x08\xac\x02J\x0e\n\x0c\n\x03b-2\x12\x05\x12\x03b-2",
    ),
    reply("presence of none", r.PresenceResult({}), b'{"id":300,"presence":{"presence":{}}}', b"\x08\xac\x02J\x00"),
    reply(
        "presence stats",
        r.PresenceStatsResult(2, 1),
        b'{"id":300,"presence_stats":{"num_clients":2,"num_users":1}}',
        b"\x08\xac\x02R\x04\x08\x02\x10\x01",
    ),
    reply(
        "presence stats of none",
        r.PresenceStatsResult(0, 0),
        b'{"id":300,"presence_stats":{"num_clients":0,"num_users":0}}',
        b"\x08\xac\x02R\x00",
    ),
    reply(
        "history",
        r.HistoryResult([NEWS], "abcd", 4),
        (
            b'{"id":300,"history":{"publications":[{"data":{"a": 1.10},"info":{"user":"alice","c'
            b'lient":"a-1","conn_info":{"name": "Alice"},"chan_info":[1.10]},"offset":4,"tags":{'
            b'"k":"v"},"time":1700000000001}],"epoch":"abcd","offset":4}}'
        ),
        (
            b'\x08\xac\x02ZQ\nG"\x0b{"a": 1.10}*\'\n\x05alice\x12\x03a-1\x1a\x11{"name": "Alice"'
            b'}"\x06[1.10]0\x04:\x06\n\x01k\x12\x01vH\x81\xd0\x95\xff\xbc1\x12\x04abcd\x18\x04'
        ),
    ),
    reply(
        "history, the position alone",
        r.HistoryResult([], "abcd", 4),
        b'{"id":300,"history":{"publications":[],"epoch":"abcd","offset":4}}',
        b"\x08\xac\x02Z\x08\x12\x04abcd\x18\x04",
    ),
    reply(
        "history of a new stream",
        r.HistoryResult([], "", 0),
        b'{"id":300,"history":{"publications":[],"epoch":"","offset":0}}',
        b"\x08\xac\x02Z\x00",
    ),
    reply("ping", r.PingResult(), b'{"id":300,"ping":{}}', b"\x08\xac\x02b\x00"),
    reply("rpc", r.RpcResult(b'{"y": 2}'), b'{"id":300,"rpc":{"data":{"y": 2}}}', b'\x08\xac\x02j\n\n\x08{"y": 2}'),
    reply("rpc without data", r.RpcResult(), b'{"id":300,"rpc":{}}', b"\x08\xac\x02j\x00"),
    reply(
        "refresh",
        r.RefreshResult("c-1", "1.0", True, 3600),
        b'{"id":300,"refresh":{"client":"c-1","version":"1.0","expires":true,"ttl":3600}}',
        b"\x08\xac\x02r\x0f\n\x03c-1\x12\x031.0\x18\x01 \x90\x1c",
    ),
    reply(
        "sub refresh",
        r.SubRefreshResult(True, 3600),
        b'{"id":300,"sub_refresh":{"expires":true,"ttl":3600}}',
        b"\x08\xac\x02z\x05\x08\x01\x10\x90\x1c",
    ),
    error(
        codes.ERROR_PERMISSION_DENIED,
        b'{"id":7,"error":{"code":103,"message":"permission denied"}}',
        b"\x08\x07\x12\x15\x08g\x12\x11permission denied",
    ),
    error(
        codes.ERROR_INTERNAL,
        b'{"id":7,"error":{"code":100,"message":"internal server error","temporary":true}}',
        b"\x08\x07\x12\x1b\x08d\x12\x15internal server error\x18\x01",
    ),
    push(
        "pub",
        NEWS,
        (
            b'{"push":{"channel":"news","pub":{"data":{"a": 1.10},"info":{"user":"alice","client'
            b'":"a-1","conn_info":{"name": "Alice"},"chan_info":[1.10]},"offset":4,"tags":{"k":"'
            b'v"},"time":1700000000001}}}'
        ),
        (
            b'"O\x12\x04news"G"\x0b{"a": 1.10}*\'\n\x05alice\x12\x03a-1\x1a\x11{"name": "Alice"}'
            b'"\x06[1.10]0\x04:\x06\n\x01k\x12\x01vH\x81\xd0\x95\xff\xbc1'
        ),
    ),
    push(
        "join",
        r.Join(ALICE),
        (
            b'{"push":{"channel":"news","join":{"info":{"user":"alice","client":"a-1","conn_info'
            b'":{"name": "Alice"},"chan_info":[1.10]}}}}'
        ),
        b'"1\x12\x04news*)\n\'\n\x05alice\x12\x03a-1\x1a\x11{"name": "Alice"}"\x06[1.10]',
    ),
    push(
        "leave",
        r.Leave(NOBODY),
        b'{"push":{"channel":"news","leave":{"info":{"user":"","client":"b-2"}}}}',
        b'"\x0f\x12\x04news2\x07\n\x05\x12\x03b-2',
    ),
    push(
        "unsubscribe",
        codes.UNSUBSCRIBE_INSUFFICIENT_STATE,
        (b'{"push":{"channel":"news","unsubscribe":{"code":2500,"reason":"insufficient state"}}}'),
        b'"\x1f\x12\x04news:\x17\x10\xc4\x13\x1a\x12insufficient state',
    ),
    push(
        "subscribe",
        r.Subscribed(True, "abcd", 9, True, b'{"x":1}'),
        (
            b'{"push":{"channel":"news","subscribe":{"recoverable":true,"epoch":"abcd","offset":'
            b'9,"positioned":true,"data":{"x":1}}}}'
        ),
        b'"\x1d\x12\x04newsJ\x15\x08\x01"\x04abcd(\t0\x01:\x07{"x":1}',
    ),
    push("subscribe, barely", r.Subscribed(), b'{"push":{"channel":"news","subscribe":{}}}', b'"\x08\x12\x04newsJ\x00'),
    push(
        "message", r.Message(b'{"m":1}'), b'{"push":{"message":{"data":{"m":1}}}}', b'"\x0bB\t\n\x07{"m":1}', channel=""
    ),
    push(
        "connect push",
        r.ConnectResult("c-1", ping=25, pong=True),
        b'{"push":{"connect":{"client":"c-1","ping":25,"pong":true}}}',
        b'"\x0bR\t\n\x03c-18\x19@\x01',
        channel="",
    ),
    push(
        "disconnect, to come back",
        codes.DISCONNECT_SHUTDOWN,
        b'{"push":{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}}',
        b'"\x11Z\x0f\x08\xb9\x17\x12\x08shutdown\x18\x01',
        channel="",
    ),
    push(
        "disconnect, for good",
        codes.DISCONNECT_BAD_REQUEST,
        b'{"push":{"disconnect":{"code":3501,"reason":"bad request","reconnect":false}}}',
        b'"\x12Z\x10\x08\xad\x1b\x12\x0bbad request',
        channel="",
    ),
    push(
        "refresh push",
        r.Refreshed(True, 3600),
        b'{"push":{"refresh":{"expires":true,"ttl":3600}}}',
        b'"\x07b\x05\x08\x01\x10\x90\x1c',
        channel="",
    ),
    publication(
        "publication",
        NEWS,
        (
            b'{"push":{"channel":"news","pub":{"data":{"a": 1.10},"info":{"user":"alice","client'
            b'":"a-1","conn_info":{"name": "Alice"},"chan_info":[1.10]},"offset":4,"tags":{"k":"'
            b'v"},"time":1700000000001}}}'
        ),
        (
            b'"O\x12\x04news"G"\x0b{"a": 1.10}*\'\n\x05alice\x12\x03a-1\x1a\x11{"name": "Alice"}'
            b'"\x06[1.10]0\x04:\x06\n\x01k\x12\x01vH\x81\xd0\x95\xff\xbc1'
        ),
    ),
    publication(
        "raw text that is JSON",
        Publication(b' {"a":\r\n1.10} '),
        b'{"push":{"channel":"news","pub":{"data": {"a":1.10} }}}',
        b'"\x18\x12\x04news"\x10"\x0e {"a":\r\n1.10} ',
    ),
    publication(
        "raw text that is a number",
        Publication(b"5"),
        b'{"push":{"channel":"news","pub":{"data":5}}}',
        b'"\x0b\x12\x04news"\x03"\x015',
    ),
    publication(
        "JSON that is a string",
        Publication(b'"5"', is_json=True),
        b'{"push":{"channel":"news","pub":{"data":"5"}}}',
        b'"\r\x12\x04news"\x05"\x03"5"',
    ),
    publication(
        "raw text",
        Publication('he said "☃"\n'.encode()),
        b'{"push":{"channel":"news","pub":{"data":"he said \\"\xe2\x98\x83\\"\\n"}}}',
        b'"\x18\x12\x04news"\x10"\x0ehe said "\xe2\x98\x83"\n',
    ),
    publication(
        "no text at all", Publication(b""), b'{"push":{"channel":"news","pub":{"data":""}}}', b'"\x08\x12\x04news"\x00'
    ),
    publication(
        "binary",
        Publication(b"\x00\xff\x01", is_binary=True, tags={"k": "v"}),
        (b'{"push":{"channel":"news","pub":{"data":"AP8B","tags":{"k":"v","encoding":"base64"}}}}'),
        b'"\x15\x12\x04news"\r"\x03\x00\xff\x01:\x06\n\x01k\x12\x01v',
    ),
    delta(
        "in full, for deltas",
        NEWS,
        None,
        (
            b'{"push":{"channel":"news","pub":{"data":"{\\"a\\": 1.10}","info":{"user":"alice","'
            b'client":"a-1","conn_info":{"name": "Alice"},"chan_info":[1.10]},"offset":4,"tags":'
            b'{"k":"v"},"time":1700000000001}}}'
        ),
        (
            b'"O\x12\x04news"G"\x0b{"a": 1.10}*\'\n\x05alice\x12\x03a-1\x1a\x11{"name": "Alice"}'
            b'"\x06[1.10]0\x04:\x06\n\x01k\x12\x01vH\x81\xd0\x95\xff\xbc1'
        ),
    ),
    delta(
        "text in full, for deltas",
        Publication('"☃"'.encode()),
        None,
        b'{"push":{"channel":"news","pub":{"data":"\\"\xe2\x98\x83\\""}}}',
        b'"\x0f\x12\x04news"\x07"\x05"\xe2\x98\x83"',
    ),
    delta(
        "delta",
        Publication(b'{"a":2}', offset=5),
        b"7\n5@0,2:2}1jbAB;",
        (b'{"push":{"channel":"news","pub":{"data":"7\\n5@0,2:2}1jbAB;","offset":5,"delta":true}}}'),
        b'"\x1e\x12\x04news"\x16"\x107\n5@0,2:2}1jbAB;0\x05@\x01',
    ),
    delta(
        "delta with characters",
        Publication('["☃"]'.encode(), offset=6),
        '7\n7:["☃"]0;'.encode(),
        (b'{"push":{"channel":"news","pub":{"data":"7\\n7:[\\"\xe2\x98\x83\\"]0;","offset":6,"delta":true}}}'),
        b'"\x1b\x12\x04news"\x13"\r7\n7:["\xe2\x98\x83"]0;0\x06@\x01',
    ),
]
