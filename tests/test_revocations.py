"""Which tokens are revoked: by their ids, by their users and dates; in whatever order it is heard, and until when."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.revocations import MOST, MOST_KEPT, UNSAID, Revocation, Revocations, Token


def table(*said: Revocation) -> Revocations:
    revoked = Revocations()
    for offset, revocation in enumerate(said, 1):
        revoked.add(revocation, offset)
    return revoked


def test_nothing_is_revoked_at_first() -> None:
    revoked = Revocations()
    assert not revoked.refuses(Token())
    assert not revoked.refuses(Token("1", "ann", 1.0, "news"))
    assert len(revoked) == 0


@pytest.mark.parametrize("channel", ["", "news"])
def test_a_token_is_revoked_by_its_id_whatever_it_is_for(channel: str) -> None:
    revoked = table(Revocation(uid="1"))
    assert revoked.refuses(Token("1", "ann", 1.0, channel))
    assert not revoked.refuses(Token("2", "ann", 1.0, channel))
    assert not revoked.refuses(Token("", "1", 1.0, channel)), "an id is no user"
    assert not table(Revocation(user="1", before=9)).refuses(Token("1", "ann", 1.0, channel)), "nor the other way"


@pytest.mark.parametrize(
    ("token", "refused"),
    [
        (Token("", "ann", 99.0), True),
        (Token("1", "ann", 99.9), True),
        (Token("", "ann", 100.0), False),
        (Token("", "ann", 101.0), False),
        (Token("", "ann"), True),  # nobody knows when
        (Token("", "bob", 99.0), False),
        (Token("", "", 99.0), False),
        (Token("", "ann", 99.0, "news"), False),  # of another kind
    ],
)
def test_the_connection_tokens_of_a_user_are_revoked_by_their_date(token: Token, refused: bool) -> None:
    assert table(Revocation(user="ann", before=100)).refuses(token) is refused


@pytest.mark.parametrize(
    ("token", "refused"),
    [
        (Token("", "ann", 99.0, "news"), True),
        (Token("", "ann", 100.0, "news"), False),
        (Token("", "ann", 99.0, "sports"), False),
        (Token("", "ann", 99.0), False),
        (Token("", "bob", 99.0, "news"), False),
    ],
)
def test_those_for_a_channel_are_revoked_by_themselves(token: Token, refused: bool) -> None:
    assert table(Revocation(user="ann", channel="news", before=100)).refuses(token) is refused


def test_users_without_a_name_are_a_user() -> None:
    revoked = table(Revocation(before=100))
    assert revoked.refuses(Token("", "", 99.0))
    assert not revoked.refuses(Token("", "ann", 99.0))


def test_what_has_ended_is_forgotten() -> None:
    revoked = table(Revocation(uid="1", ends=10), Revocation(uid="2", ends=20), Revocation(uid="3"))
    revoked.forget_old(9.9)
    assert len(revoked) == 3
    revoked.forget_old(10)
    assert [revoked.refuses(Token(uid)) for uid in "123"] == [False, True, True]
    revoked.forget_old(1e12)
    assert [revoked.refuses(Token(uid)) for uid in "123"] == [False, False, True]
    revoked.add(Revocation(uid="4", ends=30), 4)
    revoked.forget_old(1e12)
    assert len(revoked) == 1


words = st.builds(
    Revocation,
    uid=st.just(""),
    user=st.sampled_from("ab"),
    channel=st.sampled_from(["", "news"]),
    before=st.integers(0, 5),
    ends=st.sampled_from([10.0, 20.0, inf]),
)


@given(st.lists(words, max_size=8), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_matters(said: list[Revocation], luck: object) -> None:
    shuffled = said * 2
    luck.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = table(*said), table(*shuffled)
    for now in (0, 10, 20):
        one.forget_old(now)
        other.forget_old(now)
        assert len(one) == len(other)
        for user in "ab":
            for channel in ("", "news"):
                for issued in range(6):
                    token = Token("", user, issued, channel)
                    expected = any(
                        each.user == user
                        and each.channel == channel
                        and issued < each.before
                        # What was said of the same is joined: it lasts as long as the last of it.
                        and now < max(same.ends for same in said if same.key == each.key)
                        for each in said
                    )
                    assert one.refuses(token) == other.refuses(token) == expected


def test_what_is_new_is_told_from_what_was_known() -> None:
    revoked = Revocations()
    assert revoked.add(Revocation(user="ann", before=5, ends=10), 1)
    assert not revoked.add(Revocation(user="ann", before=5, ends=10), 2)
    assert not revoked.add(Revocation(user="ann", before=4, ends=9), 3)
    assert revoked.add(Revocation(user="ann", before=6, ends=9), 4)
    assert revoked.add(Revocation(user="ann", before=1), 5)
    assert len(revoked) == 1
    assert Revocation(user="ann") in revoked
    assert Revocation(uid="ann") not in revoked


def test_there_is_room_for_so_many_and_what_is_there_stays() -> None:
    revoked = Revocations()
    assert all(revoked.add(Revocation(uid=str(number)), number) for number in range(MOST_KEPT))
    assert MOST < MOST_KEPT
    assert not revoked.add(Revocation(uid="one too many"), MOST_KEPT)
    assert not revoked.refuses(Token("one too many"))
    assert len(revoked) == MOST_KEPT
    assert revoked.add(Revocation(uid="7", before=1), MOST_KEPT + 1), "what is known may change"
    assert revoked.refuses(Token("0"))


def test_what_was_said_long_ago_is_to_be_said_again() -> None:
    ann = Revocation(user="ann", before=5, ends=20)
    revoked = table(Revocation(uid="1"), ann, Revocation(uid="3"))
    assert revoked.faded(0, 10) == []
    assert revoked.faded(2, 10) == [(Revocation(uid="1"), 1), (ann, 2)]
    assert revoked.faded(2, 1) == [(Revocation(uid="1"), 1)]
    revoked.add(Revocation(uid="1"), 4)
    assert revoked.faded(3, 10) == [(ann, 2), (Revocation(uid="3"), 3)]
    # Neither word says all of it: it is the first that must not be forgotten.
    later = Revocation(user="ann", before=6, ends=10)
    revoked.add(later, 5)
    assert revoked.faded(2, 10) == [(ann.joined(later), 2)]
    revoked.add(ann.joined(later), 6)
    assert revoked.faded(5, 10) == [(Revocation(uid="3"), 3), (Revocation(uid="1"), 4)]


def test_when_the_stream_is_gone_all_is_to_be_said_again() -> None:
    revoked = table(Revocation(uid="1"), Revocation(uid="2"))
    revoked.unsay()
    assert revoked.faded(-1000, 10) == [(Revocation(uid="1"), UNSAID), (Revocation(uid="2"), UNSAID)]
    revoked.add(Revocation(uid="1"), 1)
    assert revoked.faded(-1000, 10) == [(Revocation(uid="2"), UNSAID)]
    assert revoked.refuses(Token("1"))
    assert revoked.refuses(Token("2"))
