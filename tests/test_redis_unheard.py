"""Our own publications that Redis has not brought back: in order, each once, and not without bound."""

from __future__ import annotations

from dataclasses import dataclass

from server.brokers.redis.unheard import Unheard


@dataclass
class Own:
    text: str
    heard: list[str]
    channel: str = "news"
    size: int = 1

    def hear(self) -> None:
        self.heard.append(self.text)


def full(**limits: int) -> tuple[Unheard, list[str]]:
    unheard, heard = Unheard(**limits), list[str]()
    for serial, text in ((2, "a"), (3, "b"), (7, "c")):
        unheard.add(serial, Own(text, heard))
    return unheard, heard


def test_what_waits_is_heard_once_and_in_order() -> None:
    unheard, heard = full()
    unheard.hear(before=(3).__gt__)
    assert heard == ["a"]
    unheard.hear()
    unheard.hear()
    assert heard == ["a", "b", "c"]
    assert len(unheard) == 0


def test_what_was_brought_was_heard_with_all_before_it() -> None:
    unheard, heard = full()
    unheard.brought(5)
    unheard.brought(1)
    unheard.hear()
    assert heard == ["c"]


def test_what_was_refused_or_is_of_a_channel_that_nobody_hears_is_forgotten() -> None:
    unheard, heard = full()
    unheard.add(8, Own("d", heard, channel="sport"))
    unheard.refused(3)
    unheard.refused(3)
    unheard.leave("sport")
    unheard.hear()
    assert heard == ["a", "c"]


def test_it_is_bounded_in_number_and_bytes_and_the_oldest_goes_first() -> None:
    unheard, heard = full(most=2)
    unheard.hear()
    assert heard == ["b", "c"]
    unheard, heard = full(most_bytes=10)
    unheard.add(9, Own("large", heard, size=9))
    unheard.hear()
    assert heard == ["c", "large"]
    unheard.add(10, Own("small again", heard, size=10))
    assert len(unheard) == 1, "what was forgotten takes no room"
