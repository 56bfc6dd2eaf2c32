"""Signatures: the keys of ours, the one algorithm, and what of a token nobody has to understand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jwt
import pytest

from server.edge.signatures import BadToken, Signatures, signing_keys
from tests.forgeries import EC_KEY, FUTURE, OTHER_RSA_KEY, RSA_JWK, RSA_KEY, RSA_PUBLIC, SECRET, forged_rsa, signed
from tests.keyring import public_pem

CLAIMS: Final = {"sub": "ann", "exp": FUTURE}


def is_bad(signatures: Signatures, token: str) -> bool:
    try:
        signatures.verify(token)
    except BadToken as bad:
        return bad.args == ()  # nothing of the token is in the error
    return False


def key_set(file: Path, *keys: dict[str, Any]) -> dict[str | None, Any]:
    file.write_text(json.dumps({"keys": keys}))
    return signing_keys(jwks_file=file)


def test_the_claims_come_as_they_were_signed() -> None:
    claims = CLAIMS | {"iat": 1, "x": {"y": [1, None]}}
    assert Signatures({None: SECRET}, "HS256").verify(signed(claims)) == claims


def test_whether_a_token_is_over_is_for_others_to_say() -> None:
    assert Signatures({None: SECRET}, "HS256").verify(signed({"exp": 1})) == {"exp": 1}


@pytest.mark.parametrize(
    ("algorithm", "private", "public"),
    [
        ("HS256", SECRET, SECRET),
        ("HS384", SECRET * 2, SECRET * 2),
        ("HS512", SECRET * 2, SECRET * 2),
        ("RS256", RSA_KEY, RSA_PUBLIC),
        ("RS384", RSA_KEY, RSA_PUBLIC),
        ("RS512", RSA_KEY, RSA_PUBLIC),
        ("ES256", EC_KEY, public_pem(EC_KEY)),
    ],
    ids=lambda value: value if str(value)[:2] in ("HS", "RS", "ES") else "",
)
def test_every_family_of_algorithms_works(algorithm: str, private: Any, public: str) -> None:
    token = jwt.encode(CLAIMS, private, algorithm)
    assert Signatures({None: public}, algorithm).verify(token) == CLAIMS
    other = "HS384" if algorithm == "HS256" else "HS256"
    assert is_bad(Signatures({None: SECRET}, other), token)


def test_its_time_is_for_others_to_look_at() -> None:
    signatures = Signatures({None: SECRET}, "HS256")
    for name, date in (("iat", FUTURE), ("nbf", FUTURE), ("exp", 1)):
        assert not is_bad(signatures, signed(CLAIMS | {name: date}))


def test_the_key_id_picks_among_our_own_keys() -> None:
    signatures = Signatures({"new": SECRET, "old": SECRET[::-1]}, "HS256")
    assert signatures.verify(signed(CLAIMS, kid="new")) == CLAIMS
    assert is_bad(signatures, signed(CLAIMS, kid="old"))
    assert is_bad(signatures, signed(CLAIMS, kid="none of ours"))
    assert is_bad(signatures, signed(CLAIMS)), "no key is the key of tokens that name none"


def test_a_lone_key_goes_with_any_id() -> None:
    assert Signatures({None: SECRET}, "HS256").verify(signed(CLAIMS, kid="whatever")) == CLAIMS


def test_a_key_of_another_kind_is_no_accident() -> None:
    """A key set may hold keys for other purposes; naming one of them is not our fault."""
    signatures = Signatures({"rsa": RSA_KEY.public_key(), "ec": EC_KEY.public_key()}, "ES256")
    assert signatures.verify(signed(CLAIMS, EC_KEY, "ES256", kid="ec")) == CLAIMS
    assert is_bad(signatures, signed(CLAIMS, EC_KEY, "ES256", kid="rsa"))
    assert is_bad(signatures, signed(CLAIMS, RSA_KEY, "RS256", kid="rsa"))


# Keys


def test_a_secret_is_the_key_of_all_tokens() -> None:
    assert signing_keys(secret=SECRET) == {None: SECRET}


def test_a_public_key_is_pem_or_the_path_of_it(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(RSA_PUBLIC)
    assert signing_keys(public_key=RSA_PUBLIC) == signing_keys(public_key=str(file)) == {None: RSA_PUBLIC}


def test_of_a_key_set_each_key_has_its_id(tmp_path: Path) -> None:
    other = jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_RSA_KEY.public_key(), as_dict=True)
    keys = key_set(tmp_path / "keys.json", RSA_JWK | {"kid": "a"}, other | {"kid": "b"})
    assert set(keys) == {"a", "b"}, "with more than one, a token has to say which"
    signatures = Signatures(keys, "RS256")
    assert signatures.verify(signed(CLAIMS, OTHER_RSA_KEY, "RS256", kid="b")) == CLAIMS
    assert is_bad(signatures, signed(CLAIMS, OTHER_RSA_KEY, "RS256", kid="a"))
    assert is_bad(signatures, signed(CLAIMS, RSA_KEY, "RS256"))


def test_a_single_key_needs_no_id(tmp_path: Path) -> None:
    signatures = Signatures(key_set(tmp_path / "keys.json", RSA_JWK), "RS256")
    assert signatures.verify(signed(CLAIMS, RSA_KEY, "RS256")) == CLAIMS


@pytest.mark.parametrize("trick", ["HMAC with the JWK", "HMAC with the public key"])
def test_a_key_from_a_set_is_no_secret_either(trick: str, tmp_path: Path) -> None:
    signatures = Signatures(key_set(tmp_path / "keys.json", RSA_JWK | {"kid": "a"}), "RS256")
    assert signatures.verify(signed(CLAIMS, RSA_KEY, "RS256", kid="a")) == CLAIMS
    assert is_bad(signatures, forged_rsa(CLAIMS)[trick])
