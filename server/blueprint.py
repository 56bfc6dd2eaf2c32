"""From settings to the parts of the house: what each part is told of them, and nothing more.

The one place that knows both the options and the parts. Builds values and small parts; `worker` joins them together.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable

from cryptography import x509
from pydantic import SecretStr

from server.admin.api import Api, Desk
from server.admin.fleet_api import FleetApi
from server.brokers.base import Broker, Ear, Retention, Shared
from server.brokers.memory import MemoryBroker
from server.config import Settings
from server.config.namespaces import Namespace
from server.config.rules import open_file_ceiling
from server.core.counters import Counters
from server.core.lag import LagLimits, LagPolicy
from server.core.revocations import Token
from server.edge import static
from server.edge.credentials import (
    Credentials,
    Identity,
    JsonWebTokens,
    NoCredentials,
    NoSubscriptionTokens,
    SignedSubscriptionTokens,
    StaticTokens,
    SubscriptionTokens,
    signing_keys,
)
from server.edge.gate import Gate
from server.edge.listener import Terms
from server.edge.origins import Origins
from server.node.namespaces import ChannelOptions, Namespaces, RecoveryMode
from server.node.permissions import Permissions

log = logging.getLogger("stentor")


class Impossible(Exception):
    """The settings ask for what cannot be built; the text is for the operator."""


def is_in_memory(settings: Settings) -> bool:
    """Tell if this server orders and keeps publications by itself."""
    return not isinstance(settings.broker, SecretStr)


def broker(settings: Settings) -> Callable[[Ear], Broker]:
    """Say how a node's broker is made. Raises Impossible."""
    if not isinstance(settings.broker, SecretStr):  # `is_in_memory`, for the type checker
        return lambda node: MemoryBroker(node, time.monotonic, wall_clock=time.time)
    try:
        # Only here: the libraries for Redis are an extra.
        from server.brokers.redis.address import AddressError, parse
        from server.brokers.redis.broker import RedisBroker
        from server.brokers.redis.tls import TlsFault, context
    except ImportError:
        raise Impossible("broker: Redis needs an extra: pip install 'stentor[redis]'") from None
    try:
        addresses = parse(settings.broker.get_secret_value())
        for address in addresses:
            if address.tls is not None:
                context(address.tls)  # its files are there, and make sense
    except (AddressError, TlsFault) as fault:
        raise Impossible(f"broker: {fault}") from None
    return lambda node: RedisBroker(addresses, node)


def everywhere(api: Api, desk: Desk, settings: Settings) -> Api:
    """Let the commands of an API reach every server that shares the broker, if it can be shared."""
    if not isinstance(desk.broker, Shared):
        return api
    return FleetApi(
        desk,
        api,
        desk.broker.switchboard,
        max_channel_length=settings.max_channel_length,
        max_message_size=settings.max_message_size,
    )


def terms(settings: Settings) -> Terms:
    """Say what holds for every client."""
    return Terms(
        message_rate=settings.message_rate,
        max_message_size=settings.max_message_size,
        trusted_proxies=settings.trusted_proxies,
    )


def namespaces(settings: Settings) -> Namespaces:
    """Give every channel its rules. Namespaces with the same limits share the room that a client has."""
    shared: dict[LagLimits, LagLimits] = {}

    def options(namespace: Namespace) -> ChannelOptions:
        lag = LagLimits(
            policy=LagPolicy(namespace.lag_policy),
            messages=namespace.queue_messages,
            bytes=namespace.queue_bytes,
            enforce=settings.lag_policy_mode == "enforce",
        )
        return ChannelOptions(
            publish=namespace.publish,
            subscribe=namespace.subscribe,
            anonymous=namespace.anonymous,
            read_history=namespace.read_history,
            read_presence=namespace.read_presence,
            allow_recovery=namespace.allow_recovery,
            lag=shared.setdefault(lag, lag),
            batch_delay=namespace.batch_delay_seconds,
            retention=Retention(namespace.history_size, namespace.history_ttl),
            history_limit=settings.history_max_publication_limit or None,
            recovery_limit=settings.recovery_max_publication_limit or None,
            presence=namespace.presence,
            join_leave=namespace.join_leave,
            delta=namespace.delta,
            recovery_mode=RecoveryMode(namespace.recovery_mode),
        )

    return Namespaces(options(settings), {name: options(each) for name, each in settings.namespaces.items()})


def gate(
    settings: Settings, counters: Counters, credentials: Credentials, permissions: Permissions, now: float
) -> Gate:
    """Build the gate."""

    def may_subscribe(identity: Identity, channel: str) -> bool:
        return permissions.may_subscribe(identity.user, channel, identity.granted)

    return Gate(
        counters,
        origins=Origins(_list(settings.allowed_origins), tls=settings.tls_cert is not None),
        credentials=credentials,
        assets=static.StaticFiles().lookup,
        # More than there are descriptors for would be cut off by the kernel, uncounted, and a scrape with them.
        max_connections=min(settings.max_connections, open_file_ceiling()),
        max_connections_per_ip=settings.max_connections_per_ip,
        connect_rate=settings.connect_rate,
        max_channel_length=settings.max_channel_length,
        may_subscribe=may_subscribe,
        now=now,
    )


def credentials(
    settings: Settings, is_revoked: Callable[[Token], bool] = lambda token: False
) -> tuple[Credentials, SubscriptionTokens]:
    """Say how clients prove who they are, and what opens a channel to them. Raises OSError and jwt.PyJWTError."""
    if settings.auth == "token":
        return StaticTokens([token.get_secret_value() for token in settings.tokens]), NoSubscriptionTokens()
    if settings.auth == "none":
        return NoCredentials(), NoSubscriptionTokens()
    keys = signing_keys(
        secret=settings.jwt_secret.get_secret_value() if settings.jwt_secret else None,
        public_key=settings.jwt_public_key,
        jwks_file=settings.jwt_jwks_file,
    )
    audience, issuer, require_exp = settings.jwt_audience, settings.jwt_issuer, settings.jwt_require_exp
    return (
        JsonWebTokens(
            keys,
            settings.jwt_algorithm,
            audience=audience,
            issuer=issuer,
            require_exp=require_exp,
            max_channel_length=settings.max_channel_length,
            is_revoked=is_revoked,
        ),
        SignedSubscriptionTokens(
            keys,
            settings.jwt_algorithm,
            audience=audience,
            issuer=issuer,
            require_exp=require_exp,
            is_revoked=is_revoked,
        ),
    )


def _list(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def tls(settings: Settings) -> ssl.SSLContext | None:
    """Load the certificate of the public port; None without one. Raises OSError."""
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def certificate_expiry(settings: Settings) -> float | None:
    """Tell when the certificate of the public port ends, in Unix time; None without one. Raises OSError.

    It is of the file as it is now: to be called when that is loaded, since a later one is not in use.
    """
    if settings.tls_cert is None:
        return None
    try:
        # Those of who signed it follow.
        own = x509.load_pem_x509_certificate(settings.tls_cert.read_bytes())
    except ValueError as fault:  # what serves need not be what can be read
        log.warning("when the certificate ends is not to be found out: %s", fault)
        return None
    return own.not_valid_after_utc.timestamp()
