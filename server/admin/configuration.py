"""The configuration in force, for the operator's page: as `stentor check` prints it, secrets masked."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from server.config import OPTIONS, Namespace, Settings
from server.config.options import as_toml, as_toml_key


def in_force(settings: Settings) -> list[dict[str, Any]]:
    """List the options in their groups, each with its value as in a TOML file (None: not set).

    `is_default` tells of each if it is as it would be without any configuration; in a namespace, if it is as outside.
    """
    groups = [
        {
            "group": group,
            "options": [_row(option.key, getattr(settings, option.key), option.default()) for option in options],
        }
        for group, options in groupby(OPTIONS.values(), key=lambda option: option.group)
    ]
    return groups + [
        {
            "group": f"namespaces.{as_toml_key(name)}",
            "options": [
                _row(key, getattr(namespace, key), getattr(settings, key)) for key in Namespace.model_fields
            ],
        }
        for name, namespace in settings.namespaces.items()
    ]  # fmt: skip


def _row(key: str, value: object, default: object) -> dict[str, Any]:
    return {"key": key, "value": None if value is None else as_toml(value), "is_default": value == default}
