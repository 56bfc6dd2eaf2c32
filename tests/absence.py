"""What a test needs and is not here: the test is skipped, aloud; under CI, which installs everything, it fails."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str) -> NoReturn:
    """Leave the test out, for `what` is not there."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
