"""Tokens: the good ones, and everything that has ever been tried instead of one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from server.edge.credentials import (
    ANONYMOUS,
    MAX_TOKEN,
    Identity,
    JsonWebTokens,
    NoCredentials,
    Refused,
    StaticTokens,
    signing_keys,
)

NEEDED: Final = "A token is needed."
BAD: Final = "The token is not valid."

SECRET: Final = "s3cret-that-has-more-than-thirty-two-bytes"
FUTURE: Final = 4_000_000_000  # the year 2096
CLAIMS: Final = {"sub": "ann", "exp": FUTURE}


def pem(key: Any) -> str:
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return str(public.decode())


# Made once: making an RSA key takes its time.
RSA_KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())
RSA_PUBLIC: Final = pem(RSA_KEY)
RSA_JWK: Final = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)


def b64(data: bytes | str | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data)
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: Any, claims: Any, key: bytes = SECRET.encode()) -> str:
    """Sign with HMAC-SHA256 whatever the header says: what a careful library would refuse to write."""
    signed = f"{b64(header)}.{b64(claims)}"
    return f"{signed}.{b64(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def signed(claims: dict[str, Any], **header: Any) -> str:
    """Sign claims properly with the server's own key."""
    return jwt.encode(claims, SECRET, "HS256", headers=header or None)


def hmac_tokens(**options: Any) -> JsonWebTokens:
    return JsonWebTokens({None: SECRET}, "HS256", **options)


def rsa_tokens(**options: Any) -> JsonWebTokens:
    return JsonWebTokens({None: RSA_PUBLIC}, "RS256", **options)


@pytest.fixture(autouse=True)
def no_word_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert caplog.records == [], "a token that is logged is a token that is lost"


def refusal(check: Callable[[str | None], Identity], token: str | None) -> str:
    with pytest.raises(Refused) as refused:
        check(token)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None, "no traceback quotes the token"
    return str(refused.value)


# JSON Web Tokens: who is let in


@pytest.mark.parametrize(
    ("claims", "identity"),
    [
        ({"sub": "ann", "exp": FUTURE}, Identity("ann", FUTURE)),
        ({"exp": FUTURE}, Identity("", FUTURE)),
        ({"sub": "", "exp": FUTURE}, Identity("", FUTURE)),
        ({"sub": "é😀", "exp": FUTURE}, Identity("é😀", FUTURE)),
        ({"sub": "ann", "exp": FUTURE, "aud": "anyone"}, Identity("ann", FUTURE)),  # no audience is asked for
        ({"sub": "ann", "exp": FUTURE, "nbf": 1, "iat": 1}, Identity("ann", FUTURE)),
        # RFC 7519, section 2: a date is a JSON number, and need not be whole.
        ({"sub": "ann", "exp": FUTURE + 0.5}, Identity("ann", FUTURE + 0.5)),
    ],
)
def test_a_good_token_tells_who_and_until_when(claims: dict[str, Any], identity: Identity) -> None:
    assert hmac_tokens().check(signed(claims)) == identity


@pytest.mark.parametrize(
    ("algorithm", "private", "public"),
    [
        ("HS512", SECRET * 2, SECRET * 2),
        ("RS256", RSA_KEY, RSA_PUBLIC),
        ("ES256", EC_KEY, pem(EC_KEY)),
    ],
    ids=["HS512", "RS256", "ES256"],
)
def test_every_family_of_algorithms_works(algorithm: str, private: Any, public: str) -> None:
    tokens = JsonWebTokens({None: public}, algorithm)
    assert tokens.check(jwt.encode(CLAIMS, private, algorithm)) == Identity("ann", FUTURE)


def test_a_token_may_last_for_ever_where_that_is_allowed() -> None:
    tokens = hmac_tokens(require_exp=False)
    assert tokens.check(signed({"sub": "ann"})) == Identity("ann", None)
    assert refusal(tokens.check, signed({"sub": "ann", "exp": 1})) == BAD, "an expiry that is there counts"


@pytest.mark.parametrize("audience", ["stentor", ["other", "stentor"]])
def test_audience_and_issuer_are_asked_for_when_configured(audience: Any) -> None:
    tokens = hmac_tokens(audience="stentor", issuer="us")
    assert tokens.check(signed(CLAIMS | {"aud": audience, "iss": "us"})) == Identity("ann", FUTURE)


def test_the_key_id_picks_among_our_own_keys() -> None:
    tokens = JsonWebTokens({"new": SECRET, "old": SECRET[::-1]}, "HS256")
    assert tokens.check(signed(CLAIMS, kid="new")) == Identity("ann", FUTURE)
    assert refusal(tokens.check, signed(CLAIMS, kid="old")) == BAD
    assert refusal(tokens.check, signed(CLAIMS, kid="none of ours")) == BAD
    assert refusal(tokens.check, signed(CLAIMS)) == BAD, "no key is the key of tokens that name none"


# JSON Web Tokens: who is not

HS: Final = {"alg": "HS256", "typ": "JWT"}
GOOD: Final = signed(CLAIMS)

FORGED_HMAC: Final[dict[str, str]] = {
    **{f"alg {alg}": forge({"alg": alg}, CLAIMS) for alg in ("none", "None", "NONE", "nOnE", "", "HS256 ")},
    **{f"alg {alg}, unsigned": f"{b64({'alg': alg})}.{b64(CLAIMS)}." for alg in ("none", "None", "nOnE", "HS256")},
    "alg missing": forge({"typ": "JWT"}, CLAIMS),
    "alg null": forge({"alg": None}, CLAIMS),
    "alg a list": forge({"alg": ["HS256", "none"]}, CLAIMS),
    "alg of the same family": jwt.encode(CLAIMS, SECRET * 2, "HS512"),
    "wrong key": jwt.encode(CLAIMS, SECRET[::-1], "HS256"),
    "empty key": forge(HS, CLAIMS, b""),
    "signature cut": GOOD[:-1],
    "signature missing": GOOD.rpartition(".")[0] + ".",
    "signature of another": GOOD.rpartition(".")[0] + "." + signed({"sub": "bob"}).rpartition(".")[2],
    "claims changed": ".".join([GOOD.split(".")[0], b64(CLAIMS | {"sub": "root"}), GOOD.split(".")[2]]),
    "exp missing": signed({"sub": "ann"}),
    "exp null": signed({"sub": "ann", "exp": None}),
    "exp past": signed({"exp": int(time.time()) - 1}),
    "exp past, a float": signed({"exp": time.time() - 1.5}),
    "exp negative": signed({"exp": -1}),
    "exp zero": signed({"exp": 0}),
    "exp a string": signed({"exp": str(FUTURE)}),
    "exp words": signed({"exp": "never"}),
    "exp true": signed({"exp": True}),
    "exp a list": signed({"exp": [FUTURE]}),
    "exp an object": signed({"exp": {"$gt": 0}}),
    "exp NaN": forge(HS, '{"exp": NaN}'),
    "exp infinite": forge(HS, '{"exp": Infinity}'),
    "exp 1e400": forge(HS, '{"exp": 1e400}'),
    "exp of 400 digits": forge(HS, '{"exp": 1' + "0" * 400 + "}"),
    "exp of 5000 digits": forge(HS, '{"exp": 1' + "0" * 5000 + "}"),
    "exp twice, the last one past": forge(HS, f'{{"exp": {FUTURE}, "exp": 1}}'),
    "nbf in the future": signed(CLAIMS | {"nbf": FUTURE - 1}),
    "nbf words": signed(CLAIMS | {"nbf": "now"}),
    "nbf infinite": forge(HS, f'{{"exp": {FUTURE}, "nbf": Infinity}}'),
    "iat in the future": signed(CLAIMS | {"iat": FUTURE - 1}),
    "sub a number": forge(HS, {"sub": 7, "exp": FUTURE}),
    "sub an object": forge(HS, {"sub": {"name": "root"}, "exp": FUTURE}),
    "kid a path": forge(HS | {"kid": "../../../../dev/null"}, CLAIMS, b""),
    "kid SQL": forge(HS | {"kid": "x' UNION SELECT 'key'; --"}, CLAIMS, b"key"),
    "kid a list": forge(HS | {"kid": ["a"]}, CLAIMS),
    "kid an object": forge(HS | {"kid": {"a": 1}}, CLAIMS),
    "kid a number": forge(HS | {"kid": 0}, CLAIMS),
    "kid a shell": forge(HS | {"kid": "| touch /tmp/owned"}, CLAIMS, b""),
    "crit unknown": forge(HS | {"crit": ["b64"], "b64": False}, CLAIMS),
    "crit exotic": forge(HS | {"crit": ["http://example.com/UNDEFINED"], "http://example.com/UNDEFINED": 1}, CLAIMS),
    "jku": forge(HS | {"jku": "https://evil.example/jwks.json"}, CLAIMS, b"theirs"),
    "x5u": forge(HS | {"x5u": "https://evil.example/cert.pem"}, CLAIMS, b"theirs"),
    "jwk with a key of theirs": forge(HS | {"jwk": {"kty": "oct", "k": b64("theirs")}}, CLAIMS, b"theirs"),
    "header not JSON": forge("{", CLAIMS),
    "header a list": forge("[]", CLAIMS),
    "header a string": forge('"HS256"', CLAIMS),
    "claims not JSON": forge(HS, "{"),
    "claims a list": forge(HS, "[]"),
    "claims null": forge(HS, "null"),
    "claims deep": forge(HS, "[" * 3000 + "]" * 3000),
    "claims not UTF-8": f"{b64(HS)}.{b64(b'{}' + bytes([255]))}." + b64("x"),
    "empty": "",
    "a dot": ".",
    "two dots": "..",
    "three dots": GOOD + ".",
    "dots missing": GOOD.replace(".", ""),
    "one dot missing": GOOD.replace(".", "", 1),
    "words": "let me in",
    "a space in front": " " + GOOD,
    "a space behind": GOOD + " ",
    "a line break": GOOD + "\n",
    "NUL": "\x00",
    "NUL inside": GOOD[:20] + "\x00" + GOOD[20:],
    "non-ASCII": "é" * 20,
    "non-ASCII inside": GOOD[:-3] + "ééé",
    "a lone surrogate": GOOD + "\ud800",
    "64 KiB": "a" * 65536,
    "64 KiB of claims": signed(CLAIMS | {"pad": "x" * 65536}),
    "just too long": signed(CLAIMS | {"pad": "x" * MAX_TOKEN}),
    "Bearer twice": "Bearer " + GOOD,
}  # fmt: skip


@pytest.mark.parametrize("token", FORGED_HMAC.values(), ids=FORGED_HMAC)
def test_a_forged_token_is_refused(token: str) -> None:
    assert refusal(hmac_tokens().check, token) == BAD


def test_the_one_they_are_forged_from_is_good() -> None:
    assert hmac_tokens().check(GOOD) == Identity("ann", FUTURE)
    assert forge(HS, CLAIMS) != GOOD
    assert hmac_tokens().check(forge(HS, CLAIMS)) == Identity("ann", FUTURE)
    assert len(FORGED_HMAC) > 60


FORGED_RSA: Final[dict[str, str]] = {
    "HMAC with the public key": forge({"alg": "HS256"}, CLAIMS, RSA_PUBLIC.encode()),
    "HMAC with the public key, stripped": forge({"alg": "HS256"}, CLAIMS, RSA_PUBLIC.strip().encode()),
    "HMAC with the public key as DER": forge(
        {"alg": "HS256"},
        CLAIMS,
        RSA_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    ),
    "HMAC with the JWK": forge({"alg": "HS256"}, CLAIMS, json.dumps(RSA_JWK).encode()),
    "HMAC with the modulus": forge({"alg": "HS256"}, CLAIMS, RSA_JWK["n"].encode()),
    "HMAC that says RS256": forge({"alg": "RS256"}, CLAIMS, RSA_PUBLIC.encode()),
    "another RSA key": jwt.encode(CLAIMS, OTHER_KEY, "RS256"),
    "another RSA key, in the header": jwt.encode(
        CLAIMS,
        OTHER_KEY,
        "RS256",
        headers={"jwk": jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True)},
    ),
    "another RSA key, by address": jwt.encode(CLAIMS, OTHER_KEY, "RS256", headers={"jku": "http://127.0.0.1:9/"}),
    "another RSA key, by certificate": jwt.encode(CLAIMS, OTHER_KEY, "RS256", headers={"x5u": "http://127.0.0.1:9/"}),
    "our key, another algorithm": jwt.encode(CLAIMS, RSA_KEY, "RS512"),
    "our key, PSS": jwt.encode(CLAIMS, RSA_KEY, "PS256"),
    "an EC key": jwt.encode(CLAIMS, EC_KEY, "ES256"),
    "none": f"{b64({'alg': 'none'})}.{b64(CLAIMS)}.",
    "RS256, unsigned": f"{b64({'alg': 'RS256'})}.{b64(CLAIMS)}.",
}


@pytest.mark.parametrize("token", FORGED_RSA.values(), ids=FORGED_RSA)
def test_a_public_key_is_no_secret(token: str) -> None:
    assert refusal(rsa_tokens().check, token) == BAD


@pytest.mark.parametrize("token", [FORGED_RSA["HMAC with the JWK"], FORGED_RSA["HMAC with the public key"]])
def test_nor_is_it_one_when_it_came_from_a_key_set(token: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [RSA_JWK | {"kid": "a"}]}))
    tokens = JsonWebTokens(signing_keys(jwks_file=file), "RS256")
    assert tokens.check(jwt.encode(CLAIMS, RSA_KEY, "RS256", headers={"kid": "a"})) == Identity("ann", FUTURE)
    assert refusal(tokens.check, token) == BAD


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
def test_a_token_for_or_of_others_is_refused(claims: dict[str, Any]) -> None:
    tokens = hmac_tokens(audience="stentor", issuer="us")
    assert refusal(tokens.check, forge(HS, CLAIMS | claims)) == BAD


def test_no_token_is_another_sentence() -> None:
    assert refusal(hmac_tokens().check, None) == NEEDED
    assert refusal(StaticTokens(["a"]).check, None) == NEEDED


# Keys


def test_a_secret_is_the_key_of_all_tokens() -> None:
    assert signing_keys(secret=SECRET) == {None: SECRET}


def test_a_public_key_is_pem_or_the_path_of_it(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(RSA_PUBLIC)
    assert signing_keys(public_key=RSA_PUBLIC) == signing_keys(public_key=str(file)) == {None: RSA_PUBLIC}


def test_of_a_key_set_each_key_has_its_id(tmp_path: Path) -> None:
    other = jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True)
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [RSA_JWK | {"kid": "a"}, other | {"kid": "b"}]}))
    keys = signing_keys(jwks_file=file)
    assert set(keys) == {"a", "b"}, "with more than one, a token has to say which"
    tokens = JsonWebTokens(keys, "RS256")
    assert tokens.check(jwt.encode(CLAIMS, OTHER_KEY, "RS256", headers={"kid": "b"})) == Identity("ann", FUTURE)
    assert refusal(tokens.check, jwt.encode(CLAIMS, OTHER_KEY, "RS256", headers={"kid": "a"})) == BAD
    assert refusal(tokens.check, jwt.encode(CLAIMS, RSA_KEY, "RS256")) == BAD


def test_a_single_key_needs_no_id(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [RSA_JWK]}))
    tokens = JsonWebTokens(signing_keys(jwks_file=file), "RS256")
    assert tokens.check(jwt.encode(CLAIMS, RSA_KEY, "RS256")) == Identity("ann", FUTURE)


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


@pytest.mark.parametrize("token", [None, "", "anything"])
def test_without_credentials_everybody_is_nobody(token: str | None) -> None:
    assert NoCredentials().check(token) is ANONYMOUS
    assert Identity("", None) == ANONYMOUS
