"""Whether a JSON Web Token was signed by a key of ours. RFC 7515, RFC 7519, RFC 8725.

Laws: a token is verified with the one algorithm of the configuration and a key that was loaded at start: nothing in the
token chooses a key, an address or an algorithm. Of one signed token there is one spelling. Whatever is wrong with a
token, one exception says so, and quotes nothing of it.

Does not know what the claims mean, nor whether their time has come, or is over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt

from server.edge.claims import date

MAX_TOKEN: Final = 8192

# RFC 7515, section 7.1. The library would take padding too: two spellings of one token.
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class BadToken(Exception):
    """The token is none, was not signed by us, or is not for us."""


class Signatures:
    """Verifies tokens.

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

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a token of ours, whose dates are dates, though of any time. Raises BadToken."""
        if len(token) > MAX_TOKEN or not _COMPACT.fullmatch(token):
            raise BadToken
        try:
            claims = self._decode(token)
            for name in ("exp", "nbf", "iat"):  # the library takes texts for numbers
                date(claims, name)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise BadToken from None
        return claims

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
            options={
                "require": self._required,
                "verify_aud": self._audience is not None,
                # Whoever asks does that last: only a token that is good otherwise may be called expired, or early.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        return claims


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
