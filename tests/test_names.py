"""What a channel may be called."""

import sys

import pytest

from server.core.names import name_fault


@pytest.mark.parametrize("name", ["main", "a", "news:zürich", "#user", "ключ", "a/b?c", "x" * 8, "🏛"])
def test_a_good_name(name: str) -> None:
    assert name_fault(name, 11) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty"),
        ("x" * 12, "is longer than 11 characters"),
        ("é" * 12, "is longer than 11 characters"),
        ("a b", "has spaces or control characters"),
        ("a\nb", "has spaces or control characters"),
        ("a\u2028b", "has spaces or control characters"),
        ("a\u00a0b", "has spaces or control characters"),
        ("\x1b[31m", "has spaces or control characters"),
        ("a\ud800", "has spaces or control characters"),
    ],
)
def test_a_bad_name(name: str, fault: str) -> None:
    assert name_fault(name, 11) == fault


def test_no_character_that_is_a_space_to_anybody_is_in_a_name() -> None:
    spaces = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    assert len(spaces) > 20
    assert all(name_fault(f"a{space}b", 11) for space in spaces)
