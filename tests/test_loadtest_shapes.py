from __future__ import annotations

import pytest

from loadtest.options import SHAPES
from loadtest.shapes import share, users_at


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_reaches_the_peak_and_never_more(shape: str) -> None:
    curve = [users_at(shape, second / 10, 60.0, 200) for second in range(-10, 700)]
    assert max(curve) == 200
    assert min(curve) >= 1
    assert curve[0] == curve[10], "before it begins, it is where it begins"


def test_the_curves() -> None:
    times = (0, 15, 29, 30, 31, 45, 60)
    assert [users_at("ramp", t, 60, 100) for t in times] == [10, 33, 54, 55, 57, 78, 100]
    assert [users_at("step", t, 60, 100) for t in times] == [20, 40, 60, 60, 60, 80, 100]
    assert [users_at("spike", t, 60, 100) for t in times] == [25, 25, 100, 100, 100, 25, 25]
    assert [users_at("soak", t, 60, 100) for t in (0, 3, 6, 60)] == [10, 55, 100, 100]


def test_one_user_is_the_least() -> None:
    assert users_at("ramp", 0, 60, 1) == 1


def test_an_unknown_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no shape 'wave'"):
        share("wave", 0, 1)
