"""The fields of a request of the server API: read, checked, and named in what is wrong with them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from server.core.history import Position
from server.core.names import name_fault
from server.core.publication import Publication
from server.dialects.centrifuge.data import MAX_DEPTH, is_deeper, is_json, raw_payload, without_newlines
from server.dialects.centrifuge.json_scan import DuplicateKey, find_elements, find_members
from server.edge.signatures import MAX_TOKEN

# Centrifugo's error codes for the API.
INTERNAL: Final = 100
NOT_FOUND: Final = 104
BAD_REQUEST: Final = 107
NOT_AVAILABLE: Final = 108
UNRECOVERABLE_POSITION: Final = 112

MAX_TAGS: Final = 64
MAX_KEY: Final = 256
# Numbers are those of Centrifugo's api.proto: int32, int64 and, where they cannot be negative, uint64.
INT32: Final = 2**31
INT64: Final = 2**63


class ApiError(Exception):
    """What the caller is told: one of the codes above, and a sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def told(self) -> dict[str, object]:
        """What a reply says of it."""
        return {"code": self.code, "message": str(self)}


class Fields:
    """One request. Every method raises ApiError for what cannot be. A field that is null is missing.

    `text` is the JSON that `request` was read from, if there is one: what is published is cut out of it as it came.
    """

    def __init__(
        self, request: Mapping[str, Any], text: str = "", *, max_channel_length: int, max_message_size: int
    ) -> None:
        self._request = request
        self._text = text
        self._max_channel_length = max_channel_length
        self._max_message_size = max_message_size

    @property
    def request(self) -> Mapping[str, Any]:
        """The request as it was read."""
        return self._request

    def __contains__(self, name: str) -> bool:
        return self._request.get(name) is not None

    def named(self, names: Sequence[str]) -> list[str]:
        """Return those of `names` that this request has."""
        return [name for name in names if name in self]

    def text(self, name: str, most: int = MAX_KEY) -> str:
        """Read a string, "" when it is missing."""
        text: str = self._typed(name, str, "a string", "")
        if len(text) > most:
            raise ApiError(BAD_REQUEST, f"{name}: longer than {most} characters")
        return text

    def flag(self, name: str) -> bool:
        """Read a boolean, false when it is missing."""
        flag: bool = self._typed(name, bool, "true or false", default=False)
        return flag

    def number(self, name: str) -> int:
        """Read a whole number of 32 bits, 0 when it is missing."""
        value = self._whole(name)
        if not -INT32 <= value < INT32:
            raise ApiError(BAD_REQUEST, f"{name}: has more than 32 bits")
        return value

    def natural(self, name: str, end: int = 2 * INT64) -> int:
        """Read a whole number that is not negative but below `end`, 0 when it is missing."""
        value = self._whole(name)
        if value < 0:
            raise ApiError(BAD_REQUEST, f"{name}: 0 or more is needed")
        if value >= end:
            raise ApiError(BAD_REQUEST, f"{name}: less than {end} is needed")
        return value

    def _whole(self, name: str) -> int:
        value: int = self._typed(name, int, "a whole number", 0)
        if isinstance(value, bool):
            raise ApiError(BAD_REQUEST, f"{name}: a whole number is needed")
        return value

    def members(self, name: str) -> Mapping[str, Any] | None:
        """Read an object; None when it is missing."""
        members: Mapping[str, Any] | None = self._typed(name, dict, "an object", None)
        return members

    def entries(self, name: str, most: int) -> Sequence[Any]:
        """Read a list, which may be empty but not missing."""
        entries: list[Any] | None = self._typed(name, list, "a list", None)
        if entries is None:
            raise ApiError(BAD_REQUEST, f"{name}: a list is needed")
        if len(entries) > most:
            raise ApiError(BAD_REQUEST, f"{name}: more than {most}")
        return entries

    def texts(self, name: str, most: int) -> Sequence[str]:
        """Read a list of strings, empty when it is missing."""
        texts = self.entries(name, most) if name in self else []
        if not all(isinstance(text, str) for text in texts):
            raise ApiError(BAD_REQUEST, f"{name}: strings are needed")
        return texts

    def parts(self, name: str, most: int) -> list[Fields | None]:
        """Read a list of objects, each as a request of its own; None for what is no object."""
        entries = self.entries(name, most)
        texts = self._elements(name) if self._text else [""] * len(entries)
        return [
            self._inner(entry, text) if isinstance(entry, dict) else None
            for entry, text in zip(entries, texts, strict=True)
        ]

    def part(self, name: str) -> Fields | None:
        """Read an object as a request of its own; None when it is missing."""
        request = self.members(name)
        return None if request is None else self._inner(request, self._cut(name))

    def channel(self) -> str:
        """Read the name of a channel."""
        return self.channel_name(self._request.get("channel"))

    def channel_name(self, name: object) -> str:
        """Check the name of a channel."""
        if not isinstance(name, str) or not name:
            raise ApiError(BAD_REQUEST, "channel: a name is needed")
        if fault := name_fault(name, self._max_channel_length):
            raise ApiError(BAD_REQUEST, f"channel: the name {fault}")
        return name

    def user(self) -> str:
        """Read a user's name, which may be empty: clients that have none are a user too.

        It may be as long as a token can say it: whoever is let in can be reached.
        """
        if "user" not in self:
            raise ApiError(BAD_REQUEST, "user: a name is needed")
        return self.text("user", MAX_TOKEN)

    def publication(self) -> Publication:
        """Read ``data`` (any JSON) or ``b64data`` (binary; an empty one counts if there is no other), and ``tags``."""
        tags = self._tags()
        if self._request.get("b64data") or ("b64data" in self and "data" not in self._request):
            publication = Publication(self.base64("b64data"), is_binary=True, tags=tags)
        elif "data" in self._request:
            publication = Publication(self._json("data"), tags=tags, is_json=True)
        else:
            raise ApiError(BAD_REQUEST, "data: a JSON value is needed")
        self._limit("data", len(raw_payload(publication)))
        return publication

    def shown(self, name: str) -> bytes | None:
        """Read JSON that clients get to see, ``name`` or in base64 ``b64`` + name; None when both are missing."""
        encoded = f"b64{name}"
        if self._request.get(encoded):
            text = self.base64(encoded)
            if not is_json(text):
                raise ApiError(BAD_REQUEST, f"{encoded}: base64 of JSON is needed")
        elif name in self:
            text = self._json(name)
        else:
            return None
        self._limit(name, len(text))
        return without_newlines(text)

    def base64(self, name: str) -> bytes:
        """Read base64."""
        try:
            return base64.b64decode(self._request[name], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise ApiError(BAD_REQUEST, f"{name}: not base64") from None

    def position(self, name: str) -> Position | None:
        """Read ``{"offset": …, "epoch": …}``; None when it is missing."""
        place = self.part(name)
        return None if place is None else Position(place.natural("offset"), place.text("epoch"))

    def _inner(self, request: Mapping[str, Any], text: str) -> Fields:
        return Fields(
            request, text, max_channel_length=self._max_channel_length, max_message_size=self._max_message_size
        )

    def _tags(self) -> Mapping[str, str] | None:
        tags = self.members("tags")
        if not tags:
            return None
        if len(tags) > MAX_TAGS or not all(isinstance(value, str) for value in tags.values()):
            raise ApiError(BAD_REQUEST, f"tags: at most {MAX_TAGS} strings are needed")
        self._limit("tags", sum(len(name.encode()) + len(value.encode()) for name, value in tags.items()))
        return tags

    def _limit(self, name: str, size: int) -> None:
        if size > self._max_message_size:
            raise ApiError(BAD_REQUEST, f"{name}: larger than {self._max_message_size} bytes")

    def _json(self, name: str) -> bytes:
        value = self._request[name]
        try:
            written = orjson.dumps(value)
        except TypeError:
            # It came as JSON; what may be read is deeper than what may be written.
            raise ApiError(BAD_REQUEST, f"{name}: nested too deeply") from None
        if is_deeper(written, value, MAX_DEPTH):
            raise ApiError(BAD_REQUEST, f"{name}: nested too deeply")
        if isinstance(value, str):
            return written
        return self._cut(name).encode() or written

    def _cut(self, name: str) -> str:
        """Return the text of a field, "" if there is no text at all."""
        if not self._text:
            return ""
        try:
            begin, end = find_members(self._text, "")[name]
        except DuplicateKey:
            raise ApiError(BAD_REQUEST, "a field comes twice") from None
        except RecursionError:
            raise ApiError(BAD_REQUEST, "the request is nested too deeply") from None
        return self._text[begin:end]

    def _elements(self, name: str) -> list[str]:
        text = self._cut(name)
        return [text[begin:end] for begin, end in find_elements(text)]

    def _typed(self, name: str, kind: type, needed: str, default: Any) -> Any:
        value = self._request.get(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise ApiError(BAD_REQUEST, f"{name}: {needed} is needed")
        return value
