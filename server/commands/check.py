"""`stentor check`: what the configuration comes to, and where each value came from."""

from __future__ import annotations

from itertools import groupby

from server.commands.line import Line, Parser, configuration, warn
from server.config import OPTIONS, Namespace
from server.config.options import as_toml, as_toml_key
from server.config.sources import ConfigError, Loaded

ABOUT = """\
Checks the configuration and prints it resolved, as TOML, with the place that
each value came from; secrets are masked. Ends with 0 if it can be used, with 2
if not.

A table [namespaces.NAME] in the file sets options of channels otherwise for
those called NAME:... Each namespace is printed whole: what its table leaves
out is as above."""


def parser() -> Parser:
    """Take the options that `serve` takes."""
    parser = Parser("check", ABOUT)
    parser.add_configuration()
    return parser


def run(line: Line) -> int:
    """Print the configuration on standard output, warnings on standard error."""
    loaded = configuration(line)
    _ensure_broker(loaded)
    print(resolved(loaded))
    for warning in loaded.settings.warnings():
        warn(f"stentor: warning: {warning}")
    return 0


def _ensure_broker(loaded: Loaded) -> None:
    """See that the addresses of Redis make sense, and that files they name can be used. Raises ConfigError."""
    if isinstance(loaded.settings.broker, str):
        return
    # Only here: what builds the server brings its libraries along.
    from server import blueprint

    try:
        blueprint.broker(loaded.settings)
    except blueprint.Impossible as fault:
        what, _, why = str(fault).partition(": ")
        raise ConfigError([f"{what} ({loaded.origin['broker']}): {why}"]) from None


def resolved(loaded: Loaded) -> str:
    """Write the configuration as a TOML file; what is not set, and has no default, is a comment."""
    blocks = []
    for group, options in groupby(OPTIONS.values(), key=lambda option: option.group):
        lines = [f"# {group}"]
        for option in options:
            value, origin = getattr(loaded.settings, option.key), loaded.origin[option.key]
            lines.append(
                f"# {option.key} is not set" if value is None else f"{option.key} = {as_toml(value)}  # from {origin}"
            )
        blocks.append("\n".join(lines))
    blocks += [_namespace(loaded, name) for name in loaded.settings.namespaces]
    return "\n\n".join(blocks)


def _namespace(loaded: Loaded, name: str) -> str:
    namespace, overridden = loaded.settings.namespaces[name], loaded.overridden[name]
    lines = [f"[namespaces.{as_toml_key(name)}]"]
    for key in Namespace.model_fields:
        origin = f"from {overridden[key]}" if key in overridden else "as above"
        lines.append(f"{key} = {as_toml(getattr(namespace, key))}  # {origin}")
    return "\n".join(lines)
