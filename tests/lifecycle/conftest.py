"""Nothing is left behind by a test: whoever is still connected at its end is cut off."""

from collections.abc import AsyncIterator

import pytest

from tests.lifecycle import crowd


@pytest.fixture(autouse=True)
async def _nobody_stays() -> AsyncIterator[None]:
    yield
    await crowd.cut_everyone_off()
