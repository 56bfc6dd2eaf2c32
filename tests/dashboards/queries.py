"""What the tests need to know of PromQL, which is little: the selectors of a query, and what stands around each.

Whether it *is* PromQL, Prometheus is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<name>[a-zA-Z_:][\w:]*)
    |(?P<matchers>\{(?:[^}"]|"(?:[^"\\]|\\.)*")*\})
    |(?P<range>\[[^\]]*\])
    |(?P<other>[()]|[^\s()\w]|\d[\w.]*))""",
    re.VERBOSE,
)
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_LABEL_LISTS: Final = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS: Final = {"and", "or", "unless", "bool", "offset", "inf", "nan", "Inf", "NaN"}


@dataclass(frozen=True)
class Selector:
    """A selector: the metric ("" if a matcher names it), its matchers, its range, and the function it is handed to."""

    metric: str
    matchers: frozenset[tuple[str, str, str]]
    range: str | None
    function: str | None


def selectors(query: str) -> Iterator[Selector]:
    """Find the selectors of a query."""
    tokens = [(match.lastgroup, match[match.lastgroup or 0]) for match in _TOKEN.finditer(query)]
    around: list[str | None] = []
    index = 0
    while index < len(tokens):
        kind, text = tokens[index]
        following = tokens[index + 1] if index + 1 < len(tokens) else (None, "")
        if kind == "name" and text in _LABEL_LISTS:
            index = next(at for at in range(index, len(tokens)) if tokens[at][1] == ")")
        elif kind == "name" and _is_call(tokens, index):
            around.append(text)
            index = next(
                at for at in range(index, len(tokens)) if tokens[at] == ("other", "(") and not _is_list(tokens, at)
            )
        elif text == "(":
            around.append(None)
        elif text == ")":
            around.pop()
        elif kind == "matchers" or (kind == "name" and text not in _WORDS):
            metric, matchers = (text, "") if kind == "name" else ("", text)
            if kind == "name" and following[0] == "matchers":
                matchers, index = following[1], index + 1
            after = tokens[index + 1] if index + 1 < len(tokens) else (None, "")
            span = after[1][1:-1] if after[0] == "range" else None
            yield Selector(metric, frozenset(_MATCHER.findall(matchers)), span, around[-1] if around else None)
        index += 1
    assert not around, query


def _is_list(tokens: list[tuple[str | None, str]], at: int) -> bool:
    return at > 0 and tokens[at - 1][1] in _LABEL_LISTS


def _is_call(tokens: list[tuple[str | None, str]], index: int) -> bool:
    """Whether the name is that of a function: `sum (x)`, and `sum by (le) (x)`."""
    following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
    return following == "(" or (following in {"by", "without"} and tokens[index][1] not in _WORDS)


def filled_in(query: str, variables: Mapping[str, str]) -> str:
    """Put values for Grafana's variables, `$name` and `${name}`."""
    for name, value in variables.items():
        query = re.sub(rf"\$(?:{re.escape(name)}\b|\{{{re.escape(name)}\}})", lambda _, value=value: value, query)  # type: ignore[misc]
    return query
