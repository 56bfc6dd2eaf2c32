"""The command lines of `loadtest.run` and `loadtest.scaling`: each option once, as a flag and in the environment.

The options of the load itself are those of `loadtest.options`, which Locust declares too; here are added those of
starting a server and of running steps. The command line beats the environment, which beats the default; a variable
that is empty is as good as absent, since `make` hands on empty ones.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

from loadtest.options import OPTIONS, BadOption, Option, masked

RUN_OPTIONS = (
    Option("workers", "WORKERS", 1, "worker processes of the server that is started, of each node"),
    Option("nodes", "NODES", 1, "servers that are started, joined by BROKER"),
    Option("broker", "BROKER", "", "redis: one is started; or the address of one that runs, redis://host:port"),
    Option("processes", "PROCESSES", 0, "processes that generate load; 0 = one for each core that the server leaves"),
    Option("server-args", "SERVER_ARGS", "", "further options for the server that is started, as one string"),
    Option("results", "RESULTS", "loadtest/results", "the directory that gets a directory for each run"),
    Option("web-port", "WEB_PORT", 8089, "the port of Locust's web page (make loadtest-ui)"),
)

SCALING_OPTIONS = (
    Option("slo-p99", "SLO_P99", "50ms", "the promise: 99 of 100 deliveries arrive within this, and none is lost"),
    Option("subscribers-steps", "SUBSCRIBERS", "500,1000,2000,4000,8000,16000", "the numbers of subscribers to try"),
    Option("rate-steps", "RATES", "25,50,100,200,400,800,1600", "the publications per second to try after that"),
    Option("rate-subscribers", "RATE_SUBSCRIBERS", 500, "the number of subscribers while the rate is raised"),
    Option("size-steps", "SIZES", "1024,8192", "payload sizes, which tell the cost of a byte from that of a delivery"),
    Option("repeat", "REPEAT", 3, "runs of each step"),
    Option("refine", "REFINE", 2, "steps between the last that held and the first that did not"),
    Option("time-budget", "TIME_BUDGET", "10m", "about how long all of it may take"),
    Option(
        "baseline", "BASELINE", "", "an earlier scaling.json (or its directory): exit code 1 if something got worse"
    ),
)

# What a variable may also be called.
_ALIASES = {"METRICS": "METRICS_URL"}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like everything else here."""

    def error(self, message: str) -> NoReturn:
        raise BadOption(message)


def parse(
    program: str,
    about: str,
    arguments: Sequence[str],
    options: Sequence[Option],
    *,
    defaults: Mapping[str, object] | None = None,
    flags: Mapping[str, str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> argparse.Namespace:
    """Read a command line.

    Args:
        defaults: by option key, where they differ from the option's own.
        flags: switches without a value, and their help.

    Raises:
        BadOption: an unknown option, or a value of the wrong kind; one line.
    """
    parser = _Parser(program, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, help_text in (flags or {}).items():
        parser.add_argument(f"--{flag}", action="store_true", help=help_text)
    for option in options:
        default = (defaults or {}).get(option.key, option.default)
        help_text = f"{option.help} ({option.variable}={'' if default == '' else default})".replace("%", "%%")
        parser.add_argument(f"--{option.flag}", type=str, default=None, metavar=option.variable, help=help_text)
    parsed = parser.parse_args(list(arguments))
    for option in options:
        default = (defaults or {}).get(option.key, option.default)
        setattr(parsed, option.key, _value(option, getattr(parsed, option.key), default, environment))
    parsed.defaults = dict(defaults or {})
    return parsed


def given(parsed: argparse.Namespace, options: Sequence[Option] = OPTIONS) -> list[str]:
    """The options that are not at their default, as flags for a command line; secrets stay out of it."""
    changed = [o for o in options if getattr(parsed, o.key) != o.default and not o.secret]
    return [f"--{option.flag}={plainly(getattr(parsed, option.key))}" for option in changed]


def typed(program: str, parsed: argparse.Namespace, options: Sequence[Option]) -> str:
    """The command that does the same again, as one would type it for make."""
    changed = [o for o in options if getattr(parsed, o.key) != parsed.defaults.get(o.key, o.default)]
    pairs = [
        f"{o.variable}={'***' if o.secret else _quoted(masked(plainly(getattr(parsed, o.key)), ''))}" for o in changed
    ]
    return " ".join((program, *pairs))


def plainly(value: object) -> str:
    """A value as one would type it: 10 rather than 10.0."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for what we start: without our variables, which it would take for its own a second time."""
    ours = {option.variable for option in (*OPTIONS, *RUN_OPTIONS, *SCALING_OPTIONS)} | set(_ALIASES.values())
    return {name: value for name, value in environment.items() if name not in ours}


def _value(option: Option, typed: str | None, default: object, environment: Mapping[str, str]) -> object:
    names = (option.variable, _ALIASES.get(option.variable, option.variable))
    text = typed if typed is not None else next((environment[n] for n in names if environment.get(n)), None)
    if text is None:
        return default
    kind = type(option.default)
    try:
        return kind(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[kind]
        raise BadOption(f"{option.variable}={text}: {wanted} is needed") from None


def _quoted(text: str) -> str:
    return f"'{text}'" if set(text) & set(' "$&;|<>*?()') else text
