"""`make docs`: write docs/configuration.md again, from the declarations of the options.

    python docs/reference.py [--check]

With --check nothing is written; the exit code is 1 if the file is not what would be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from server.config import OPTIONS, Namespace, Option, Settings
from server.config.options import as_toml

FILE = Path(__file__).resolve().parent / "configuration.md"

HEAD = """\
# Configuration

This page is written from the code (`make docs`); a test keeps it so. `stentor --help` says the same, and
`stentor check` what is in force and where each value came from.

Every option exists three ways. The command line beats the environment, which beats the file, which beats the default:

```sh
stentor --queue-messages 512                  # command line
STENTOR_QUEUE_MESSAGES=512 stentor            # environment
echo 'queue_messages = 512' > stentor.toml    # the file: stentor.toml where it is started, or --config FILE
```

- **Times** are seconds, or `500ms`, `10s`, `1m`, `2h`; `batch_delay` is milliseconds. **Sizes** are bytes, or `64KiB`,
  `1MiB`.
- **Lists** repeat the option (`--tokens a --tokens b`), are a list in the file, and one entry or JSON in the
  environment (`STENTOR_TOKENS='["a", "b"]'`).
- **Flags** are `--publish` and `--no-publish`, or `true` and `false`.
- **Secrets** are masked wherever the configuration is shown. Keep them out of the command line, which every user of the
  machine can read.
- Relative paths start where the server is started.
- An unknown key is an error that names the nearest known one; every mistake is reported, a line each, with exit code 2.

Options marked *namespaces* can be set otherwise for the channels called `NAME:…`, in a table of the file; what it
leaves out is as at the top of the file. In the environment `STENTOR_NAMESPACES` is an object of such tables (JSON), and
takes the place of all that are in the file.

```toml
[namespaces.chat]          # chat:lobby, chat:dev, …
history_size = 100
presence = true
```
"""


def page() -> str:
    """Write the page."""
    blocks = [HEAD, "\n".join(_overview())]
    for group, options in groupby(OPTIONS.values(), key=lambda option: option.group):
        blocks.append(f"## {group.capitalize()} options\n")
        blocks += ["\n".join(_entry(option)) for option in options]
    return "\n".join(blocks)


def _overview() -> Iterator[str]:
    yield "| group | options |"
    yield "|---|---|"
    for group, options in groupby(OPTIONS.values(), key=lambda option: option.group):
        names = ", ".join(f"[`{option.key}`](#{option.key})" for option in options)
        yield f"| {group} | {names} |"
    yield ""


def _entry(option: Option) -> Iterator[str]:
    yield f"### `{option.key}`"
    yield ""
    yield option.sentence
    yield ""
    where = " · *namespaces*" if option.key in Namespace.model_fields else ""
    yield f"`{option.flag}` · `{option.variable}`{where}"
    yield ""
    yield f"Default: {_default(option)}. It {option.allowed}."
    yield ""


def _default(option: Option) -> str:
    # What is reckoned at the start differs between machines; the sentence says how.
    if Settings.model_fields[option.key].default_factory is not None:
        return "reckoned at the start"
    default = option.default()
    if default is None or default == ():
        return "none"
    return f"`{as_toml(default)}` {option.unit}".rstrip()


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    if "--check" in arguments:
        return int(FILE.read_text(encoding="utf-8") != page())
    FILE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
