"""The dialect as JSON: commands and replies are JSON objects, one per line. A codec, as `codec` describes it.

Laws:
- a publisher's JSON is embedded as it came.
- fields that are zero, false or empty are left out, as Centrifugo does; its SDKs expect the ones that are always here.
- a message holds no raw newline.

Embedded data is taken for valid JSON: whoever made it has seen to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import orjson
from orjson import Fragment

from server.core.frames import TEXT
from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import replies
from server.dialects.centrifuge.codes import BadCommands, Disconnect, Error, Unsubscribe
from server.dialects.centrifuge.commands import MAX_SUBS, Command
from server.dialects.centrifuge.data import json_tags, json_text, without_newlines
from server.dialects.centrifuge.json_commands import decode_line
from server.dialects.centrifuge.replies import Push, Result

name: Final = "json"
opcode: Final = TEXT

Fields = dict[str, Any]

# What is kept of encoded publications for those who read them next, in all and of each; and what it takes to keep one.
MOST_KEPT_BYTES: Final = 16 * 1024 * 1024
MOST_KEPT_OF_ONE: Final = 4096
_KEEPING: Final = 400


def decode(payload: bytes, max_commands: int, max_subs: int = MAX_SUBS) -> list[Command]:
    """Decode a frame's payload: commands, one per line. Raises BadCommands; see `codec.Codec`."""
    lines = payload.split(b"\n", max_commands + 1)
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise BadCommands("an empty frame")
    if len(lines) > max_commands:
        raise BadCommands("too many commands in a frame")
    return [decode_line(line, max_subs) for line in lines]


def encode_reply(id: int, result: Result) -> bytes:
    """Encode the good answer to the command `id`."""
    method, fields = _RESULTS[type(result)]
    return orjson.dumps({"id": id, method: fields(result)})


def encode_error(id: int, error: Error) -> bytes:
    """Encode the bad answer to the command `id`."""
    fields: Fields = {"code": error.code, "message": error.message}
    if error.temporary:
        fields["temporary"] = True
    return orjson.dumps({"id": id, "error": fields})


def encode_push(channel: str, push: Push) -> bytes:
    """Encode what nobody asked for; `channel` is empty for what concerns the connection."""
    kind, fields = _PUSHES[type(push)]
    return _push(channel, kind, fields(push))


def encode_publication(channel: str, publication: Publication) -> bytes:
    """Encode a publication's push: the same bytes for each JSON subscriber."""
    return _push(channel, "pub", _publication(publication))


def sizes(publications: Iterable[Publication], *, delta: bool = False) -> Iterable[int]:
    """Tell how many bytes each publication takes in a reply, with the comma behind it."""
    if delta:
        return (len(orjson.dumps(_delta_publication(publication, None))) + 1 for publication in publications)
    return (size + 1 for _, _, size in _kept.encode(publications))


def data(publication: Publication) -> bytes:
    """Return the data as JSON text, which is what JSON deltas go between."""
    return json_text(publication)


def encode_delta_publication(channel: str, publication: Publication, delta: bytes | None) -> bytes:
    """Encode a publication's push for those who agreed on deltas: `delta`, or None for all of it, in a JSON string.

    `delta` is UTF-8, as `fossil.create_delta` makes it from one JSON text to another.
    """
    return _push(channel, "pub", _delta_publication(publication, delta))


def join(messages: Iterable[bytes]) -> bytes:
    """Put messages, at least one, into the payload of one WebSocket frame."""
    return b"\n".join(messages)


def ping() -> bytes:
    """Return the payload of a ping: an empty reply."""
    return b"{}"


def _push(channel: str, kind: str, fields: Fields) -> bytes:
    push: Fields = {"channel": channel, kind: fields} if channel else {kind: fields}
    return orjson.dumps({"push": push})


def _without_zeros(**fields: object) -> Fields:
    return {name: value for name, value in fields.items() if value}


def _embedded(json: bytes | None) -> Fragment | None:
    return Fragment(without_newlines(json)) if json else None


def _publication(publication: Publication) -> Fields:
    return {"data": Fragment(json_text(publication)), **_around_data(publication)}


# A publication, its encoding, and how many bytes that has.
_Encoded = tuple[Publication, Fragment, int]


class _Kept:
    """Publications that are read again and again, encoded once: many clients that come back have missed the same.

    Law: holds at most MOST_KEPT_BYTES, counting MOST_KEPT_OF_ONE for a publication and its encoding at most; what is
    found is of the very object that is asked for. So many have room that what is measured is not encoded twice.
    """

    def __init__(self) -> None:
        self._encoded: dict[int, _Encoded] = {}
        self._bytes = 0

    def encode(self, publications: Iterable[Publication]) -> Iterator[_Encoded]:
        kept = self._encoded
        for publication in publications:
            found = kept.get(id(publication))
            if found is None or found[0] is not publication:
                found = self._encode(publication)
            yield found

    def _encode(self, publication: Publication) -> _Encoded:
        encoded = orjson.dumps(_publication(publication))
        made = publication, Fragment(encoded), len(encoded)
        weight = len(publication.payload) + len(encoded) + _KEEPING
        if weight <= MOST_KEPT_OF_ONE:
            self._bytes += weight
            if self._bytes > MOST_KEPT_BYTES:
                self._encoded.clear()
                self._bytes = weight
            self._encoded[id(publication)] = made
        return made

    def __len__(self) -> int:
        return len(self._encoded)


_kept: Final = _Kept()


def _publications(publications: Iterable[Publication]) -> list[Fragment]:
    return [encoded for _, encoded, _ in _kept.encode(publications)]


def _delta_publication(publication: Publication, delta: bytes | None) -> Fields:
    if delta is None:
        return {"data": json_text(publication).decode(), **_around_data(publication)}
    return {"data": delta.decode(), **_around_data(publication), "delta": True}


def _around_data(publication: Publication) -> Fields:
    fields: Fields = {}
    if publication.info is not None:
        fields["info"] = _info(publication.info)
    if publication.offset:
        fields["offset"] = publication.offset
    tags = json_tags(publication)
    if tags:
        fields["tags"] = dict(tags)
    if publication.published_at:
        fields["time"] = publication.published_at
    return fields


def _info(info: ClientInfo) -> Fields:
    fields: Fields = {"user": info.user, "client": info.client}
    if info.conn_info:
        fields["conn_info"] = _embedded(info.conn_info)
    if info.chan_info:
        fields["chan_info"] = _embedded(info.chan_info)
    return fields


def _connect(result: replies.ConnectResult) -> Fields:
    return _without_zeros(
        client=result.client,
        version=result.version,
        expires=result.expires,
        ttl=result.ttl,
        data=_embedded(result.data),
        subs={channel: _subscribe(sub) for channel, sub in result.subs.items()},
        ping=result.ping,
        pong=result.pong,
        session=result.session,
        node=result.node,
        time=result.time,
    )


def _subscribe(result: replies.SubscribeResult) -> Fields:
    publications: list[Fields] | list[Fragment] = _publications(result.publications)
    if result.delta:
        publications = [_delta_publication(full, None) for full in result.publications]
    return _without_zeros(
        expires=result.expires,
        ttl=result.ttl,
        recoverable=result.recoverable,
        epoch=result.epoch,
        publications=publications,
        recovered=result.recovered,
        offset=result.offset,
        positioned=result.positioned,
        data=_embedded(result.data),
        was_recovering=result.was_recovering,
        delta=result.delta,
    )


def _presence(result: replies.PresenceResult) -> Fields:
    return {"presence": {client: _info(info) for client, info in result.presence.items()}}


def _presence_stats(result: replies.PresenceStatsResult) -> Fields:
    return {"num_clients": result.num_clients, "num_users": result.num_users}


def _history(result: replies.HistoryResult) -> Fields:
    return {"publications": _publications(result.publications), "epoch": result.epoch, "offset": result.offset}


def _refresh(result: replies.RefreshResult) -> Fields:
    return _without_zeros(client=result.client, version=result.version, expires=result.expires, ttl=result.ttl)


def _expiry(result: replies.SubRefreshResult | replies.Refreshed) -> Fields:
    return _without_zeros(expires=result.expires, ttl=result.ttl)


def _data_alone(said: replies.RpcResult | replies.Message) -> Fields:
    return _without_zeros(data=_embedded(said.data))


def _subscribed(push: replies.Subscribed) -> Fields:
    return _without_zeros(
        recoverable=push.recoverable,
        epoch=push.epoch,
        offset=push.offset,
        positioned=push.positioned,
        data=_embedded(push.data),
    )


def _unsubscribe(push: Unsubscribe) -> Fields:
    return {"code": push.code, "reason": push.reason}


def _disconnect(push: Disconnect) -> Fields:
    return {"code": push.code, "reason": push.reason, "reconnect": push.reconnect}


def _nothing(result: object) -> Fields:
    return {}


_Encoder = tuple[str, Callable[[Any], Fields]]

_RESULTS: Final[dict[type, _Encoder]] = {
    replies.ConnectResult: ("connect", _connect),
    replies.SubscribeResult: ("subscribe", _subscribe),
    replies.UnsubscribeResult: ("unsubscribe", _nothing),
    replies.PublishResult: ("publish", _nothing),
    replies.PresenceResult: ("presence", _presence),
    replies.PresenceStatsResult: ("presence_stats", _presence_stats),
    replies.HistoryResult: ("history", _history),
    replies.PingResult: ("ping", _nothing),
    replies.RpcResult: ("rpc", _data_alone),
    replies.RefreshResult: ("refresh", _refresh),
    replies.SubRefreshResult: ("sub_refresh", _expiry),
}

_PUSHES: Final[dict[type, _Encoder]] = {
    Publication: ("pub", _publication),
    replies.Join: ("join", lambda push: {"info": _info(push.info)}),
    replies.Leave: ("leave", lambda push: {"info": _info(push.info)}),
    Unsubscribe: ("unsubscribe", _unsubscribe),
    replies.Subscribed: ("subscribe", _subscribed),
    replies.Message: ("message", _data_alone),
    replies.ConnectResult: ("connect", _connect),
    Disconnect: ("disconnect", _disconnect),
    replies.Refreshed: ("refresh", _expiry),
}
