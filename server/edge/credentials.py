"""Who a client is, and what it may subscribe to: static tokens or JSON Web Tokens, checked before anything is done.

Laws: a static token is compared as bytes, in constant time. A JSON Web Token is verified (`signatures`), then read
(`claims`), then it must not be revoked; its time is looked at last: only what is good otherwise is called expired, or
early. A token is never in a log, a metric or an error. What is refused is refused in one of four sentences.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from server.core.revocations import Token
from server.edge.claims import (
    ForAnother,
    Grant,
    Identity,
    Overrides,
    ServerSubscription,
    WrongClaim,
    is_early,
    is_over,
    read_grant,
    read_identity,
)
from server.edge.signatures import MAX_TOKEN, BadToken, Signatures, signing_keys

__all__ = [
    "ANONYMOUS",
    "MAX_TOKEN",
    "Credentials",
    "Expired",
    "Foreign",
    "Grant",
    "Identity",
    "JsonWebTokens",
    "NoCredentials",
    "NoSubscriptionTokens",
    "Overrides",
    "Refused",
    "ServerSubscription",
    "SignedSubscriptionTokens",
    "StaticTokens",
    "SubscriptionTokens",
    "signing_keys",
]

ANONYMOUS: Final = Identity()


class Refused(Exception):
    """The credentials are missing or bad; the text may be shown to the client."""


class Expired(Refused):
    """The credentials were good once, or will be: the client should get new ones."""


class Foreign(Refused):
    """The subscription token is another user's, or for another channel: no client comes by one unless by mistake."""


class Credentials(Protocol):
    """Whatever can tell who a token belongs to."""

    def check(self, token: str | None) -> Identity:
        """Return whose `token` it is; raise Refused, or Expired."""


class SubscriptionTokens(Protocol):
    """Whatever can tell what a subscription token allows."""

    def check(self, token: str, *, channel: str, user: str) -> Grant:
        """Return what `token` allows `user` ("" when anonymous) on `channel`; raise Refused, Expired or Foreign."""


class NoCredentials:
    """Everybody is let in, and nobody is known."""

    def check(self, token: str | None) -> Identity:
        return ANONYMOUS


class NoSubscriptionTokens:
    """There are no keys, so no subscription token can be good."""

    def check(self, token: str, *, channel: str, user: str) -> Grant:
        raise Refused("The token is not valid.")


class StaticTokens:
    """A list of tokens, each as good as the others."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def check(self, token: str | None) -> Identity:
        if token is None:
            raise Refused("A token is needed.")
        given = token.encode(errors="surrogatepass")
        # All of them, always: the time taken does not tell which one came close.
        matches = [hmac.compare_digest(given, known) for known in self._tokens]
        if not any(matches):
            raise Refused("The token is not valid.")
        return ANONYMOUS


class JsonWebTokens:
    """Connection tokens that were signed by a key of ours; the parameters are those of `Signatures`.

    Channels that a token names must have names that fit `max_channel_length`. `is_revoked` tells of those that are good
    no more.
    """

    def __init__(
        self,
        keys: Mapping[str | None, Any],
        algorithm: str,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        require_exp: bool = True,
        max_channel_length: int = 128,
        is_revoked: Callable[[Token], bool] = lambda token: False,
    ) -> None:
        self._is_revoked = is_revoked
        self._signatures = Signatures(keys, algorithm, audience=audience, issuer=issuer, require_exp=require_exp)
        self._max_channel_length = max_channel_length

    def check(self, token: str | None) -> Identity:
        if token is None:
            raise Refused("A token is needed.")
        with _refusing():
            claims = self._signatures.verify(token)
            identity = read_identity(claims, self._max_channel_length)
            _check_revoked(identity.token, self._is_revoked)
            _check_time(claims)
        return identity


class SignedSubscriptionTokens:
    """Subscription tokens that were signed by a key of ours; the parameters are those of `JsonWebTokens`."""

    def __init__(
        self,
        keys: Mapping[str | None, Any],
        algorithm: str,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        require_exp: bool = True,
        is_revoked: Callable[[Token], bool] = lambda token: False,
    ) -> None:
        self._is_revoked = is_revoked
        self._signatures = Signatures(keys, algorithm, audience=audience, issuer=issuer, require_exp=require_exp)

    def check(self, token: str, *, channel: str, user: str) -> Grant:
        with _refusing():
            claims = self._signatures.verify(token)
            grant = read_grant(claims, channel=channel, user=user)
            _check_revoked(grant.token, self._is_revoked)
            _check_time(claims)
        return grant


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what is wrong with a token into the one sentence for that."""
    try:
        yield
    except (BadToken, WrongClaim) as wrong:
        # Not from it: its traceback would have the token in its frames.
        kind = Foreign if isinstance(wrong, ForAnother) else Refused
        raise kind("The token is not valid.") from None


def _check_revoked(token: Token | None, is_revoked: Callable[[Token], bool]) -> None:
    if token is not None and is_revoked(token):
        raise BadToken


def _check_time(claims: Mapping[str, Any]) -> None:
    now = time.time()
    if is_over(claims, now):
        raise Expired("The token has expired.")
    if is_early(claims, now):
        # A clock that is ahead of ours, most likely: it is no forgery, and a client that tries again will come in.
        raise Expired("The token is not good yet.")
