"""Whether a Redis takes what is written: what became of the probes that are written as everything is that is kept.

Laws: who is in contact may refuse all the same (its memory is full, it lacks replicas, we lack a permission); that is
said once when it begins, in Redis' own words, and once when it is over. It says nothing of whether we hear.
"""

from __future__ import annotations

import logging

log = logging.getLogger("stentor.redis")


class Writing:
    """See the module. `place` names the Redis; `refusal` is what it says, "" if it takes what is written."""

    def __init__(self, place: str) -> None:
        self.refusal = ""
        self._place = place
        self._said: set[str] = set()

    def taken(self) -> None:
        """Learn that something was written."""
        if self.refusal:
            self.refusal = ""
            self._said.clear()
            log.warning("%s: it takes again what is written", self._place)

    def refused(self, words: str) -> None:
        """Learn that something was not, and in which words."""
        self.refusal = words
        # The first one tells the kinds apart: OOM, NOREPLICAS, NOPERM.
        kind = words.partition(" ")[0]
        if kind not in self._said:
            self._said.add(kind)
            log.warning("%s: it refuses what is written: %s", self._place, words)
