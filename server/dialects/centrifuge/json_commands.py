"""One line of JSON to one command.

Laws:
- what a client publishes is cut out of the line as it came, not built anew from Python objects: ``1.10`` stays so.
- a key that comes twice is an error: which of the two counts would be anybody's guess.
- a line without a usable id ends the connection (BadCommands): there is nobody to answer. Anything wrong under an id is
  `Rejected`, and the connection lives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from json import JSONDecoder
from typing import Any, Final

import orjson

from server.core.history import Position
from server.dialects.centrifuge import codes, commands
from server.dialects.centrifuge.codes import BadCommands
from server.dialects.centrifuge.commands import Body, Command
from server.dialects.centrifuge.data import MAX_DEPTH, is_deeper
from server.dialects.centrifuge.json_scan import DuplicateKey, find_members

MAX_ID: Final = 2**32 - 1
# A command's own two levels, around what is published.
_ENVELOPE: Final = 2
# client.proto gives no message more fields; one that has is not scanned.
_MAX_FIELDS: Final = 32
# A longer line that is no JSON is not read a second time for its id.
_MAX_SALVAGE: Final = 16_384

_REJECTED: Final = commands.Rejected(codes.ERROR_BAD_REQUEST)
_UNKNOWN: Final = commands.Rejected(codes.ERROR_METHOD_NOT_FOUND)


class _Wrong(Exception):
    """A field of another type, or out of bounds."""


def decode_line(line: bytes, max_subs: int = commands.MAX_SUBS) -> Command:
    """Decode one command; a connect command has at most `max_subs` of ``subs``. Raises BadCommands."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return Command(_salvage_id(line), _REJECTED)
    if type(fields) is not dict:
        raise BadCommands("a command that is no object")
    id = fields.get("id")
    if id is None:
        id = 0
    if type(id) is not int or not 0 <= id <= MAX_ID:
        raise BadCommands("an id that is no number of 32 bits")
    methods = [name for name, body in fields.items() if body is not None and name in _BODIES]
    if not methods:
        return _without_method(id, fields)
    body = _decode_body(line, fields, methods[0], max_subs) if len(methods) == 1 else _REJECTED
    if not id and type(body) is not commands.Send:
        raise BadCommands("a command without an id")
    return Command(id, body)


def _without_method(id: int, fields: dict[str, Any]) -> Command:
    if id:
        return Command(id, _UNKNOWN)
    if fields.keys() <= {"id"}:
        return Command(0, commands.Pong())
    raise BadCommands("neither a pong nor a command")


def _decode_body(line: bytes, fields: dict[str, Any], method: str, max_subs: int) -> Body:
    body = fields[method]
    if type(body) is not dict or len(body) > _MAX_FIELDS or len(fields) > _MAX_FIELDS:
        return _REJECTED
    if is_deeper(line, fields, MAX_DEPTH + _ENVELOPE):
        return _REJECTED
    data = _cut_data(line, fields, method)
    try:
        return _connect(body, data, max_subs) if method == "connect" else _BODIES[method](body, data)
    except _Wrong:
        return _REJECTED


def _cut_data(line: bytes, fields: dict[str, Any], method: str) -> bytes | None:
    """Return the bytes of the body's ``data``, as they are in the line; None if there is none."""
    body: dict[str, Any] = fields[method]
    if orjson.dumps(fields) == line:
        # Nothing was lost on the way to Python and back, so nothing is when only `data` goes. What most clients send.
        return orjson.dumps(body["data"]) if "data" in body else None
    text = line.decode()
    try:
        spans = find_members(text, method)
    except DuplicateKey:
        raise BadCommands("a key that comes twice") from None
    span = spans.get(method + ".data")
    return text[slice(*span)].encode() if span else None


def _salvage_id(line: bytes) -> int:
    """Return the id of what almost is a command, such as a text with half an emoji in it. Raises BadCommands."""
    if len(line) > _MAX_SALVAGE:
        raise BadCommands("no JSON, and long")
    try:
        fields = JSONDecoder().decode(line.decode())
    except (ValueError, RecursionError):  # JSONDecodeError, UnicodeDecodeError, or too many digits
        raise BadCommands("no JSON") from None
    id = fields.get("id") if isinstance(fields, dict) else None
    if type(id) is not int or not 0 < id <= MAX_ID:
        raise BadCommands("no JSON and no id")
    return id


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if type(value) is not str:
        raise _Wrong
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise _Wrong
    return value


def _number(fields: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if value is None:
        return 0
    if type(value) is not int or not least <= value <= most:
        raise _Wrong
    return value


def _uint64(fields: Mapping[str, Any], name: str) -> int:
    return _number(fields, name, 0, 2**64 - 1)


def _int32(fields: Mapping[str, Any], name: str) -> int:
    return _number(fields, name, -(2**31), 2**31 - 1)


def _int64(fields: Mapping[str, Any], name: str) -> int:
    return _number(fields, name, -(2**63), 2**63 - 1)


def _object(fields: Mapping[str, Any], name: str, most: int) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if type(value) is not dict or len(value) > most:
        raise _Wrong
    return value


def _subscribe(fields: Mapping[str, Any], data: bytes | None) -> commands.Subscribe:
    return commands.Subscribe(
        channel=_text(fields, "channel"),
        token=_text(fields, "token"),
        recover=_flag(fields, "recover"),
        epoch=_text(fields, "epoch"),
        offset=_uint64(fields, "offset"),
        data=data,
        positioned=_flag(fields, "positioned"),
        recoverable=_flag(fields, "recoverable"),
        join_leave=_flag(fields, "join_leave"),
        delta=_text(fields, "delta"),
        flag=_int64(fields, "flag"),
        type=_int32(fields, "type"),
        filtered=fields.get("tf") is not None,
    )


def _resumed(channel: str, fields: Mapping[str, Any]) -> commands.Subscribe:
    """Read what a connect command says of a server-side subscription; the rest of it is the server's to say."""
    return commands.Subscribe(
        channel,
        recover=_flag(fields, "recover"),
        epoch=_text(fields, "epoch"),
        offset=_uint64(fields, "offset"),
        delta=_text(fields, "delta"),
    )


def _connect(fields: Mapping[str, Any], data: bytes | None, max_subs: int = commands.MAX_SUBS) -> commands.Connect:
    subs = _object(fields, "subs", max_subs)
    headers = _object(fields, "headers", commands.MAX_HEADERS)
    if any(type(sub) is not dict for sub in subs.values()):
        raise _Wrong
    return commands.Connect(
        token=_text(fields, "token"),
        data=data,
        subs={channel: _resumed(channel, sub) for channel, sub in subs.items()},
        name=_text(fields, "name"),
        version=_text(fields, "version"),
        headers={name: _text(headers, name) for name in headers},
    )


def _publish(fields: Mapping[str, Any], data: bytes | None) -> commands.Publish:
    return commands.Publish(channel=_text(fields, "channel"), data=data, type=_int32(fields, "type"))


def _history(fields: Mapping[str, Any], data: bytes | None) -> commands.History:
    since = _object(fields, "since", _MAX_FIELDS) if fields.get("since") is not None else None
    return commands.History(
        channel=_text(fields, "channel"),
        limit=_int32(fields, "limit"),
        since=None if since is None else Position(_uint64(since, "offset"), _text(since, "epoch")),
        reverse=_flag(fields, "reverse"),
    )


def _sub_refresh(fields: Mapping[str, Any], data: bytes | None) -> commands.SubRefresh:
    return commands.SubRefresh(_text(fields, "channel"), _text(fields, "token"), _int32(fields, "type"))


_BODIES: Final[dict[str, Callable[[Mapping[str, Any], bytes | None], Body]]] = {
    "connect": _connect,
    "ping": lambda fields, data: commands.Ping(),
    "subscribe": _subscribe,
    "unsubscribe": lambda fields, data: commands.Unsubscribe(_text(fields, "channel")),
    "publish": _publish,
    "presence": lambda fields, data: commands.Presence(_text(fields, "channel")),
    "presence_stats": lambda fields, data: commands.PresenceStats(_text(fields, "channel")),
    "history": _history,
    "rpc": lambda fields, data: commands.Rpc(_text(fields, "method"), data),
    "send": lambda fields, data: commands.Send(data),
    "refresh": lambda fields, data: commands.Refresh(_text(fields, "token")),
    "sub_refresh": _sub_refresh,
}
