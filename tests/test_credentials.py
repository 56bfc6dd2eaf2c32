"""Tokens: the good ones, and everything that has ever been tried instead of one, for both kinds of signed tokens."""

from __future__ import annotations

import base64
import hmac
import logging
import string
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core.revocations import Token
from server.edge.credentials import (
    ANONYMOUS,
    MAX_TOKEN,
    Expired,
    Grant,
    Identity,
    JsonWebTokens,
    NoCredentials,
    NoSubscriptionTokens,
    Refused,
    ServerSubscription,
    SignedSubscriptionTokens,
    StaticTokens,
)
from tests.forgeries import (
    EC_KEY,
    FUTURE,
    HS,
    RSA_KEY,
    RSA_PUBLIC,
    SECRET,
    early_hmac,
    expired_hmac,
    forged_ec,
    forged_hmac,
    forged_rsa,
    signed,
)
from tests.keyring import forge, public_pem

NEEDED: Final = "A token is needed."
BAD: Final = "The token is not valid."
EARLY: Final = "The token is not good yet."
OVER: Final = "The token has expired."

Check = Callable[[str], object]


@dataclass(frozen=True)
class Kind:
    """One of the two kinds of signed tokens: good claims, what they mean, and how a server with a key checks it."""

    name: str
    claims: dict[str, Any]
    meaning: object
    check: Callable[..., Check]


def connection_check(*key: Any, **options: Any) -> Check:
    return JsonWebTokens(*key, **options).check


def subscription_check(*key: Any, **options: Any) -> Check:
    tokens = SignedSubscriptionTokens(*key, **options)
    return lambda token: tokens.check(token, channel="news", user="ann")


CONNECTION: Final = Kind("connection", {"sub": "ann", "exp": FUTURE}, Identity("ann", FUTURE), connection_check)
SUBSCRIPTION: Final = Kind(
    "subscription", {"sub": "ann", "channel": "news", "exp": FUTURE}, Grant(FUTURE), subscription_check
)
KINDS: Final = (CONNECTION, SUBSCRIPTION)
of_both_kinds: Final = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


def each(make: Callable[[dict[str, Any]], dict[str, str]]) -> Any:
    """Parametrize by every token that `make` makes of the claims of each kind."""
    cases = [
        pytest.param(kind, token, id=f"{kind.name}, {name}")
        for kind in KINDS
        for name, token in make(kind.claims).items()
    ]
    assert len(cases) > 10
    return pytest.mark.parametrize(("kind", "token"), cases)


def hmac_check(kind: Kind, **options: Any) -> Check:
    return kind.check({None: SECRET}, "HS256", **options)


@pytest.fixture(autouse=True)
def no_word_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert caplog.records == [], "a token that is logged is a token that is lost"


def refusal(check: Callable[[Any], object], token: str | None) -> str:
    """Have a token refused; return the sentence. Any other exception fails the test."""
    with pytest.raises(Refused) as refused:
        check(token)
    assert refused.value.args in {(NEEDED,), (BAD,), (OVER,), (EARLY,)}, "nothing of the token is in the error"
    assert (type(refused.value) is Expired) is (refused.value.args in {(OVER,), (EARLY,)})
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None, "no traceback quotes the token"
    return str(refused.value)


# Who is let in


@of_both_kinds
def test_the_one_they_are_forged_from_is_good(kind: Kind) -> None:
    good = signed(kind.claims)
    assert hmac_check(kind)(good) == kind.meaning
    assert forge(HS, kind.claims, SECRET) != good
    assert hmac_check(kind)(forge(HS, kind.claims, SECRET)) == kind.meaning
    assert kind.check({None: RSA_PUBLIC}, "RS256")(signed(kind.claims, RSA_KEY, "RS256")) == kind.meaning
    assert kind.check({None: public_pem(EC_KEY)}, "ES256")(signed(kind.claims, EC_KEY, "ES256")) == kind.meaning


@of_both_kinds
def test_a_token_may_be_as_long_as_that_and_no_longer(kind: Kind) -> None:
    def of(length: int) -> str:
        token = signed(kind.claims | {"pad": ""})
        while len(token) < length:
            pad = "x" * ((length - len(token)) * 3 // 4 or 1)
            claims = jwt.decode(token, options={"verify_signature": False})
            token = signed(claims | {"pad": claims["pad"] + pad})
        return token

    longest = next(token for length in range(MAX_TOKEN - 2, 0, -1) if len(token := of(length)) <= MAX_TOKEN)
    assert len(longest) >= MAX_TOKEN - 4
    assert hmac_check(kind)(longest) == kind.meaning
    assert refusal(hmac_check(kind), of(MAX_TOKEN + 1)) == BAD


@of_both_kinds
def test_a_token_may_last_for_ever_where_that_is_allowed(kind: Kind) -> None:
    check = hmac_check(kind, require_exp=False)
    claims = {name: value for name, value in kind.claims.items() if name != "exp"}
    assert check(signed(claims)) in (Identity("ann", None), Grant(None))
    assert refusal(check, signed(claims | {"exp": 1})) == OVER, "an expiry that is there counts"


@of_both_kinds
@pytest.mark.parametrize("audience", ["stentor", ["other", "stentor"]])
def test_audience_and_issuer_are_asked_for_when_configured(kind: Kind, audience: Any) -> None:
    check = hmac_check(kind, audience="stentor", issuer="us")
    assert check(signed(kind.claims | {"aud": audience, "iss": "us"})) == kind.meaning
    assert hmac_check(kind)(signed(kind.claims | {"aud": audience, "iss": "us"})) == kind.meaning, "and only then"


@of_both_kinds
def test_the_clock_of_whoever_signs_may_be_a_little_ahead(kind: Kind) -> None:
    now = time.time()
    assert hmac_check(kind)(signed(kind.claims | {"iat": now + 2, "nbf": now + 2})) == kind.meaning


def test_a_connection_lasts_as_long_as_its_token_says() -> None:
    check = hmac_check(CONNECTION)
    for claims, expires in (
        ({}, FUTURE),
        ({"expire_at": FUTURE + 7}, FUTURE + 7),
        ({"expire_at": FUTURE - 7.5}, FUTURE - 7.5),
        ({"expire_at": 0}, None),
        ({"expire_at": None}, FUTURE),
    ):
        assert check(signed(CONNECTION.claims | claims)) == Identity("ann", expires)


def test_all_that_a_connection_token_may_say() -> None:
    claims = CONNECTION.claims | {
        "info": {"name": "Ann"},
        "channels": ["news"],
        "subs": {"chat": {"data": {"hello": 1}}},
        "meta": {"plan": "free"},
        "jti": "1",
        "a claim that nobody knows": [1],
    }
    identity = JsonWebTokens({None: SECRET}, "HS256").check(signed(claims))
    subs = {"chat": ServerSubscription(data=b'{"hello":1}')}
    assert identity == Identity("ann", FUTURE, b'{"name":"Ann"}', {"plan": "free"}, ("news",), subs)


def test_names_of_channels_are_as_long_as_the_server_takes_them() -> None:
    token = signed(CONNECTION.claims | {"channels": ["a" * 200]})
    assert refusal(hmac_check(CONNECTION), token) == BAD
    assert hmac_check(CONNECTION, max_channel_length=200)(token) == Identity("ann", FUTURE, channels=("a" * 200,))


# Who is not


@each(lambda claims: forged_hmac(claims, MAX_TOKEN))
def test_a_forged_token_is_refused(kind: Kind, token: str) -> None:
    assert refusal(hmac_check(kind), token) == BAD


@each(forged_rsa)
def test_a_public_key_is_no_secret(kind: Kind, token: str) -> None:
    assert refusal(kind.check({None: RSA_PUBLIC}, "RS256"), token) == BAD


@each(forged_ec)
def test_a_curve_takes_no_tricks(kind: Kind, token: str) -> None:
    assert refusal(kind.check({None: public_pem(EC_KEY)}, "ES256"), token) == BAD


@each(expired_hmac)
def test_what_was_good_once_has_expired(kind: Kind, token: str) -> None:
    assert refusal(hmac_check(kind), token) == OVER


@each(early_hmac)
def test_what_will_be_good_is_not_called_bad(kind: Kind, token: str) -> None:
    assert refusal(hmac_check(kind), token) == EARLY


@of_both_kinds
@pytest.mark.parametrize(
    "claims",
    [{"iss": "them"}, {"aud": "others"}, {"b64info": 1}, {"sub": 7}, {"exp": "1"}],
    ids=str,
)
def test_only_what_is_good_otherwise_is_called_expired(kind: Kind, claims: dict[str, Any]) -> None:
    check = hmac_check(kind, audience="stentor", issuer="us")
    good = kind.claims | {"aud": "stentor", "iss": "us"}
    for time_, said in (({"exp": 1}, OVER), ({"nbf": FUTURE}, EARLY), ({"iat": FUTURE}, EARLY)):
        assert refusal(check, signed(good | time_)) == said
        assert refusal(check, forge(HS, good | time_ | claims, SECRET)) == BAD
        assert refusal(check, signed(good | time_, SECRET[::-1])) == BAD


@of_both_kinds
@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": "stentor"},
        {"iss": "us"},
        {"aud": "others", "iss": "us"},
        {"aud": ["others"], "iss": "us"},
        {"aud": [], "iss": "us"},
        {"aud": None, "iss": "us"},
        {"aud": "stentor2", "iss": "us"},
        {"aud": "STENTOR", "iss": "us"},
        {"aud": {"stentor": 1}, "iss": "us"},
        {"aud": "stentor", "iss": "them"},
        {"aud": "stentor", "iss": ["us"]},
        {"aud": "stentor", "iss": None},
    ],
    ids=str,
)
def test_a_token_for_or_of_others_is_refused(kind: Kind, claims: dict[str, Any]) -> None:
    check = hmac_check(kind, audience="stentor", issuer="us")
    assert refusal(check, forge(HS, kind.claims | claims, SECRET)) == BAD


def test_one_kind_of_token_is_not_the_other() -> None:
    assert refusal(hmac_check(CONNECTION), signed(SUBSCRIPTION.claims)) == BAD
    assert refusal(hmac_check(SUBSCRIPTION), signed(CONNECTION.claims)) == BAD
    assert refusal(hmac_check(CONNECTION), forge(HS, CONNECTION.claims | {"channel": None}, SECRET)) == BAD
    lists = CONNECTION.claims | {"channels": ["news"], "subs": {"news": {}}}
    assert refusal(hmac_check(SUBSCRIPTION), signed(lists)) == BAD
    assert refusal(hmac_check(CONNECTION), signed(SUBSCRIPTION.claims | {"exp": 1})) == BAD, "nor an expired one"


@pytest.mark.parametrize(
    "claims",
    [
        {"channel": "new"},
        {"channel": "news2"},
        {"channel": "NEWS"},
        {"channel": "news "},
        {"channel": "n\u0435ws"},  # a Cyrillic e
        {"channel": ""},
        {"channel": None},
        {"channel": ["news"]},
        {"channel": {"news": 1}},
        {"channel": 0},
        {"channel": "*"},
        {"sub": "bob"},
        {"sub": ""},
        {"sub": "Ann"},
        {"sub": "ann\x00"},
        {"sub": None},
        {"sub": 0},
        {"sub": ["ann"]},
    ],
    ids=ascii,
)
@pytest.mark.parametrize("end", [FUTURE, 1])
def test_a_subscription_token_is_for_one_user_and_one_channel(claims: dict[str, Any], end: int) -> None:
    token = forge(HS, SUBSCRIPTION.claims | {"exp": end} | claims, SECRET)
    assert refusal(hmac_check(SUBSCRIPTION), token) == BAD


def test_a_subscription_token_without_a_user_is_for_nobody_in_particular() -> None:
    tokens = SignedSubscriptionTokens({None: SECRET}, "HS256")
    for claims in ({}, {"sub": ""}):
        token = signed({"channel": "news", "exp": FUTURE} | claims)
        assert tokens.check(token, channel="news", user="") == Grant(FUTURE)
        assert refusal(lambda token: tokens.check(token, channel="news", user="ann"), token) == BAD
    assert refusal(lambda token: tokens.check(token, channel="news", user=""), signed(SUBSCRIPTION.claims)) == BAD


def test_no_token_is_another_sentence() -> None:
    assert refusal(JsonWebTokens({None: SECRET}, "HS256").check, None) == NEEDED
    assert refusal(StaticTokens(["a"]).check, None) == NEEDED


# Mutations

ALPHABET: Final = string.ascii_letters + string.digits + "-_"
OTHERS: Final = "=+/. \n\x00é%"


def survivors(check: Check, mutations: Iterator[str]) -> list[str]:
    """Return the mutations of a good token that are not simply refused."""
    found = []
    for token in mutations:
        try:
            check(token)
        except Refused as refused:
            if type(refused) is Refused:
                continue
        found.append(token)
    return found


def neighbours(good: str) -> Iterator[str]:
    """Yield what is one character away from a token: changed, put in, taken out, or two that change places."""
    for place in range(len(good) + 1):
        before, after = good[:place], good[place:]
        for other in (*OTHERS, "A", "_"):
            yield before + other + after
        if after:
            yield before + after[1:]
            # The last character of a part holds bits that mean nothing: each of them is tried there.
            near_end = len(after) <= 2 or "." in after[:3]
            others = ALPHABET if near_end else (after[0].swapcase(), ALPHABET[ALPHABET.find(after[0]) ^ 1], *OTHERS)
            yield from (before + other + after[1:] for other in others if other != after[0])
            if after[1:] and after[0] != after[1]:
                yield before + after[1] + after[0] + after[2:]


@of_both_kinds
def test_what_is_one_character_away_is_refused(kind: Kind) -> None:
    good = signed(kind.claims)
    mutations = list(neighbours(good))
    assert len(mutations) > 2000
    assert good not in mutations
    assert survivors(hmac_check(kind), iter(mutations)) == []


def test_the_check_finds_who_takes_two_spellings_for_one_token() -> None:
    good = signed(CONNECTION.claims)

    def lax(token: str) -> object:
        try:
            return jwt.decode(token, SECRET, algorithms=["HS256"])
        except (jwt.PyJWTError, UnicodeError):
            raise Refused(BAD) from None

    assert good + "=" in survivors(lax, neighbours(good))

    def laxer(token: str) -> object:
        head, _, signature = token.encode(errors="replace").rpartition(b".")
        expected = hmac.digest(SECRET.encode(), head, "sha256")
        try:
            given = base64.urlsafe_b64decode(signature + b"==")
        except ValueError:
            raise Refused(BAD) from None
        if given != expected:
            raise Refused(BAD)
        return given

    assert len(survivors(laxer, neighbours(good))) > 3, "the bits that mean nothing, and what is no base64 at all"


@of_both_kinds
@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_good_token_with_other_bytes_is_refused(kind: Kind, algorithm: str, data: st.DataObject) -> None:
    good, check = GOOD[kind.name, algorithm]
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    part = st.text(ALPHABET + OTHERS, max_size=40) | st.sampled_from([*good.split("."), good, good[start:end] * 2])
    token = good[:start] + data.draw(part) + good[end:]
    if token != good:
        assert refusal(check, token) == BAD


GOOD: Final = {
    (kind.name, algorithm): (signed(kind.claims, key, algorithm), kind.check({None: public}, algorithm))
    for kind in KINDS
    for algorithm, key, public in (("HS256", SECRET, SECRET), ("ES256", EC_KEY, public_pem(EC_KEY)))
}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(token=st.text(max_size=200) | st.from_regex(r"[\w.=-]{0,80}\.[\w.=-]{0,80}\.[\w.=-]{0,80}", fullmatch=True))
def test_nonsense_is_refused_and_nothing_else(token: str) -> None:
    for kind in KINDS:
        assert refusal(hmac_check(kind), token) == BAD
    assert refusal(StaticTokens([TOKEN]).check, token) == BAD


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
NAMES: Final = (
    "sub", "exp", "nbf", "iat", "aud", "iss", "jti", "channel", "expire_at", "info", "b64info", "data", "b64data",
    "meta", "channels", "subs", "override",
)  # fmt: skip


@of_both_kinds
@settings(max_examples=150, deadline=None, derandomize=True)
@given(claims=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_whatever_was_signed_is_either_good_or_refused(kind: Kind, claims: dict[str, Any]) -> None:
    check, token = hmac_check(kind), forge(HS, kind.claims | claims, SECRET)
    meaning: object = None
    with suppress(Refused):
        meaning = check(token)
    if meaning is None:
        refusal(check, token)
    else:
        assert isinstance(meaning, type(kind.meaning))


# Static tokens

TOKEN: Final = "correct-horse-battery-staple"


@pytest.mark.parametrize("token", [TOKEN, "another", "é"])
def test_each_of_the_list_is_as_good_as_the_others(token: str) -> None:
    assert StaticTokens([TOKEN, "another", "é"]).check(token) is ANONYMOUS


@pytest.mark.parametrize(
    "token",
    [
        "",
        TOKEN[:-1],
        TOKEN[:1],
        TOKEN + "x",
        TOKEN + "\x00",
        TOKEN + " ",
        TOKEN.upper(),
        TOKEN * 2,
        "correct-horse-battery-stapl\u0435",  # a Cyrillic e
        "é",
        "\u0065\u0301",
        "\udcff",  # a byte that was not UTF-8, as HTTP headers may bring it
        "\ud800",  # noqa: PT014 - another surrogate
        "\x00",
        "a" * 8192,
        "a" * 65536,
        "*",
        "None",
    ],
    ids=ascii,
)
def test_nothing_that_comes_close_is_good(token: str) -> None:
    assert refusal(StaticTokens([TOKEN, "another"]).check, token) == BAD


def test_all_of_the_list_are_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = hmac.compare_digest

    def note(given: bytes, known: bytes) -> bool:
        compared.append((type(given), known))
        return compare(given, known)

    monkeypatch.setattr("server.edge.credentials.hmac.compare_digest", note)
    StaticTokens(["a", "b", "c"]).check("a")
    assert compared == [(bytes, b"a"), (bytes, b"b"), (bytes, b"c")]


def test_an_empty_list_lets_nobody_in() -> None:
    assert refusal(StaticTokens([]).check, "") == BAD


# Without keys


@pytest.mark.parametrize("token", [None, "", "anything"])
def test_without_credentials_everybody_is_nobody(token: str | None) -> None:
    assert NoCredentials().check(token) is ANONYMOUS
    assert Identity("", None) == ANONYMOUS


@pytest.mark.parametrize("token", ["", "anything", signed(SUBSCRIPTION.claims)])
def test_without_keys_no_subscription_token_is_good(token: str) -> None:
    assert refusal(lambda token: NoSubscriptionTokens().check(token, channel="news", user="ann"), token) == BAD


# Revoked tokens


@of_both_kinds
def test_a_revoked_token_is_as_bad_as_a_forged_one_also_when_it_is_over(kind: Kind) -> None:
    asked: list[Token] = []

    def is_revoked(token: Token) -> bool:
        asked.append(token)
        return token.uid == "bad"

    check = hmac_check(kind, is_revoked=is_revoked)
    assert check(signed(kind.claims | {"jti": "good", "iat": 5})) == kind.meaning
    assert asked == [Token("good", "ann", 5.0, "news" if kind is SUBSCRIPTION else "")]
    assert refusal(check, signed(kind.claims | {"jti": "bad"})) == BAD
    assert refusal(check, signed(kind.claims | {"jti": "bad", "exp": 1})) == BAD
    assert refusal(check, signed(kind.claims | {"jti": "good", "exp": 1})) == OVER
    asked.clear()
    assert refusal(check, signed(kind.claims | {"jti": "good"}, "x" * 40)) == BAD
    assert asked == [], "whose name it was is not known"
