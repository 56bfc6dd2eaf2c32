"""What limits admit, and what they are unless somebody says otherwise."""

from __future__ import annotations

import pytest

from server.core.lag import ChannelTerms, LagLimits


def test_the_defaults_are_the_contract_s() -> None:
    limits = LagLimits()
    assert (limits.policy, limits.messages, limits.bytes, limits.enforce) == ("disconnect", 256, 1048576, True)
    terms = ChannelTerms(limits)
    assert (terms.lag, terms.batch_delay, terms.declares_gaps) == (limits, 0.0, False)


@pytest.mark.parametrize(
    ("messages", "size", "admitted"),
    [(0, 0, True), (3, 10, True), (4, 10, False), (3, 11, False), (4, 11, False)],
)
def test_limits_admit_what_is_within_both(messages: int, size: int, admitted: bool) -> None:
    assert LagLimits(messages=3, bytes=10).admit(messages, size) is admitted
