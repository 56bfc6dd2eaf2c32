"""One observatory for all tests of the dashboards: it takes seconds to make, and nobody changes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.observatory import Observatory, observatory


@pytest.fixture(scope="package")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observatory]:
    with observatory(tmp_path_factory.mktemp("observatory")) as found:
        yield found
