"""What the verified claims of a token mean: who a client is, what it is put on, and what it may subscribe to.

Laws:
- a claim of the wrong type is refused, never ignored or guessed at. Claims that are not known mean nothing (RFC 7519,
  section 4); a claim of the dialect that is null is not there.
- a token is for a connection or for one subscription, never both: the claim ``channel`` makes the difference (RFC 8725,
  section 3.12).
- what clients get to see (`info`, `data`) is JSON on one line, of any kind, fit to be embedded as it is.

The claims are those of Centrifugo (centrifugal.dev, "Client JWT authentication" and "Channel JWT authorization"). The
length of a token bounds them all. Knows neither keys nor clocks.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from server.core.names import name_fault
from server.core.revocations import Token
from server.dialects.centrifuge.data import is_json, without_newlines

Claims = Mapping[str, Any]

# Seconds by which the clock of whoever signs may be ahead of ours: RFC 7519, section 4.1.5.
CLOCK_SKEW: Final = 5.0

# No clock counts further: seconds in 64 bits. It also keeps out what is no number, and numbers that no float holds.
_LATEST: Final = 2.0**64


class WrongClaim(ValueError):
    """A claim is not what it should be. The text quotes nothing of the token."""


class ForAnother(WrongClaim):
    """A subscription token is another user's, or for another channel."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """Where one subscription differs from the options of its channel; None leaves an option as it is.

    `join_leave` is for being told of, `push_joins` for being told.
    """

    presence: bool | None = None
    join_leave: bool | None = None
    push_joins: bool | None = None
    position: bool | None = None
    recover: bool | None = None


NO_OVERRIDES: Final = Overrides()


@dataclass(frozen=True, slots=True)
class ServerSubscription:
    """How a client is put on a channel by its own token.

    `info` is shown to the others on the channel: JSON, or empty. `data` is told to the client itself: JSON, or None.
    """

    info: bytes = b""
    data: bytes | None = None
    overrides: Overrides = NO_OVERRIDES


NO_SUBSCRIPTIONS: Final[Mapping[str, ServerSubscription]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """A client that was let in: its name ("" when anonymous), and when its connection ends (Unix time, or None).

    `info` is JSON that others may see, or empty. `meta` is a JSON object (a dict) that no client may see, or None. The
    client is put on `channels`, and on those of `subs` in their own way. `token` is what let it in, if that can be
    revoked.
    """

    user: str = ""
    expires: float | None = None
    info: bytes = b""
    meta: object = None
    channels: tuple[str, ...] = ()
    subs: Mapping[str, ServerSubscription] = field(default_factory=lambda: NO_SUBSCRIPTIONS)
    token: Token | None = field(default=None, compare=False)

    @property
    def granted(self) -> frozenset[str]:
        """The channels that the token opens by naming them."""
        return frozenset((*self.channels, *self.subs))


@dataclass(frozen=True, slots=True)
class Grant:
    """A subscription that was allowed, and when it ends (Unix time, or None); the rest as in `ServerSubscription`."""

    expires: float | None = None
    info: bytes = b""
    data: bytes | None = None
    overrides: Overrides = NO_OVERRIDES
    token: Token | None = field(default=None, compare=False)


def read_identity(claims: Claims, max_channel_length: int) -> Identity:
    """Read the claims of a connection token. Raises WrongClaim."""
    if "channel" in claims:
        raise WrongClaim("channel: this is a subscription token")
    return Identity(
        _user(claims),
        _ends(claims),
        _shown(claims, "info") or b"",
        _meta(claims),
        _channels(claims, max_channel_length),
        _subs(claims, max_channel_length),
        read_token(claims),
    )


def read_grant(claims: Claims, *, channel: str, user: str) -> Grant:
    """Read the claims of a subscription token that `user` shows for `channel`. Raises WrongClaim, or ForAnother."""
    # A connection token has no such claim, and so is none of these.
    if not _typed(claims, "channel", str):
        raise WrongClaim("channel: is missing")
    if claims["channel"] != channel:
        raise ForAnother("channel: is another")
    if _user(claims) != user:
        raise ForAnother("sub: is another user")
    return Grant(
        _ends(claims),
        _shown(claims, "info") or b"",
        _shown(claims, "data"),
        _overrides(claims),
        read_token(claims, channel),
    )


def read_token(claims: Claims, channel: str = "") -> Token:
    """Read what a token can be revoked by; `channel` is that of a subscription token. Raises WrongClaim."""
    issued = date(claims, "iat")
    return Token(_typed(claims, "jti", str) or "", _user(claims), -math.inf if issued is None else issued, channel)


def is_over(claims: Claims, now: float) -> bool:
    """Tell if the token has expired at `now` (Unix time), or what it allows has. Raises WrongClaim."""
    return any(end is not None and end <= now for end in (date(claims, "exp"), _ends(claims)))


def is_early(claims: Claims, now: float) -> bool:
    """Tell if at `now` (Unix time) the token is not good yet, or is not even made. Raises WrongClaim."""
    return any(begin is not None and begin > now + CLOCK_SKEW for begin in (date(claims, "nbf"), date(claims, "iat")))


def date(claims: Claims, name: str) -> float | None:
    """Read a date in Unix time, None if it is not there.

    Raises WrongClaim unless it is a JSON number. RFC 7519, section 2.
    """
    if name not in claims:
        return None
    value = claims[name]
    # Not isinstance: true is an int. Nothing compares with NaN.
    if type(value) not in (int, float) or not -_LATEST <= value <= _LATEST:
        raise WrongClaim(f"{name}: is no date")
    return float(value)


def _ends(claims: Claims) -> float | None:
    """Tell when what is allowed ends: at ``expire_at``, where 0 is never, or else with the token."""
    if claims.get("expire_at") is None:
        return date(claims, "exp")
    end = date(claims, "expire_at")
    assert end is not None, "it has just been looked at"
    if end < 0:
        raise WrongClaim("expire_at: is negative")
    return end or None


def _user(claims: Claims) -> str:
    user = claims.get("sub", "")
    if type(user) is not str:
        raise WrongClaim("sub: is no text")
    _utf8(user, "sub")
    return user


def _channels(claims: Claims, longest: int) -> tuple[str, ...]:
    names = _typed(claims, "channels", list)
    return tuple(dict.fromkeys(_channel(name, longest) for name in names)) if names else ()


def _subs(claims: Claims, longest: int) -> Mapping[str, ServerSubscription]:
    subs = _typed(claims, "subs", dict)
    if not subs:
        return NO_SUBSCRIPTIONS
    read = {_channel(name, longest): _subscription(_typed(subs, name, dict) or {}) for name in subs}
    return MappingProxyType(read)


def _subscription(options: Claims) -> ServerSubscription:
    return ServerSubscription(_shown(options, "info") or b"", _shown(options, "data"), _overrides(options))


def _overrides(options: Claims) -> Overrides:
    override = _typed(options, "override", dict)
    if not override:
        return NO_OVERRIDES
    return Overrides(
        presence=_flag(override, "presence"),
        join_leave=_flag(override, "join_leave"),
        push_joins=_flag(override, "force_push_join_leave"),
        position=_flag(override, "force_positioning"),
        recover=_flag(override, "force_recovery"),
    )


def _flag(override: Claims, name: str) -> bool | None:
    """Read ``{"value": true}``; an encoder that leaves out what is false writes ``{}`` for false."""
    flag = _typed(override, name, dict)
    return None if flag is None else bool(_typed(flag, "value", bool))


def _channel(name: object, longest: int) -> str:
    if type(name) is not str or name_fault(name, longest):
        raise WrongClaim("channels: one has no name for a channel")
    return name


def _shown(options: Claims, name: str) -> bytes | None:
    """Read the JSON that clients get to see, if there is any: ``b64NAME``, its text in base64, or ``NAME``."""
    plain, encoded = options.get(name), _typed(options, f"b64{name}", str)
    if not encoded:
        return None if plain is None else _written(plain)
    try:
        text = b64decode(encoded, validate=True)
    except ValueError:
        raise WrongClaim(f"b64{name}: is no base64") from None
    if not is_json(text):
        raise WrongClaim(f"b64{name}: is no JSON, or too deep")
    return without_newlines(text)


def _meta(claims: Claims) -> object:
    meta = _typed(claims, "meta", dict)
    if meta is not None:
        _written(meta)  # it is never shown, but who keeps it may write it down
    return meta


def _written(value: object) -> bytes:
    """Write a claim as JSON. Raises WrongClaim for what only Python's reader takes for JSON, and for what is deep."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise WrongClaim("a claim cannot be written as JSON") from None
    if not is_json(text):
        raise WrongClaim("a claim is no JSON, or too deep")
    return text


def _typed(claims: Claims, name: str, kind: type) -> Any:
    """Return a claim of the dialect, or None if it is not there. Raises WrongClaim if it is of another type."""
    value = claims.get(name)
    if value is not None and not isinstance(value, kind):
        raise WrongClaim("a claim has the wrong type")
    return value


def _utf8(text: str, name: str) -> None:
    """Raise WrongClaim for half of a surrogate pair: JSON can say it, but no client could ever be told."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WrongClaim(f"{name}: is no UTF-8") from None
