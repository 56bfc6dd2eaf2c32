"""The configuration: what the options are, and how they are read. A leaf: it imports no other room of the server."""

from server.config.namespaces import LagPolicy, Namespace, RecoveryMode
from server.config.options import Option
from server.config.rules import is_loopback
from server.config.settings import (
    OPTIONS,
    Auth,
    JwtAlgorithm,
    LagPolicyMode,
    LogFormat,
    LogLevel,
    Settings,
)

__all__ = [
    "OPTIONS",
    "Auth",
    "JwtAlgorithm",
    "LagPolicy",
    "LagPolicyMode",
    "LogFormat",
    "LogLevel",
    "Namespace",
    "Option",
    "RecoveryMode",
    "Settings",
    "is_loopback",
]
