"""Every option, its default and its bounds. The one place where an option is declared.

To add an option: a field, made with `option`, here or (if channels may differ in it) in `Namespace`. The command line,
the environment, the file, `stentor check` and the help follow from it. Names and defaults are the contract's (README).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from server.config import rules
from server.config.namespaces import Namespace, complete, namespace_name
from server.config.options import Option, is_option, option

Auth = Literal["none", "token", "jwt"]
JwtAlgorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
LagPolicyMode = Literal["enforce", "observe"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]

_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
# A browser's Origin (RFC 6454): lower case, ASCII, the scheme's own port left out.
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_REDIS: Final = re.compile(r"(?:rediss?(?:\+cluster)?|unix)://")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Settings(Namespace):
    """All options, checked and frozen. Times are seconds and sizes bytes, but for `batch_delay` (milliseconds)."""

    host: str = option("127.0.0.1", "listen", "Address of the public port; 0.0.0.0 or :: is every address.")
    port: int = option(8000, "listen", "Public port; 0 is any free one.", low=0, high=65535)
    internal_host: str = option("127.0.0.1", "listen", "Address of the internal port (metrics, health, HTTP API).")
    internal_port: int = option(9000, "listen", "Internal port; 0 is any free one.", low=0, high=65535)
    workers: int = option(1, "listen", "Processes that serve, on one core each.", low=1, high=256)
    backlog: int = option(4096, "listen", "Connections that the kernel holds until they are accepted.", low=1)
    tls_cert: Path | None = option(None, "listen", "Certificate chain in PEM; with tls_key the public port is TLS.")
    tls_key: Path | None = option(None, "listen", "Private key of the certificate, in PEM, not encrypted.")
    trusted_proxies: tuple[str, ...] = option(
        (),
        "listen",
        "Load balancers, as addresses or networks (10.0.0.0/8), whose word on a client's address is taken: "
        "X-Forwarded-For, or the PROXY protocol.",
    )

    allowed_origins: Literal["same-origin", "*"] | tuple[str, ...] = option(
        "same-origin",
        "access",
        "Pages that may connect: same-origin, *, or origins such as https://app.example.com or "
        "https://*.example.com. A request without Origin is not a browser's and passes.",
    )
    auth: Auth = option("none", "access", "What a client must show: nothing, one of tokens, or a signed token (JWT).")
    tokens: tuple[SecretStr, ...] = option((), "access", "Tokens that open the server when auth is token.")
    jwt_secret: SecretStr | None = option(None, "access", "Key of the HMAC algorithms; 32 random bytes or more.")
    jwt_public_key: str | None = option(
        None, "access", "Public key of the RSA and EC algorithms: PEM, or the path of a PEM file."
    )
    jwt_jwks_file: Path | None = option(None, "access", "File with a JSON Web Key Set, instead of one public key.")
    jwt_algorithm: JwtAlgorithm = option("HS256", "access", "The one algorithm that a token may be signed with.")
    jwt_audience: str | None = option(None, "access", "Audience (aud) that a token must name.")
    jwt_issuer: str | None = option(None, "access", "Issuer (iss) that a token must name.")
    jwt_require_exp: bool = option(True, "access", "Refuse a token that never expires.")
    api_key: SecretStr | None = option(
        None, "access", "Key of the internal HTTP API; without one it answers on loopback only."
    )

    max_connections: int = option(
        rules.open_file_ceiling, "limits", "Clients at a time; by default the limit of open files less 64.", low=1
    )
    max_connections_per_ip: int = option(
        0, "limits", "Clients at a time from one address (IPv6: one /64); 0 is no limit.", low=0
    )
    connect_rate: float = option(
        0.0, "limits", "New connections that are let in; 0 is no limit.", unit="per second", low=0
    )
    message_rate: float = option(
        1000.0, "limits", "Messages taken from one client; 0 is no limit.", unit="per second", low=0
    )
    max_message_size: int = option(65536, "limits", "Largest message that is taken from a client.", unit="bytes", low=1)
    max_channels_per_client: int = option(128, "limits", "Channels that one client may be on.", low=1)
    max_channel_length: int = option(128, "limits", "Longest name of a channel, in characters.", low=1)
    history_max_publication_limit: int = option(
        300, "limits", "Publications that a client gets at most when it asks for the history; 0 is no limit.", low=0
    )
    recovery_max_publication_limit: int = option(
        0,
        "limits",
        "Publications that a client can have missed and still recover; 0 is as many as history_size keeps.",
        low=0,
    )
    open_timeout: float = option(
        5.0, "limits", "Time that a client has for its opening handshake.", unit="seconds", above=0
    )

    write_timeout: float = option(
        10.0, "backpressure", "Time without progress after which a client is cut.", unit="seconds", above=0
    )
    node_queue_bytes: int = option(
        268435456, "backpressure", "Bytes that may wait for all clients together.", unit="bytes", low=1
    )
    brownout: bool = option(
        True,
        "backpressure",
        "Shed load by steps while the event loop is late or the queues near node_queue_bytes: refuse newcomers, gather "
        "for longer, conflate, evict.",
    )
    lag_policy_mode: LagPolicyMode = option(
        "enforce", "backpressure", "Whether the lag policy acts, or only counts what it would have done."
    )

    ping_interval: float = option(25.0, "heartbeat", "Time between two pings.", unit="seconds", above=0)
    pong_timeout: float = option(10.0, "heartbeat", "Time that a client has to answer a ping.", unit="seconds", above=0)

    fanout_slice: int = option(512, "fan-out", "Clients written to between two looks at the event loop.", low=1)

    personal_channels: bool = option(
        False, "channels", "Every user is put on a channel of its own, the user's name behind a #."
    )

    broker: Literal["memory"] | SecretStr = option(
        "memory",
        "broker",
        "What orders and keeps publications: this server's memory, or Redis, which joins machines: "
        "redis://host:port/db (several, separated by commas, share the channels), or "
        "redis+cluster://host:port,host:port for a Redis Cluster.",
    )

    drain_timeout: float = option(
        30.0, "shutdown", "Time that clients have to leave when the server stops.", unit="seconds", low=0
    )
    drain_rate: float = option(
        0.0, "shutdown", "Clients that are sent away; 0 is as fast as is fair.", unit="per second", low=0
    )

    latency_sample: float = option(
        0.01,
        "latency",
        "Share of the clients whose latency is measured, by an echo; ten at least, but 0 is nobody.",
        low=0,
        high=1,
    )

    log_level: LogLevel = option("info", "logging", "Least severe level that is logged.")
    log_format: LogFormat = option("auto", "logging", "Form of the log; auto is text on a terminal, else JSON.")

    # By name. Last, for it is completed with the values above.
    namespaces: Mapping[Annotated[str, AfterValidator(namespace_name)], Namespace] = Field(default_factory=dict)

    @property
    def internal_is_loopback(self) -> bool:
        """Whether only this machine can reach the internal port."""
        return rules.is_loopback(self.internal_host)

    def warnings(self) -> list[str]:
        """Say what is allowed but hardly meant, a line each."""
        return list(rules.warnings(self))

    @field_validator("namespaces", mode="before")
    @classmethod
    def _complete(cls, tables: Any, info: ValidationInfo) -> Any:
        return (
            {name: complete(table, info.data) for name, table in tables.items()} if isinstance(tables, dict) else tables
        )

    @field_validator("host", "internal_host")
    @classmethod
    def _is_host(cls, host: str) -> str:
        try:
            ip_address(host)
        except ValueError:
            if not _HOST.fullmatch(host):
                raise ValueError("must be a host name or an address such as 127.0.0.1 or ::1") from None
        return host

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_network(proxy) for proxy in proxies)

    @field_validator("tls_cert", "tls_key", "jwt_jwks_file")
    @classmethod
    def _is_file(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is None:
            return None
        file = _folder(info) / file.expanduser()
        _bytes_of(file)
        return file

    @field_validator("jwt_public_key")
    @classmethod
    def _is_pem(cls, key: str | None, info: ValidationInfo) -> str | None:
        if key is None or key.lstrip().startswith("-----BEGIN"):
            return key
        return _bytes_of(_folder(info) / Path(key).expanduser()).decode("ascii", "replace")

    @field_validator("tokens", "api_key")
    @classmethod
    def _is_word(cls, value: tuple[SecretStr, ...] | SecretStr | None) -> tuple[SecretStr, ...] | SecretStr | None:
        secrets = value if isinstance(value, tuple) else (value,) if value else ()
        if not all(re.fullmatch(r"[!-~]+", secret.get_secret_value()) for secret in secrets):
            raise ValueError("must be printable ASCII without spaces, and not empty")
        return value

    @field_validator("broker")
    @classmethod
    def _is_broker(cls, broker: str | SecretStr) -> str | SecretStr:
        if isinstance(broker, SecretStr) and not _REDIS.match(broker.get_secret_value()):
            raise ValueError("must be memory, or redis://, rediss://, unix:// or redis+cluster:// addresses")
        return broker

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return origins if isinstance(origins, str) else tuple(_origin(origin) for origin in origins)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if found := tuple(rules.contradictions(self)):
            raise rules.ContradictionError(found)
        return self


# In the order of the help.
_GROUPS: Final = (
    "listen",
    "access",
    "limits",
    "backpressure",
    "heartbeat",
    "fan-out",
    "history",
    "channels",
    "broker",
    "shutdown",
    "latency",
    "logging",
)
OPTIONS: Final[dict[str, Option]] = {
    option.key: option
    for option in sorted(
        (Option.of(key, field) for key, field in Settings.model_fields.items() if is_option(field)),
        key=lambda option: _GROUPS.index(option.group),
    )
}


def _origin(text: str) -> str:
    """Bring an entry of `allowed_origins` to the form that browsers send."""
    match = _ORIGIN.fullmatch(text.lower())
    if not match or (match["port"] and int(match["port"]) > 65535):
        raise ValueError(
            f"must be same-origin, or *, or a list of scheme://host[:port] such as https://*.example.com; {text} is not"
        )
    if match["port"] and int(match["port"]) == _DEFAULT_PORTS.get(match["scheme"]):
        return f"{match['scheme']}://{match['host']}"
    return match[0]


def _network(text: str) -> str:
    """Bring an entry of `trusted_proxies` to one form."""
    try:
        return str(ip_network(text) if "/" in text else ip_address(text))
    except ValueError as error:
        why = "; its network has bits set behind the prefix" if "host bits" in str(error) else ""
        raise ValueError(
            f"must be a list of addresses or networks such as 192.0.2.7 or 10.0.0.0/8; {text} is not{why}"
        ) from None


def _folder(info: ValidationInfo) -> Path:
    """Where relative paths start: the same for all three places."""
    return Path(info.context["cwd"]) if info.context else Path.cwd()


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ValueError(f"must be the path of a file that can be read ({reason.lower()})") from None
