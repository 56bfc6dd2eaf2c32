"""What was said on a channel, before any dialect has put it on the wire.

Laws: immutable; ``payload`` is what the publisher sent, byte for byte, and `is_binary` whether it was binary. Offsets
count up by one per channel, from 1; 0 means that the channel keeps no history. Knows no encoding.
Tuples, for one is made for each message, and these are the fastest values to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ClientInfo(NamedTuple):
    """Who a client is, as others on its channel see it; `conn_info` and `chan_info` are JSON, or empty."""

    user: str
    client: str
    conn_info: bytes = b""
    chan_info: bytes = b""


class Publication(NamedTuple):
    """One message on a channel.

    `payload` is text (UTF-8) or, if `is_binary`, any bytes. `info` names the publisher, when it was a client that is
    known; `tags` are the publisher's own. `published_at` is Unix time in milliseconds, 0 when nobody asked for it.

    `is_json` says that the publisher meant the text as one JSON value (a Centrifuge client, the server API). So the
    string ``"5"`` is kept with its quotes and never mistaken for the number; raw subscribers get a JSON string's text.
    """

    payload: bytes
    is_binary: bool = False
    offset: int = 0
    info: ClientInfo | None = None
    tags: Mapping[str, str] | None = None
    published_at: int = 0
    is_json: bool = False
