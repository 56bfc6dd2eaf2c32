"""What the session needs of an encoding: the modules `json_codec` and `protobuf_codec` both are one.

A *message* is one reply or push, without what separates it from its neighbours; `join` puts messages into one WebSocket
frame's payload. So a publication is encoded once, and goes to every subscriber alone or among other messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from server.core.publication import Publication
from server.dialects.centrifuge.codes import Error
from server.dialects.centrifuge.commands import MAX_SUBS, Command
from server.dialects.centrifuge.replies import Push, Result


class Codec(Protocol):
    """Bytes to commands, replies and pushes to bytes."""

    @property
    def name(self) -> str:
        """``json`` or ``protobuf``."""

    @property
    def opcode(self) -> int:
        """The kind of WebSocket frame, both ways: TEXT or BINARY of `server.core.frames`."""

    def decode(self, payload: bytes, max_commands: int, max_subs: int = MAX_SUBS) -> list[Command]:
        """Decode the payload of one WebSocket frame: at least one command, at most `max_commands`.

        A connect command may bring at most `max_subs` positions of server-side subscriptions.

        Raises BadCommands when the frame isn't commands, and nothing else. A command that can be told from its
        neighbours but makes no sense is a `Rejected`.
        """

    def encode_reply(self, id: int, result: Result) -> bytes:
        """Encode the good answer to the command `id`."""

    def encode_error(self, id: int, error: Error) -> bytes:
        """Encode the bad answer to the command `id`."""

    def encode_push(self, channel: str, push: Push) -> bytes:
        """Encode what nobody asked for; `channel` is empty for what concerns the connection."""

    def encode_publication(self, channel: str, publication: Publication) -> bytes:
        """Encode a publication's push: the same bytes for each subscriber of this encoding."""

    def sizes(self, publications: Iterable[Publication], *, delta: bool = False) -> Iterable[int]:
        """Tell how many bytes each publication takes at most in a reply; `delta`: to who agreed on deltas."""

    def data(self, publication: Publication) -> bytes:
        """Return the data as subscribers of this encoding know it: a delta goes from one such to the next."""

    def encode_delta_publication(self, channel: str, publication: Publication, delta: bytes | None) -> bytes:
        """Encode a publication's push for those who agreed on deltas, with `delta` from what they got before it.

        None means in full: their first publication, the one after a gap, or one that a delta would not make shorter.
        """

    def join(self, messages: Iterable[bytes]) -> bytes:
        """Put messages, at least one, into the payload of one WebSocket frame."""

    def ping(self) -> bytes:
        """Return the payload of a ping: one frame for all."""
