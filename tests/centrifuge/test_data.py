"""A payload as JSON, Protobuf and raw subscribers see it, whoever published it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import json_codec
from server.dialects.centrifuge.data import MAX_DEPTH, is_json, json_tags, json_text, raw_payload, to_publication
from server.dialects.centrifuge.replies import HistoryResult
from tests.centrifuge.laws import LAW

DEEPEST = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH


@pytest.mark.parametrize(
    "text",
    [b"5", b" 5 ", b'"5"', b"true", b"null", b"{}", b'\n{"a":\r\n[1]}\t', b"1e308", b"-0", DEEPEST,
     b'["' + b"[" * 100 + b'"]', b"[" + b"[]," * 1000 + b"{}]"],
    ids=repr,
)  # fmt: skip
def test_json_is_known(text: bytes) -> None:
    assert is_json(text)


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"hello", b"nul", b"NaN", b"-Infinity", b"1e309", b"9" * 400, b"01", b"+1", b"1 2", b"'a'", b'{"a":1,}',
     b'"\xff"', b'"\\ud800"', b"\xef\xbb\xbf5", b'"\x00"', b"\x00", b"[" + DEEPEST + b"]", b'{"a":' + DEEPEST + b"}"],
    ids=lambda text: repr(text[:30]),
)  # fmt: skip
def test_what_is_no_json_is_known(text: bytes) -> None:
    assert not is_json(text)


@pytest.mark.parametrize(
    ("publication", "as_json", "as_raw"),
    [
        (Publication(b"5"), b"5", b"5"),
        (Publication(b'"5"'), b'"5"', b'"5"'),
        (Publication(b"hello"), b'"hello"', b"hello"),
        (Publication(b'{"a":\n1.10}'), b'{"a":1.10}', b'{"a":\n1.10}'),
        (Publication(b"he said\n"), b'"he said\\n"', b"he said\n"),
        (Publication(b'"5"', is_json=True), b'"5"', b"5"),
        (Publication(b' "\\u2603" ', is_json=True), b' "\\u2603" ', "☃".encode()),
        (Publication(b'"true"', is_json=True), b'"true"', b"true"),
        (Publication(b"true", is_json=True), b"true", b"true"),
        (Publication(b'{"a": "5"}', is_json=True), b'{"a": "5"}', b'{"a": "5"}'),
        (Publication(b'""', is_json=True), b'""', b""),
        (Publication(b"5", is_binary=True), b'"NQ=="', b"5"),
        (Publication(b"", is_binary=True), b'""', b""),
        (Publication(b"[" + DEEPEST + b"]"), b'"[' + DEEPEST + b']"', b"[" + DEEPEST + b"]"),
    ],
)  # fmt: skip
def test_each_side_sees_its_own(publication: Publication, as_json: bytes, as_raw: bytes) -> None:
    assert json_text(publication) == as_json
    assert raw_payload(publication) == as_raw


def test_binary_is_tagged_for_json() -> None:
    assert json_tags(Publication(b"x", is_binary=True)) == {"encoding": "base64"}
    assert json_tags(Publication(b"x", is_binary=True, tags={"k": "v"})) == {"k": "v", "encoding": "base64"}
    assert json_tags(Publication(b"x", tags={"k": "v"})) == {"k": "v"}
    assert json_tags(Publication(b"x")) is None


def test_what_was_published_comes_back() -> None:
    info = ClientInfo("u", "c")
    assert to_publication(b'"5"', info=info, tags={"k": "v"}) == Publication(
        b'"5"', is_json=True, info=info, tags={"k": "v"}
    )
    # A Protobuf client may publish anything; what is no JSON is binary, even if it looks like text.
    assert to_publication(b"hello") == Publication(b"hello", is_binary=True)
    assert to_publication(b"\x00\xff", info=info) == Publication(b"\x00\xff", is_binary=True, info=info)


json_texts = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
).map(lambda value: json.dumps(value, indent=1).encode())


@LAW
@given(json_texts)
def test_json_round_trip_changes_nothing_but_newlines(text: bytes) -> None:
    publication = to_publication(text)
    if publication.is_json:
        assert publication.payload == text
        assert json_text(publication) == text.replace(b"\n", b"")
        assert json.loads(json_text(publication)) == json.loads(text)
    else:
        assert b"\\ud" in text  # half a character


@LAW
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_raw_text_is_json_to_json_subscribers(text: str) -> None:
    seen = json_text(Publication(text.encode()))
    assert b"\n" not in seen
    assert json.loads(seen) == (json.loads(text) if is_json(text.encode()) else text)


@LAW
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_raw_subscribers_get_the_text_of_a_json_string(text: str) -> None:
    assert raw_payload(to_publication(json.dumps(text).encode())) == text.encode()


def test_what_many_read_is_encoded_once_and_little_of_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = json_codec._Kept()
    first, same = Publication(b"1", offset=1, is_json=True), Publication(b"1", offset=1, is_json=True)
    (once,), (twice,), (other,) = (kept.encode([each]) for each in (first, first, same))
    assert once is twice
    assert once is not other, "what is equal need not be the same, tags apart"
    assert once[2] == len(b'{"data":1,"offset":1}')
    assert json_codec.encode_reply(1, HistoryResult((first, same), "e", 1)) == (
        b'{"id":1,"history":{"publications":[{"data":1,"offset":1},{"data":1,"offset":1}],"epoch":"e","offset":1}}'
    )
    list(kept.encode([Publication(bytes(json_codec.MOST_KEPT_OF_ONE), is_binary=True)]))
    assert len(kept) == 2
    monkeypatch.setattr(json_codec, "MOST_KEPT_BYTES", 5000)
    many = [Publication(b"%d" % number) for number in range(100)]
    for publication in many:
        list(kept.encode([publication]))
        assert len(kept) <= 12
    assert kept._bytes <= 5000
