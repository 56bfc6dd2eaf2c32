"""What is deployed: a wheel, an image, a unit, a site and a cluster, checked as far as they can be without running one.

Tools that judge a kind of file (systemd-analyze, hadolint, promtool) are asked; where one is missing its test is
skipped with that reason, and fails under CI, which installs them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.absence import absent

REPOSITORY: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = REPOSITORY / "deploy"
DRAIN_TIMEOUT: Final = 30


def tool(name: str) -> str:
    """Find a program, beside the Python that runs the tests or anywhere."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        absent(f"{name} is not installed")
    return found


def documents(file: Path) -> list[dict[str, Any]]:
    """Read every document of a YAML file."""
    return [document for document in yaml.safe_load_all(file.read_text()) if document is not None]


def find(value: object, key: str) -> Iterator[Any]:
    """Yield every value that stands under `key`, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from find(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from find(inner, key)
