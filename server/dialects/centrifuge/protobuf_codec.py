"""The dialect as Protobuf: commands and replies, each behind its length. A codec, as `codec` describes it.

Laws: data is bytes, which nobody here looks into; the runtime checks types, bounds and UTF-8, and a message that it
refuses ends the connection, for it has no id to answer to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from server.core.frames import BINARY
from server.core.history import Position
from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import codes, commands, replies, schema
from server.dialects.centrifuge.codes import BadCommands, Disconnect, Error, Unsubscribe
from server.dialects.centrifuge.commands import Body, Command
from server.dialects.centrifuge.replies import Push, Result

name: Final = "protobuf"
opcode: Final = BINARY

# A length of five bytes is beyond 2 GiB: no WebSocket message that we take holds such a command.
_MAX_LENGTH_BYTES: Final = 5

# What the tags and lengths of fields take beside what is in them: of a publication, of an info, of one entry of a map.
_AROUND: Final = 48

_REJECTED: Final = commands.Rejected(codes.ERROR_BAD_REQUEST)
_UNKNOWN: Final = commands.Rejected(codes.ERROR_METHOD_NOT_FOUND)


def decode(payload: bytes, max_commands: int, max_subs: int = commands.MAX_SUBS) -> list[Command]:
    """Decode a frame's payload: commands, each behind its length. Raises BadCommands; see `codec.Codec`."""
    decoded: list[Command] = []
    at = 0
    while at < len(payload):
        if len(decoded) == max_commands:
            raise BadCommands("too many commands in a frame")
        length, at = _length(payload, at)
        if at + length > len(payload):
            raise BadCommands("a command that ends after its frame")
        decoded.append(_decode_command(payload[at : at + length], max_subs))
        at += length
    if not decoded:
        raise BadCommands("an empty frame")
    return decoded


def encode_reply(id: int, result: Result) -> bytes:
    """Encode the good answer to the command `id`."""
    reply = schema.Reply(id=id)
    method, fill = _RESULTS[type(result)]
    _fill(reply, method, fill, result)
    return _bytes(reply)


def encode_error(id: int, error: Error) -> bytes:
    """Encode the bad answer to the command `id`."""
    reply = schema.Reply(id=id)
    reply.error.code = error.code
    reply.error.message = error.message
    reply.error.temporary = error.temporary
    return _bytes(reply)


def encode_push(channel: str, push: Push) -> bytes:
    """Encode what nobody asked for; `channel` is empty for what concerns the connection."""
    reply = schema.Reply()
    reply.push.channel = channel
    kind, fill = _PUSHES[type(push)]
    _fill(reply.push, kind, fill, push)
    return _bytes(reply)


def encode_publication(channel: str, publication: Publication) -> bytes:
    """Encode a publication's push: the same bytes for each Protobuf subscriber."""
    return encode_push(channel, publication)


def sizes(publications: Iterable[Publication], *, delta: bool = False) -> Iterable[int]:
    """Tell how many bytes each publication takes at most in a reply: what is said, and what is around it."""
    return (
        _size(publication) if publication.info or publication.tags else len(publication.payload) + _AROUND
        for publication in publications
    )


def _size(publication: Publication) -> int:
    size = len(publication.payload) + _AROUND
    if publication.info is not None:
        user, client, *shown = publication.info
        size += len(user.encode()) + len(client.encode()) + sum(map(len, shown)) + _AROUND
    for tag in (publication.tags or {}).items():
        size += sum(len(text.encode()) for text in tag) + _AROUND
    return size


def data(publication: Publication) -> bytes:
    """Return the payload, which is what Protobuf deltas go between."""
    return publication.payload


def encode_delta_publication(channel: str, publication: Publication, delta: bytes | None) -> bytes:
    """Encode a publication's push with `delta` in the place of its data; None is the publication in full."""
    if delta is None:
        return encode_push(channel, publication)
    reply = schema.Reply()
    reply.push.channel = channel
    _fill_publication(reply.push.pub, publication)
    reply.push.pub.data = delta
    reply.push.pub.delta = True
    return _bytes(reply)


def join(messages: Iterable[bytes]) -> bytes:
    """Put messages, at least one, into the payload of one WebSocket frame."""
    parts: list[bytes] = []
    for message in messages:
        parts.append(_varint(len(message)))
        parts.append(message)
    return b"".join(parts)


def ping() -> bytes:
    """Return the payload of a ping: an empty reply, of length 0."""
    return b"\x00"


def _length(payload: bytes, at: int) -> tuple[int, int]:
    """Return the length that is written at `at`, and where it ends."""
    length = 0
    for place in range(_MAX_LENGTH_BYTES):
        if at == len(payload):
            break
        byte = payload[at]
        at += 1
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return length, at
    raise BadCommands("a length that does not end")


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _bytes(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def _decode_command(encoded: bytes, max_subs: int) -> Command:
    try:
        message = schema.Command.FromString(encoded)
    except schema.DecodeError:
        raise BadCommands("no Protobuf command") from None
    fields = {field.name: value for field, value in message.ListFields()}
    id: int = fields.pop("id", 0)
    if not fields:
        return Command(id, _UNKNOWN if id else commands.Pong())
    method, body = next(iter(fields.items()))
    if not id and (method != "send" or len(fields) > 1):
        raise BadCommands("a command without an id")
    if len(fields) > 1:
        return Command(id, _REJECTED)
    return Command(id, _connect(body, max_subs) if method == "connect" else _BODIES[method](body))


def _subscribe(body: Any) -> commands.Subscribe:
    return commands.Subscribe(
        channel=body.channel,
        token=body.token,
        recover=body.recover,
        epoch=body.epoch,
        offset=body.offset,
        data=body.data or None,
        positioned=body.positioned,
        recoverable=body.recoverable,
        join_leave=body.join_leave,
        delta=body.delta,
        flag=body.flag,
        type=body.type,
        filtered=body.HasField("tf"),
    )


def _resumed(channel: str, sub: Any) -> commands.Subscribe:
    """Read what a connect command says of a server-side subscription; the rest of it is the server's to say."""
    return commands.Subscribe(channel, recover=sub.recover, epoch=sub.epoch, offset=sub.offset, delta=sub.delta)


def _connect(body: Any, max_subs: int = commands.MAX_SUBS) -> Body:
    if len(body.subs) > max_subs or len(body.headers) > commands.MAX_HEADERS:
        return _REJECTED
    return commands.Connect(
        token=body.token,
        data=body.data or None,
        subs={channel: _resumed(channel, sub) for channel, sub in body.subs.items()},
        name=body.name,
        version=body.version,
        headers=dict(body.headers),
    )


def _history(body: Any) -> commands.History:
    since = Position(body.since.offset, body.since.epoch) if body.HasField("since") else None
    return commands.History(body.channel, body.limit, since, body.reverse)


_BODIES: Final[dict[str, Callable[[Any], Body]]] = {
    "connect": _connect,
    "ping": lambda body: commands.Ping(),
    "subscribe": _subscribe,
    "unsubscribe": lambda body: commands.Unsubscribe(body.channel),
    "publish": lambda body: commands.Publish(body.channel, body.data or None, body.type),
    "presence": lambda body: commands.Presence(body.channel),
    "presence_stats": lambda body: commands.PresenceStats(body.channel),
    "history": _history,
    "rpc": lambda body: commands.Rpc(body.method, body.data or None),
    "send": lambda body: commands.Send(body.data or None),
    "refresh": lambda body: commands.Refresh(body.token),
    "sub_refresh": lambda body: commands.SubRefresh(body.channel, body.token, body.type),
}

_Filler = Callable[[Any, Any], None]


def _fill(parent: Any, field: str, fill: _Filler, value: object) -> None:
    message = getattr(parent, field)
    # An empty result is one all the same, and must be on the wire.
    message.SetInParent()
    fill(message, value)


def _fill_info(message: Any, info: ClientInfo) -> None:
    message.user = info.user
    message.client = info.client
    message.conn_info = info.conn_info
    message.chan_info = info.chan_info


def _fill_publication(message: Any, publication: Publication) -> None:
    message.data = publication.payload
    message.offset = publication.offset
    message.time = publication.published_at
    if publication.info is not None:
        _fill_info(message.info, publication.info)
    if publication.tags:
        message.tags.update(publication.tags)


def _fill_publications(messages: Any, publications: Iterable[Publication]) -> None:
    for publication in publications:
        _fill_publication(messages.add(), publication)


def _fill_connect(message: Any, result: replies.ConnectResult) -> None:
    _copy(message, result, "client", "version", "expires", "ttl", "ping", "pong", "session", "node", "time")
    message.data = result.data or b""
    for channel, sub in result.subs.items():
        _fill_subscribe(message.subs[channel], sub)


def _fill_subscribe(message: Any, result: replies.SubscribeResult) -> None:
    _copy(message, result, "expires", "ttl", "recoverable", "epoch", "recovered", "offset", "positioned")
    _copy(message, result, "was_recovering", "delta")
    message.data = result.data or b""
    _fill_publications(message.publications, result.publications)


def _fill_presence(message: Any, result: replies.PresenceResult) -> None:
    for client, info in result.presence.items():
        _fill_info(message.presence[client], info)


def _fill_history(message: Any, result: replies.HistoryResult) -> None:
    _copy(message, result, "epoch", "offset")
    _fill_publications(message.publications, result.publications)


def _fill_subscribed(message: Any, push: replies.Subscribed) -> None:
    _copy(message, push, "recoverable", "epoch", "offset", "positioned")
    message.data = push.data or b""


def _fill_data(message: Any, said: replies.RpcResult | replies.Message) -> None:
    message.data = said.data or b""


def _fill_who(message: Any, push: replies.Join | replies.Leave) -> None:
    _fill_info(message.info, push.info)


def _copy(message: Any, value: object, *fields: str) -> None:
    for field in fields:
        setattr(message, field, getattr(value, field))


def _copying(*fields: str) -> _Filler:
    """Return a filler that copies fields of the same names."""
    return lambda message, value: _copy(message, value, *fields)


_RESULTS: Final[dict[type, tuple[str, _Filler]]] = {
    replies.ConnectResult: ("connect", _fill_connect),
    replies.SubscribeResult: ("subscribe", _fill_subscribe),
    replies.UnsubscribeResult: ("unsubscribe", _copying()),
    replies.PublishResult: ("publish", _copying()),
    replies.PresenceResult: ("presence", _fill_presence),
    replies.PresenceStatsResult: ("presence_stats", _copying("num_clients", "num_users")),
    replies.HistoryResult: ("history", _fill_history),
    replies.PingResult: ("ping", _copying()),
    replies.RpcResult: ("rpc", _fill_data),
    replies.RefreshResult: ("refresh", _copying("client", "version", "expires", "ttl")),
    replies.SubRefreshResult: ("sub_refresh", _copying("expires", "ttl")),
}

_PUSHES: Final[dict[type, tuple[str, _Filler]]] = {
    Publication: ("pub", _fill_publication),
    replies.Join: ("join", _fill_who),
    replies.Leave: ("leave", _fill_who),
    Unsubscribe: ("unsubscribe", _copying("code", "reason")),
    replies.Subscribed: ("subscribe", _fill_subscribed),
    replies.Message: ("message", _fill_data),
    replies.ConnectResult: ("connect", _fill_connect),
    Disconnect: ("disconnect", _copying("code", "reason", "reconnect")),
    replies.Refreshed: ("refresh", _copying("expires", "ttl")),
}
