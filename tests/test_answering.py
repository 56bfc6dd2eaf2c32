"""What becomes of each command of a connected client: in literal JSON, one after another."""

from __future__ import annotations

from typing import get_args

import pytest

from server.dialects.centrifuge import commands
from server.edge.centrifuge.answering import HANDLERS
from tests.speaker import BAD, UNAVAILABLE, connected, dialect_house, error


def test_whatever_the_dialect_knows_is_taken_by_somebody() -> None:
    assert set(HANDLERS) == set(get_args(commands.Body)) - {commands.Connect}


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ('{"id":5,"ping":{}}', [error(5, *UNAVAILABLE)]),
        ('{"id":5,"rpc":{"method":"sum","data":[1]}}', [error(5, 104, "method not found")]),
        ('{"id":5,"dance":{}}', [error(5, 104, "method not found")]),
        ('{"id":5}', [error(5, 104, "method not found")]),
        ('{"id":5,"subscribe":7}', [error(5, *BAD)]),
        ('{"id":5,"subscribe":{"channel":7}}', [error(5, *BAD)]),
        ('{"id":5,"subscribe":{},"publish":{}}', [error(5, *BAD)]),
        ('{"id":5,"history":{"channel":"news","limit":"all"}}', [error(5, *BAD)]),
        ('{"id":5,"publish":{"channel":"news"}}', [error(5, *BAD)]),
        ('{"id":5,"publish":{"data":1}}', [error(5, *BAD)]),
        ('{"id":5,"publish":{"channel":"a b","data":1}}', [error(5, *BAD)]),
        ('{"id":5,"unsubscribe":{}}', [error(5, *BAD)]),
        ('{"id":5,"unsubscribe":{"channel":"never"}}', ['{"id":5,"unsubscribe":{}}']),
        ('{"id":5,"publish":{"channel":"x","data":1,"type":1}}', [error(5, *UNAVAILABLE)]),
        ('{"id":4294967295,"ping":{}}', [error(4294967295, *UNAVAILABLE)]),
        ('{"send":{"data":{}}}', []),
        ('{"id":5,"send":{"data":{}}}', []),
        ("{}", []),
        ('{"id":0}', []),
        ("{}\n{}\n", []),
        ('{"id":5,"publish":{"channel":"x","data":"\\ud800"}}', [error(5, *BAD)]),
    ],
)
def test_every_command_gets_its_answer(line: str, answer: list[str]) -> None:
    alice = connected(dialect_house())
    assert alice.asks(line) == answer
    assert alice.close is None
