"""What holds on channels: options that are set for all of them, and may be set otherwise for those called ``NAME:…``.

Laws: a namespace is complete, whatever its table says, for what it leaves out is filled in from the top level; and the
top level is the namespace of all other channels (`Settings` extends `Namespace`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from server.config.options import Option, is_option, option

LagPolicy = Literal["disconnect", "drop_oldest", "drop_newest", "conflate"]
RecoveryMode = Literal["stream", "cache"]

_YEAR = 365 * 24 * 3600


class Namespace(BaseModel):
    """The options of channels, checked and frozen. Times are seconds and sizes bytes, but for `batch_delay` (ms)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    publish: bool = option(True, "access", "Clients may publish; if not, they only listen.")
    subscribe: bool = option(True, "access", "Clients may subscribe without a token that opens the channel.")
    anonymous: bool = option(True, "access", "Clients without a user may subscribe, too.")
    read_history: bool = option(
        True, "access", "Whoever may subscribe may read the history, and recover from it what was missed."
    )
    allow_recovery: bool = option(
        False,
        "access",
        "Clients may recover what they missed where they may not read the history (from any position that they name).",
    )
    read_presence: bool = option(
        True, "access", "Whoever may subscribe may ask who is on the channel, and be told who comes and goes."
    )

    queue_messages: int = option(256, "backpressure", "Publications that may wait for one client.", low=1)
    queue_bytes: int = option(1048576, "backpressure", "Bytes that may wait for one client.", unit="bytes", low=1)
    lag_policy: LagPolicy = option("disconnect", "backpressure", "What happens to a client whose queue is full.")

    batch_delay: float = option(
        0.0,
        "fan-out",
        "Time that publications are gathered before they go out; 0 is one turn of the event loop.",
        unit="milliseconds",
        low=0,
    )

    history_size: int = option(
        0, "history", "Publications that are kept for those who come back; 0 is no history.", low=0
    )
    history_ttl: float = option(
        300.0,
        "history",
        "Time that they are kept after the last one; 0 is no history.",
        unit="seconds",
        low=0,
        high=_YEAR,
    )
    recovery_mode: RecoveryMode = option(
        "stream", "history", "What those who come back get: all that they missed, or the latest publication alone."
    )
    delta: bool = option(False, "history", "Subscribers that ask for it get publications as Fossil deltas.")

    presence: bool = option(False, "channels", "Keep who is on a channel.")
    join_leave: bool = option(False, "channels", "Tell subscribers that ask for it who comes and goes.")

    @property
    def batch_delay_seconds(self) -> float:
        """`batch_delay` in the unit that clocks and timers use."""
        return self.batch_delay / 1000

    @property
    def keeps_history(self) -> bool:
        """Whether channels have a history at all."""
        return self.history_size > 0 and self.history_ttl > 0

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None, "a validator of fields is always called for one"
        declared = _declared(cls, info.field_name)
        return declared.read(value) if declared else value


@cache
def _declared(model: type[BaseModel], key: str) -> Option | None:
    field = model.model_fields[key]
    return Option.of(key, field) if is_option(field) else None


def complete(table: object, above: dict[str, Any]) -> object:
    """Fill a namespace's table in from `above`, the values of the top level; what is no table stays as it is."""
    if not isinstance(table, dict):
        return table
    return {key: value for key, value in above.items() if key in Namespace.model_fields} | table


def namespace_name(name: str) -> str:
    """Take a namespace's name if it can be the beginning of a channel's. Raises ValueError."""
    if not name or ":" in name or not name.isprintable() or any(character.isspace() for character in name):
        raise ValueError("must be a name without colons, spaces or control characters")
    return name
