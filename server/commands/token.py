"""`stentor token`: a signed token (JWT) for testing, made with the key that the server verifies with."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator

import jwt

from server.commands.line import Line, Parser, configuration
from server.config import Settings
from server.config.options import quantity
from server.config.sources import COMMAND_LINE, ConfigError

ABOUT = """\
Makes a token (JWT) for testing, signed with jwt_secret, and prints it. The
algorithm, the audience and the issuer are the configured ones."""
KEYS = ("jwt_secret", "jwt_algorithm", "jwt_audience", "jwt_issuer")


def parser() -> Parser:
    """Take the token's claims, and the options that say how it is signed."""
    parser = Parser("token", ABOUT, KEYS)
    claims = parser.add_argument_group("claims")
    parser.add_value(claims, "--sub", "USER", "Whom the token is for (sub). (default: nobody)")
    parser.add_value(claims, "--ttl", "SECONDS", "How long it holds, such as 90, 15m or 1h. (default: 1h)")
    parser.add_value(claims, "--channel", "C", "Channel that it opens (channels). Repeat it for more.", many=True)
    parser.add_value(claims, "--claim", "NAME=JSON", "Any other claim. Repeat it for more.", many=True)
    parser.add_configuration()
    return parser


def run(line: Line) -> int:
    """Print the token."""
    now = int(time.time())
    claims: dict[str, object] = {
        "sub": getattr(line.own, "sub", None),
        "channels": getattr(line.own, "channel", None),
        "iat": now,
        "exp": now + _ttl(line),
    }
    claims |= _extra(line)
    print(mint(configuration(line).settings, claims))
    return 0


def mint(settings: Settings, claims: dict[str, object]) -> str:
    """Sign `claims`, and the configured audience and issuer; what is None is left out.

    Raises ConfigError if the configured key cannot sign.
    """
    if settings.jwt_secret is None:
        raise ConfigError(["jwt_secret is not set: a token is signed with it (stentor.toml or STENTOR_JWT_SECRET)"])
    if not settings.jwt_algorithm.startswith("HS"):
        raise ConfigError([f"jwt_algorithm is {settings.jwt_algorithm}: jwt_secret signs HS256, HS384 and HS512 only"])
    claims = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer} | claims
    named = {name: value for name, value in claims.items() if value is not None}
    with warnings.catch_warnings(category=jwt.InsecureKeyLengthWarning, action="ignore"):  # `check` warns of it
        return jwt.encode(named, settings.jwt_secret.get_secret_value(), settings.jwt_algorithm)


def _ttl(line: Line) -> int:
    text = getattr(line.own, "ttl", "1h")
    ttl = quantity(text, "seconds")
    if ttl is None or ttl < 1:
        line.mistakes.append(
            f"ttl = {text} ({COMMAND_LINE}): must be a time of 1 second or more, such as 90, 15m or 1h"
        )
        return 0
    return int(ttl)


def _extra(line: Line) -> Iterator[tuple[str, object]]:
    for text in getattr(line.own, "claim", []):
        name, _, value = text.partition("=")
        try:
            yield name, json.loads(value)
        except (ValueError, RecursionError):
            fault = "must be NAME=JSON, such as admin=true or 'role=\"editor\"'"
            line.mistakes.append(f"claim = {text} ({COMMAND_LINE}): {fault}")
