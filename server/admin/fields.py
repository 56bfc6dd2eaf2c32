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
from server.dialects.centrifuge.data import MAX_DEPTH, is_deeper, raw_payload

# Centrifugo's error codes for the API.
INTERNAL: Final = 100
UNKNOWN_CHANNEL: Final = 102
BAD_REQUEST: Final = 107
NOT_AVAILABLE: Final = 108
UNRECOVERABLE_POSITION: Final = 112

MAX_TAGS: Final = 64
MAX_KEY: Final = 256


class ApiError(Exception):
    """What the caller is told: one of the codes above, and a sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Fields:
    """One request. Every method raises ApiError for what cannot be."""

    def __init__(self, request: Mapping[str, Any], *, max_channel_length: int, max_message_size: int) -> None:
        self._request = request
        self._max_channel_length = max_channel_length
        self._max_message_size = max_message_size

    def __contains__(self, name: str) -> bool:
        return self._request.get(name) is not None

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
        """Read a whole number, 0 when it is missing."""
        value: int = self._typed(name, int, "a whole number", 0)
        if isinstance(value, bool):
            raise ApiError(BAD_REQUEST, f"{name}: a whole number is needed")
        return value

    def members(self, name: str) -> Mapping[str, Any] | None:
        """Read an object; None when it is missing."""
        members: Mapping[str, Any] | None = self._typed(name, dict, "an object", None)
        return members

    def entries(self, name: str, most: int) -> Sequence[Any]:
        """Read a list of at least one entry."""
        entries: list[Any] = self._typed(name, list, "a list", [])
        if not entries:
            raise ApiError(BAD_REQUEST, f"{name}: a list is needed")
        if len(entries) > most:
            raise ApiError(BAD_REQUEST, f"{name}: more than {most}")
        return entries

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
        """Read a user's name, which may be empty: clients that have none are a user too."""
        if "user" not in self:
            raise ApiError(BAD_REQUEST, "user: a name is needed")
        return self.text("user")

    def publication(self) -> Publication:
        """Read ``data`` (any JSON) or ``b64data`` (binary), and ``tags``."""
        tags = self._tags()
        if "b64data" in self:
            payload = self.base64("b64data")
            publication = Publication(payload, is_binary=True, tags=tags)
        elif "data" in self._request:
            publication = Publication(self._json("data"), tags=tags, is_json=True)
        else:
            raise ApiError(BAD_REQUEST, "data: a JSON value is needed")
        if len(raw_payload(publication)) > self._max_message_size:
            raise ApiError(BAD_REQUEST, f"data: larger than {self._max_message_size} bytes")
        return publication

    def json_or_base64(self, name: str) -> bytes | None:
        """Read ``name`` (any JSON) or ``b64`` + name; None when both are missing."""
        if f"b64{name}" in self:
            return self.base64(f"b64{name}")
        return self._json(name) if name in self else None

    def base64(self, name: str) -> bytes:
        """Read base64."""
        try:
            return base64.b64decode(self._request[name], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise ApiError(BAD_REQUEST, f"{name}: not base64") from None

    def position(self, name: str) -> Position | None:
        """Read ``{"offset": …, "epoch": …}``; None when it is missing."""
        place = self.members(name)
        if place is None:
            return None
        fields = Fields(place, max_channel_length=self._max_channel_length, max_message_size=self._max_message_size)
        return Position(fields.number("offset"), fields.text("epoch"))

    def inner(self, request: Mapping[str, Any]) -> Fields:
        """Make the fields of a part of this request."""
        return Fields(request, max_channel_length=self._max_channel_length, max_message_size=self._max_message_size)

    def _tags(self) -> Mapping[str, str] | None:
        tags = self.members("tags")
        if not tags:
            return None
        if len(tags) > MAX_TAGS or not all(isinstance(value, str) for value in tags.values()):
            raise ApiError(BAD_REQUEST, f"tags: at most {MAX_TAGS} strings are needed")
        return tags

    def _json(self, name: str) -> bytes:
        value = self._request[name]
        try:
            text = orjson.dumps(value)
        except TypeError:
            # It came as JSON; what may be read is deeper than what may be written.
            raise ApiError(BAD_REQUEST, f"{name}: nested too deeply") from None
        if is_deeper(text, value, MAX_DEPTH):
            raise ApiError(BAD_REQUEST, f"{name}: nested too deeply")
        return text

    def _typed(self, name: str, kind: type, needed: str, default: Any) -> Any:
        value = self._request.get(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise ApiError(BAD_REQUEST, f"{name}: {needed} is needed")
        return value
