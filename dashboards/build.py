"""Write the dashboards to ``dashboards/grafana/``, as Grafana imports and provisions them.

python -m dashboards.build [--check]     with --check nothing is written; exit code 1 if a file is not up to date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dashboards.layout import text_of
from dashboards.loadtest import LOADTEST
from dashboards.overview import OVERVIEW

FOLDER: Final = Path(__file__).resolve().parent / "grafana"
DASHBOARDS: Final = (OVERVIEW, LOADTEST)


def files() -> dict[Path, str]:
    """What should be in which file."""
    return {FOLDER / f"{dashboard.uid}.json": text_of(dashboard) for dashboard in DASHBOARDS}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m dashboards.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    only_check = parser.parse_args(arguments).check
    stale = {path: text for path, text in files().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if only_check:
            print(f"{path.name} is not up to date: run python -m dashboards.build", file=sys.stderr)
        else:
            path.write_text(text)
            print(path)
    return 1 if only_check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
