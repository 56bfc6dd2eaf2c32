"""Who a client is: static tokens or a JSON Web Token, checked before the upgrade.

Laws: a token is compared as bytes, in constant time; a JWT is verified with the one algorithm of the configuration and
a key that was loaded at start: nothing in the token chooses a key, an address or an algorithm (RFC 8725). A token is
never in a log, a metric or an error. What is refused is refused in one of two sentences.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import jwt

MAX_TOKEN: Final = 8192


@dataclass(frozen=True, slots=True)
class Identity:
    """A client that was let in: its name ("" when anonymous), and when its credentials end (Unix time, or None)."""

    user: str = ""
    expires: float | None = None


ANONYMOUS: Final = Identity()


class Refused(Exception):
    """The credentials are missing or bad; the text may be shown to the client."""


class Credentials(Protocol):
    """Whatever can tell who a token belongs to."""

    def check(self, token: str | None) -> Identity:
        """Return whose `token` it is; raise Refused."""


class NoCredentials:
    """Everybody is let in, and nobody is known."""

    def check(self, token: str | None) -> Identity:
        return ANONYMOUS


class StaticTokens:
    """A list of tokens, each as good as the others."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def check(self, token: str | None) -> Identity:
        if token is None:
            raise Refused("A token is needed.")
        given = token.encode(errors="surrogateescape")
        # All of them, always: the time taken does not tell which one came close.
        matches = [hmac.compare_digest(given, known) for known in self._tokens]
        if not any(matches):
            raise Refused("The token is not valid.")
        return ANONYMOUS


class JsonWebTokens:
    """Tokens signed by a key of ours. RFC 7519, RFC 8725.

    `keys` maps a key id to a key; the id None is the key for tokens that name none.
    """

    def __init__(
        self,
        keys: Mapping[str | None, Any],
        algorithm: str,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        require_exp: bool = True,
    ) -> None:
        self._keys = dict(keys)
        self._algorithm = algorithm
        self._audience = audience
        self._issuer = issuer
        self._required = ["exp"] if require_exp else []

    def check(self, token: str | None) -> Identity:
        if token is None:
            raise Refused("A token is needed.")
        if len(token) > MAX_TOKEN:
            raise Refused("The token is not valid.")
        try:
            claims = self._decode(token)
            expires = _expiry(claims)
        except (jwt.InvalidTokenError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise Refused("The token is not valid.") from None
        user = claims.get("sub", "")
        return Identity(user if isinstance(user, str) else "", expires)

    def _decode(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        # The id is looked up among our own keys, and is good for nothing else.
        kid = header.get("kid")
        key = self._keys[kid if kid in self._keys else None]
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[self._algorithm],
            audience=self._audience,
            issuer=self._issuer,
            options={"require": self._required, "verify_aud": self._audience is not None},
        )
        return claims


def _expiry(claims: Mapping[str, Any]) -> float | None:
    """Read the ``exp`` of verified claims. Raises TypeError for a string, which the library takes for a number."""
    if "exp" not in claims:
        return None
    expires = claims["exp"]
    if not isinstance(expires, int | float):
        raise TypeError("a date is a JSON number: RFC 7519, section 2")
    return float(expires)


def signing_keys(
    *, secret: str | None = None, public_key: str | None = None, jwks_file: Path | None = None
) -> dict[str | None, Any]:
    """Load the keys that tokens may be signed with, from the one source that is given.

    `public_key` is PEM text or the path of a PEM file, `jwks_file` a JSON Web Key Set (RFC 7517). Raises OSError and
    jwt.PyJWTError.
    """
    if secret is not None:
        return {None: secret}
    if public_key is not None:
        return {None: public_key if "-----BEGIN" in public_key else Path(public_key).read_text()}
    assert jwks_file is not None, "the configuration checks that there is a source"
    keys = jwt.PyJWKSet.from_json(jwks_file.read_text()).keys
    by_id: dict[str | None, Any] = {key.key_id: key.key for key in keys if key.key_id is not None}
    if len(keys) == 1:
        by_id[None] = keys[0].key
    return by_id
