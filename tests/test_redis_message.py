"""The bytes that go over Redis: written out here, read back, and nothing else taken for them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.brokers.redis.message import (
    MAX_MESSAGE,
    Kind,
    Malformed,
    Message,
    body,
    decode,
    decode_info,
    decode_kept,
    encode,
    encode_info,
)
from server.core.publication import ClientInfo, Publication

ORIGIN = b"node-one"
NEWS_OF_ANN = ClientInfo("ann", "c1", b"{}", b"")
PLAIN = (
    b"\0\0\0\0\0\0\0\0" + b"\0\0\0\0\0\0\0\0"  # no offset, no epoch
    b"\x01\x00\x00" + b"node-one" + b"\0\0\0\0\0\0\0\x07" + b"\0\0\0\0\0\0\0\0" + b"\0\0\0\x02hi"
)
FULL = (
    b"\0\0\0\0\0\0\x01\x02" + b"epoch123"
    b"\x01\x00\x0f" + b"node-one" + b"\0\0\0\0\0\0\0\0" + b"\0\0\0\0\0\0\x03\xe8" + b"\0\0\0\x01\xff"
    b"\0\0\0\x03" + b"\0\0\0\x02" + b"\0\0\0\x02" + b"\0\0\0\0" + b"annc1{}"
    b"\0\0\0\x01" + b"\0\0\0\x01" + b"\0\0\0\x02" + b"k\xc3\xa9"
)
FULL_PUBLICATION = Publication(b"\xff", True, 258, NEWS_OF_ANN, {"k": "é"}, 1000, True)


def test_the_bytes_of_a_plain_publication() -> None:
    assert encode(Kind.PUBLICATION, ORIGIN, 7, Publication(b"hi")) == PLAIN
    assert decode(PLAIN) == Message(0, ORIGIN, 7, "", Publication(b"hi"))


def test_the_bytes_of_all_that_a_publication_may_have() -> None:
    encoded = encode(Kind.PUBLICATION, ORIGIN, 0, FULL_PUBLICATION)
    assert encoded[16:] == body(encoded) == FULL[16:]
    assert encoded[:16] == bytes(16), "offset and epoch are the script's"
    assert decode(FULL) == Message(0, ORIGIN, 0, "epoch123", FULL_PUBLICATION)
    assert decode_kept(258, "epoch123", FULL[16:]) == FULL_PUBLICATION


@pytest.mark.parametrize("kind", [Kind.JOIN, Kind.LEAVE])
def test_news(kind: Kind) -> None:
    message = decode(encode(kind, ORIGIN, 0, Publication(b"", info=NEWS_OF_ANN)))
    assert (message.kind, message.publication.info) == (kind, NEWS_OF_ANN)
    with pytest.raises(Malformed):
        decode_kept(1, "epoch123", body(encode(kind, ORIGIN, 0, Publication(b"", info=NEWS_OF_ANN))))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
infos = st.builds(ClientInfo, texts, texts, st.binary(max_size=20), st.binary(max_size=20))


@given(
    st.one_of(
        st.builds(Publication, texts.map(str.encode), *map(st.just, (False, 0, None, None, 0)), st.booleans()),
        st.builds(
            Publication,
            st.binary(max_size=50),
            st.just(True),
            st.just(0),
            infos,
            st.dictionaries(texts, texts, min_size=1, max_size=4),
            st.integers(0, 2**63),
            st.just(False),
        ),
    ),
    st.integers(0, 2**64 - 1),
)
def test_what_is_encoded_is_decoded(publication: Publication, serial: int) -> None:
    assert decode(encode(Kind.PUBLICATION, ORIGIN, serial, publication)) == (0, ORIGIN, serial, "", publication)


@given(infos)
def test_an_info_is_decoded(info: ClientInfo) -> None:
    assert decode_info(encode_info(info)) == info


@pytest.mark.parametrize("message", [PLAIN, FULL], ids=["plain", "full"])
def test_what_is_cut_or_too_long_is_malformed(message: bytes) -> None:
    for wrong in (*(message[:end] for end in range(len(message))), message + b"\0"):
        with pytest.raises(Malformed):
            decode(wrong)
    with pytest.raises(Malformed, match="size"):
        decode(message + bytes(MAX_MESSAGE))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(PLAIN[:16] + b"\x02" + PLAIN[17:], id="another version"),
        pytest.param(PLAIN[:17] + b"\x05" + PLAIN[18:], id="another kind"),
        pytest.param(PLAIN[:18] + b"\x10" + PLAIN[19:], id="another flag"),
        pytest.param(PLAIN[:17] + b"\x01" + PLAIN[18:], id="news of nobody"),
        pytest.param(PLAIN[:-2] + b"\xff\xff", id="text that is none"),
        pytest.param(PLAIN[:-6] + b"\xff\xff\xff\xffhi", id="a length of four gigabytes"),
        pytest.param(FULL[:8] + b"\xff" * 8 + FULL[16:], id="an epoch that is no text"),
        pytest.param(FULL.replace(b"ann", b"\xff\xff\xff"), id="a user that is no text"),
        pytest.param(FULL.replace(b"\0\0\0\x03\0\0\0\x02", b"\xff\0\0\x03\0\0\0\x02"), id="a user of four gigabytes"),
        pytest.param(FULL.replace(b"\0\0\0\x01\0\0\0\x01", b"\xff\0\0\x01\0\0\0\x01"), id="four billion tags"),
        pytest.param(FULL.replace(b"\0\0\0\x02k", b"\0\0\0\x03k"), id="a tag beyond the end"),
        pytest.param(FULL[:-1] + b"\xff", id="a tag that is no text"),
    ],
)
def test_what_is_not_exactly_so_is_malformed(wrong: bytes) -> None:
    with pytest.raises(Malformed):
        decode(wrong)


def test_no_damage_does_more_than_make_it_malformed() -> None:
    luck = random.Random(5)
    taken = 0
    for _ in range(20_000):
        damaged = bytearray(FULL)
        for _ in range(luck.randrange(1, 4)):
            damaged[luck.randrange(len(damaged))] = luck.randrange(256)
        try:
            message = decode(bytes(damaged))
        except Malformed:
            continue
        taken += 1
        assert len(message.publication.payload) <= len(FULL)
    assert 0 < taken < 20_000


@pytest.mark.parametrize(
    "wrong", [b"", b"x" * 15, encode_info(NEWS_OF_ANN) + b"x", b"\xff" * 16, b"\0\0\0\x01" + bytes(12) + b"\xff"]
)
def test_an_info_that_is_none(wrong: bytes) -> None:
    with pytest.raises(Malformed):
        decode_info(wrong)
