"""What holds between options: contradictions, which stop the start, and warnings, which do not.

A contradiction names the options that it looked at, so that one of them being wrong by itself is reported once.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from server.config.keys import fault_of_certificate, fault_of_key_set, fault_of_public_key

if TYPE_CHECKING:
    from server.config.namespaces import Namespace
    from server.config.settings import Settings

_KEY_SOURCES: Final = ("jwt_secret", "jwt_public_key", "jwt_jwks_file")
_SAFE_HMAC_KEY: Final = 32  # bytes; RFC 7518, section 3.2: at least the size of the hash
_SPARE_FILES: Final = 64  # descriptors that are not clients: listeners, the event loop, the log, a scrape


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One mistake between options: `sentence` is about `key`, the first of the options `looked_at`."""

    looked_at: tuple[str, ...]
    sentence: str

    @property
    def key(self) -> str:
        return self.looked_at[0]


class ContradictionError(ValueError):
    """Options that cannot all hold."""

    def __init__(self, contradictions: tuple[Contradiction, ...]) -> None:
        super().__init__("; ".join(f"{found.key} {found.sentence}" for found in contradictions))
        self.contradictions = contradictions


def open_file_ceiling() -> int:
    """How many clients the limit of open files leaves room for, at least 1."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 2**20  # the kernel's own default ceiling, fs.nr_open
    return max(1, soft - _SPARE_FILES)


def is_loopback(host: str) -> bool:
    """Whether an address, or the name ``localhost``, stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """Yield every mistake that no option shows by itself."""
    yield from _tls(settings)
    yield from _ports(settings)
    if settings.auth == "token" and not settings.tokens:
        yield Contradiction(("auth", "tokens"), "needs at least one entry in tokens")
    if settings.auth == "jwt":
        yield from _jwt(settings)


def _tls(settings: Settings) -> Iterator[Contradiction]:
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate and not key:
        yield Contradiction(("tls_cert", "tls_key"), "needs tls_key too")
    elif key and not certificate:
        yield Contradiction(("tls_key", "tls_cert"), "needs tls_cert too")
    elif certificate and key and (fault := fault_of_certificate(certificate, key)):
        yield Contradiction(("tls_key", "tls_cert"), fault)


def _ports(settings: Settings) -> Iterator[Contradiction]:
    public, internal = (settings.host, settings.port), (settings.internal_host, settings.internal_port)
    if settings.port and public == internal:
        yield Contradiction(("internal_port", "port", "host", "internal_host"), "must differ from port")


def _jwt(settings: Settings) -> Iterator[Contradiction]:
    sources = [key for key in _KEY_SOURCES if getattr(settings, key)]
    if len(sources) != 1:
        given = f"; given are {' and '.join(sources)}" if sources else ""
        yield Contradiction(("auth", *_KEY_SOURCES), f"needs exactly one of {', '.join(_KEY_SOURCES)}{given}")
        return
    algorithm, source = settings.jwt_algorithm, sources[0]
    if algorithm.startswith("HS") != (source == "jwt_secret"):
        fitting = "HS256, HS384 or HS512" if source == "jwt_secret" else "RS256, RS384, RS512, ES256, ES384 or ES512"
        yield Contradiction(("jwt_algorithm", source), f"does not fit {source}, which goes with {fitting}")
    elif settings.jwt_public_key and (fault := fault_of_public_key(settings.jwt_public_key, algorithm)):
        yield Contradiction(("jwt_public_key", "jwt_algorithm"), fault)
    elif settings.jwt_jwks_file and (fault := fault_of_key_set(settings.jwt_jwks_file, algorithm)):
        yield Contradiction(("jwt_jwks_file", "jwt_algorithm"), fault)


def warnings(settings: Settings) -> Iterator[str]:
    """Yield what is allowed but hardly meant, a line each."""
    secret = settings.jwt_secret
    if secret and (size := len(secret.get_secret_value().encode())) < _SAFE_HMAC_KEY:
        yield f"jwt_secret has {size} bytes: under {_SAFE_HMAC_KEY} bytes a key can be guessed from one token"
    if not is_loopback(settings.internal_host) and not settings.api_key:
        yield (
            f"internal_host is {settings.internal_host}, which others can reach, and api_key is not set: "
            "the internal HTTP API will refuse every call"
        )
    for key in sorted(settings.model_fields_set):
        if key.startswith("jwt_") and settings.auth != "jwt":
            yield f'{key} has no effect: auth is "{settings.auth}", not "jwt"'
    if settings.tokens and settings.auth != "token":
        yield f'tokens has no effect: auth is "{settings.auth}", not "token"'
    if settings.max_connections > (ceiling := open_file_ceiling()):
        yield (
            f"max_connections is {settings.max_connections}, but the limit of open files leaves room "
            f"for {ceiling}: raise it (ulimit -n)"
        )
    if settings.personal_channels and settings.auth != "jwt":
        yield f'personal_channels has no effect: auth is "{settings.auth}", so no client has a user'
    if settings.history_size == 0 and "history_ttl" in settings.model_fields_set and not settings.namespaces:
        yield "history_ttl has no effect: history_size is 0"
    for _, sentence in _of_channels(settings, settings.auth):
        yield sentence
    yield from _of_namespaces(settings)


def _of_namespaces(settings: Settings) -> Iterator[str]:
    for name, namespace in settings.namespaces.items():
        title = f"namespaces.{name}"
        # What a namespace has from above was set for other channels, and is not looked at a second time.
        for key, sentence in _of_channels(namespace, settings.auth):
            if getattr(namespace, key) != getattr(settings, key):
                yield f"{title}.{sentence}"
        if namespace.history_size == 0 and namespace.history_ttl != settings.history_ttl:
            yield f"{title}.history_ttl has no effect: history_size is 0"
        if len(name) >= settings.max_channel_length:
            yield f"{title} has no effect: max_channel_length is {settings.max_channel_length}"


def _of_channels(namespace: Namespace, auth: str) -> Iterator[tuple[str, str]]:
    """Yield pairs: the option that is hardly meant so, and a sentence about it that begins with its name."""
    if not namespace.anonymous and auth != "jwt":
        yield "anonymous", f'anonymous is false, and auth is "{auth}": no client has a user, so none can subscribe'
    if namespace.history_size and not namespace.history_ttl:
        yield "history_size", "history_size has no effect: history_ttl is 0"
    if namespace.keeps_history:
        return
    if namespace.recovery_mode != "stream":
        yield "recovery_mode", "recovery_mode has no effect: there is no history"
    if namespace.delta and namespace.lag_policy != "disconnect":
        yield (
            "delta",
            f"delta has no effect: lag_policy is {namespace.lag_policy}, and without a history nobody would notice "
            "what it left out",
        )
