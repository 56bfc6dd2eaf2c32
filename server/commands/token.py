"""`stentor token`: a signed token (JWT) for testing, of either kind; the server verifies it with the same key."""

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
from server.core.names import name_fault
from server.edge.signatures import MAX_TOKEN

ABOUT = """\
Makes a token (JWT) for testing, signed with jwt_secret, and prints it. The
algorithm, the audience and the issuer are the configured ones.

It is a connection token: who a client is, in a request or in the connect
command. With --subscribe it is a subscription token instead: it opens one
channel to that user, in the subscribe command of the Centrifuge dialect."""
KEYS = ("jwt_secret", "jwt_algorithm", "jwt_audience", "jwt_issuer")


def parser() -> Parser:
    """Take the token's claims, and the options that say how it is signed."""
    parser = Parser("token", ABOUT, KEYS)
    claims = parser.add_argument_group("claims")
    parser.add_value(claims, "--sub", "USER", "Whom the token is for (sub). (default: nobody)")
    parser.add_value(claims, "--ttl", "SECONDS", "How long it holds, such as 90, 15m or 1h. (default: 1h)")
    parser.add_value(claims, "--channel", "C", "Channel that it opens (channels). Repeat it for more.", many=True)
    parser.add_value(claims, "--subscribe", "C", "Make a subscription token for this one channel (channel).")
    parser.add_value(claims, "--info", "JSON", "What others see of the user, an object (info).")
    parser.add_value(claims, "--claim", "NAME=JSON", "Any other claim. Repeat it for more.", many=True)
    parser.add_configuration()
    return parser


def run(line: Line) -> int:
    """Print the token."""
    now = int(time.time())
    claims: dict[str, object] = {
        "sub": getattr(line.own, "sub", None),
        **_channels(line),
        "info": _info(line),
        "iat": now,
        "exp": now + _ttl(line),
    }
    claims |= _extra(line)
    print(mint(configuration(line).settings, claims))
    return 0


def mint(settings: Settings, claims: dict[str, object]) -> str:
    """Sign `claims`, and the configured audience and issuer; what is None is left out.

    Raises ConfigError if the configured key cannot sign, or the token is longer than the server takes.
    """
    if settings.jwt_secret is None:
        raise ConfigError(["jwt_secret is not set: a token is signed with it (stentor.toml or STENTOR_JWT_SECRET)"])
    if not settings.jwt_algorithm.startswith("HS"):
        raise ConfigError([f"jwt_algorithm is {settings.jwt_algorithm}: jwt_secret signs HS256, HS384 and HS512 only"])
    claims = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer} | claims
    named = {name: value for name, value in claims.items() if value is not None}
    with warnings.catch_warnings(category=jwt.InsecureKeyLengthWarning, action="ignore"):  # `check` warns of it
        token = jwt.encode(named, settings.jwt_secret.get_secret_value(), settings.jwt_algorithm)
    if len(token) > MAX_TOKEN:
        raise ConfigError([f"the token has {len(token)} characters: the server takes {MAX_TOKEN} at most"])
    return token


def _ttl(line: Line) -> int:
    text = getattr(line.own, "ttl", "1h")
    ttl = quantity(text, "seconds")
    if ttl is None or ttl < 1:
        line.mistakes.append(
            f"ttl = {text} ({COMMAND_LINE}): must be a time of 1 second or more, such as 90, 15m or 1h"
        )
        return 0
    return int(ttl)


def _channels(line: Line) -> dict[str, object]:
    """Read the channels of a connection token, or the one of a subscription token."""
    many, one = getattr(line.own, "channel", None), getattr(line.own, "subscribe", None)
    if many is not None and one is not None:
        line.mistakes.append(f"--channel ({COMMAND_LINE}): is for connection tokens, --subscribe makes another kind")
    named = [("channel", name) for name in many or ()] + ([("subscribe", one)] if one is not None else [])
    for option, name in named:
        # Not by its length: how long a name may be is the server's to say.
        if fault := name_fault(name, MAX_TOKEN):
            line.mistakes.append(f"{option} = {name} ({COMMAND_LINE}): {fault}")
    return {"channels": many, "channel": one}


def _info(line: Line) -> object:
    text = getattr(line.own, "info", None)
    if text is None:
        return None
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        line.mistakes.append(f'info = {text} ({COMMAND_LINE}): must be a JSON object, such as \'{{"name": "Ann"}}\'')
    return info


def _extra(line: Line) -> Iterator[tuple[str, object]]:
    for text in getattr(line.own, "claim", []):
        name, _, value = text.partition("=")
        try:
            yield name, json.loads(value)
        except (ValueError, RecursionError):
            fault = "must be NAME=JSON, such as admin=true or 'role=\"editor\"'"
            line.mistakes.append(f"claim = {text} ({COMMAND_LINE}): {fault}")
