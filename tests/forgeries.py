"""All that has ever been tried instead of a good token, made for any claims."""

from __future__ import annotations

import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.keyring import b64url, ec_key, forge, public_pem, rsa_key

SECRET: Final = "s3cret-that-has-more-than-thirty-two-bytes"
FUTURE: Final = 4_000_000_000  # the year 2096
HS: Final = {"alg": "HS256", "typ": "JWT"}

# Made once: making an RSA key takes its time.
RSA_KEY: Final = rsa_key()
OTHER_RSA_KEY: Final = rsa_key()
EC_KEY: Final = ec_key()
OTHER_EC_KEY: Final = ec_key()
RSA_PUBLIC: Final = public_pem(RSA_KEY)
RSA_JWK: Final = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    """Sign claims properly, by default with the server's own key."""
    return jwt.encode(claims, key, algorithm, headers=header or None)


def forged_hmac(claims: dict[str, Any], longest: int) -> dict[str, str]:
    """For a server that verifies HS256 with SECRET and takes tokens of `longest` characters; `claims` are good ones."""
    good = signed(claims)
    head, body, signature = good.split(".")

    def hs(more: Any, key: str | bytes = SECRET) -> str:
        return forge(HS, claims | more if isinstance(more, dict) else more, key)

    def text(exp: str) -> str:
        return forge(HS, b64_claims(claims, exp), SECRET)

    return {
        **{f"alg {alg}": forge({"alg": alg}, claims, SECRET) for alg in ("none", "None", "NONE", "nOnE", "", "HS256 ")},
        **{f"alg {alg}, unsigned": f"{b64url({'alg': alg})}.{body}." for alg in ("none", "None", "nOnE", "HS256")},
        **{f"alg {alg}, a dummy for a signature": f"{b64url({'alg': alg})}.{body}.AA" for alg in ("none", "HS256")},
        "alg missing": forge({"typ": "JWT"}, claims, SECRET),
        "alg null": forge({"alg": None}, claims, SECRET),
        "alg a list": forge({"alg": ["HS256", "none"]}, claims, SECRET),
        "alg of the same family": signed(claims, SECRET * 2, "HS512"),
        "alg of the same family, the same key": forge({"alg": "HS384"}, claims, SECRET),
        "wrong key": signed(claims, SECRET[::-1]),
        "empty key": forge(HS, claims, b""),
        "signature cut": good[:-1],
        "signature of one character": f"{head}.{body}.A",
        "signature missing": f"{head}.{body}.",
        "signature of another": f"{head}.{body}.{signed(claims | {'x': 1}).rpartition('.')[2]}",
        "signature padded": good + "=",
        "signature of zeros": f"{head}.{body}.{b64url(bytes(32))}",
        "signature in hexadecimal": f"{head}.{body}.{jwt.utils.base64url_decode(signature).hex()}",
        "claims changed": f"{head}.{b64url(claims | {'sub': 'root'})}.{signature}",
        "claims empty": f"{head}..{signature}",
        "header of another": f"{b64url(HS | {'kid': 'a'})}.{body}.{signature}",
        "exp missing": signed({name: value for name, value in claims.items() if name != "exp"}),
        "exp null": hs({"exp": None}),
        "exp a string": hs({"exp": str(FUTURE)}),
        "exp words": hs({"exp": "never"}),
        "exp true": hs({"exp": True}),
        "exp a list": hs({"exp": [FUTURE]}),
        "exp an object": hs({"exp": {"$gt": 0}}),
        "exp NaN": text("NaN"),
        "exp infinite": text("Infinity"),
        "exp infinitely long ago": text("-Infinity"),
        "exp 1e400": text("1e400"),
        "exp of 400 digits": text("1" + "0" * 400),
        "exp of 5000 digits": text("1" + "0" * 5000),
        "expire_at words": hs({"expire_at": "never"}),
        "expire_at a string": hs({"expire_at": str(FUTURE)}),
        "expire_at false": hs({"expire_at": False}),
        "expire_at negative": hs({"expire_at": -1}),
        "expire_at NaN": hs({"expire_at": float("nan")}),
        "nbf words": hs({"nbf": "now"}),
        "nbf a string": hs({"nbf": "1"}),
        "nbf true": hs({"nbf": True}),
        "nbf infinite": hs({"nbf": float("inf")}),
        "iat a string": hs({"iat": "1"}),
        "sub a number": hs({"sub": 7}),
        "sub null": hs({"sub": None}),
        "sub a list": hs({"sub": ["ann"]}),
        "sub an object": hs({"sub": {"name": "root"}}),
        "sub half a surrogate pair": hs({"sub": "\ud800"}),
        "info half a surrogate pair": hs({"info": "\ud800"}),
        "b64info no base64": hs({"b64info": "{}"}),
        "override a list": hs({"subs": {"a": {"override": []}}, "override": []}),
        "kid a path": forge(HS | {"kid": "../../../../dev/null"}, claims, b""),
        "kid SQL": forge(HS | {"kid": "x' UNION SELECT 'key'; --"}, claims, b"key"),
        "kid a list": forge(HS | {"kid": ["a"]}, claims, SECRET),
        "kid an object": forge(HS | {"kid": {"a": 1}}, claims, SECRET),
        "kid a number": forge(HS | {"kid": 0}, claims, SECRET),
        "kid null": forge(HS | {"kid": None}, claims, SECRET),
        "kid a shell": forge(HS | {"kid": "| touch /tmp/owned"}, claims, b""),
        "crit unknown": forge(HS | {"crit": ["b64"], "b64": False}, claims, SECRET),
        "crit exotic": forge(HS | {"crit": ["http://example.com/U"], "http://example.com/U": 1}, claims, SECRET),
        "jku": forge(HS | {"jku": "https://evil.example/jwks.json"}, claims, b"theirs"),
        "x5u": forge(HS | {"x5u": "https://evil.example/cert.pem"}, claims, b"theirs"),
        "x5c": forge(HS | {"x5c": ["theirs"]}, claims, b"theirs"),
        "jwk with a key of theirs": forge(HS | {"jwk": {"kty": "oct", "k": b64url("theirs")}}, claims, b"theirs"),
        "nested": forge(HS | {"cty": "JWT"}, good, SECRET),
        "nested, in JSON": forge(HS | {"cty": "JWT"}, f'"{good}"', SECRET),
        "encrypted, five parts": f"{b64url({'alg': 'dir', 'enc': 'A256GCM'})}..{body}.{body}.{signature}",
        "JSON serialization": f'{{"payload":"{body}","protected":"{head}","signature":"{signature}"}}',
        "header not JSON": forge("{", claims, SECRET),
        "header a list": forge("[]", claims, SECRET),
        "header a string": forge('"HS256"', claims, SECRET),
        "header deep": forge("[" * 3000, claims, SECRET),
        "claims not JSON": hs("{"),
        "claims a list": hs("[]"),
        "claims null": hs("null"),
        "claims deep": hs("[" * 3000 + "]" * 3000),
        "claims not UTF-8": forge(HS, b'{"sub":"\xff"}', SECRET),
        "empty": "",
        "a dot": ".",
        "two dots": "..",
        "three dots": "...",
        "four parts": good + ".",
        "dots missing": good.replace(".", ""),
        "one dot missing": good.replace(".", "", 1),
        "words": "let me in",
        "a space in front": " " + good,
        "a space behind": good + " ",
        "a line break": good + "\n",
        "NUL": "\x00",
        "NUL inside": good[:20] + "\x00" + good[20:],
        "the other base64": good.replace("-", "+").replace("_", "/") + "+",
        "non-ASCII": "é" * 20,
        "non-ASCII inside": good[:-3] + "ééé",
        "digits that are not ASCII": f"{head}.{body}.\u0661\u0662\u0663",
        "a lone surrogate": good + "\ud800",
        "64 KiB": "a" * 65536,
        "64 KiB of claims": hs({"pad": "x" * 65536}),
        "just too long": hs({"pad": "x" * longest}),
        "dots alone, 64 KiB": "." * 65536,
        "Bearer twice": "Bearer " + good,
    }  # fmt: skip


def b64_claims(claims: dict[str, Any], exp: str) -> str:
    """Write claims with an ``exp`` that no encoder would write, last."""
    rest = "".join(f'"{name}":"{value}",' for name, value in claims.items() if name != "exp")
    return f'{{{rest}"exp":{exp}}}'


def expired_hmac(claims: dict[str, Any]) -> dict[str, str]:
    """For a server that verifies HS256 with SECRET: good once."""
    now = time.time()
    return {
        "a second ago": signed(claims | {"exp": int(now) - 1}),
        "a second and a half ago": signed(claims | {"exp": now - 1.5}),
        "at the beginning of time": signed(claims | {"exp": 0}),
        "before the beginning of time": signed(claims | {"exp": -1}),
        "twice, the last one counts": forge(HS, b64_claims(claims, f'{FUTURE},"exp":1'), SECRET),
        "what it allows is over": signed(claims | {"expire_at": int(now) - 1}),
        "though what it allows is not": signed(claims | {"exp": int(now) - 1, "expire_at": FUTURE}),
        "though what it allows never is": signed(claims | {"exp": int(now) - 1, "expire_at": 0}),
    }


def early_hmac(claims: dict[str, Any]) -> dict[str, str]:
    """For a server that verifies HS256 with SECRET: good some day, and not while tests run that were made by now."""
    now = time.time()
    return {
        "good in an hour": signed(claims | {"nbf": int(now) + 3600}),
        "good in an hour and half a second": signed(claims | {"nbf": now + 3600.5}),
        "made in an hour, and good then": signed(claims | {"iat": int(now) + 3600, "nbf": int(now) + 3600}),
        "good long after us": signed(claims | {"nbf": FUTURE - 1}),
        "made in an hour": signed(claims | {"iat": now + 3600}),
        "made long after us": signed(claims | {"iat": FUTURE - 1}),
    }


def forged_rsa(claims: dict[str, Any]) -> dict[str, str]:
    """For a server that verifies RS256 with RSA_PUBLIC."""
    hs = {"alg": "HS256"}
    der = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    theirs = jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_RSA_KEY.public_key(), as_dict=True)
    good = signed(claims, RSA_KEY, "RS256")
    return {
        "HMAC with the public key": forge(hs, claims, RSA_PUBLIC),
        "HMAC with the public key, stripped": forge(hs, claims, RSA_PUBLIC.strip()),
        "HMAC with the public key as DER": forge(hs, claims, der),
        "HMAC with the JWK": forge(hs, claims, jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key())),
        "HMAC with the modulus": forge(hs, claims, RSA_JWK["n"]),
        "HMAC that says RS256": forge({"alg": "RS256"}, claims, RSA_PUBLIC),
        "another RSA key": signed(claims, OTHER_RSA_KEY, "RS256"),
        "another RSA key, in the header": signed(claims, OTHER_RSA_KEY, "RS256", jwk=theirs),
        "another RSA key, by address": signed(claims, OTHER_RSA_KEY, "RS256", jku="http://127.0.0.1:9/"),
        "another RSA key, by certificate": signed(claims, OTHER_RSA_KEY, "RS256", x5u="http://127.0.0.1:9/"),
        "our key, another algorithm": signed(claims, RSA_KEY, "RS512"),
        "our key, PSS": signed(claims, RSA_KEY, "PS256"),
        "an EC key": signed(claims, EC_KEY, "ES256"),
        "a signature of zeros": f"{good.rpartition('.')[0]}.{b64url(bytes(256))}",
        "a signature of ones": f"{good.rpartition('.')[0]}.{b64url(bytes(255) + bytes([1]))}",
        "none": f"{b64url({'alg': 'none'})}.{b64url(claims)}.",
        "RS256, unsigned": f"{b64url({'alg': 'RS256'})}.{b64url(claims)}.",
    }


def forged_ec(claims: dict[str, Any]) -> dict[str, str]:
    """For a server that verifies ES256 with the public half of EC_KEY."""
    unsigned = signed(claims, EC_KEY, "ES256").rpartition(".")[0]
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

    def pair(r: int, s: int) -> str:
        return f"{unsigned}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    return {
        "r and s zero": pair(0, 0),  # CVE-2022-21449
        "r zero": pair(0, 1),
        "r and s the order": pair(order, order),
        "r and s one": pair(1, 1),
        "a signature of 63 bytes": f"{unsigned}.{b64url(bytes([1]) * 63)}",
        "a signature as DER": f"{unsigned}.{b64url(bytes.fromhex('3006020101020101'))}",
        "another EC key": signed(claims, OTHER_EC_KEY, "ES256"),
        "another curve": signed(claims, ec.generate_private_key(ec.SECP384R1()), "ES384"),
        "an RSA key": signed(claims, rsa.generate_private_key(65537, 2048), "RS256"),
        "HMAC with the public key": forge({"alg": "HS256"}, claims, public_pem(EC_KEY)),
        "HMAC that says ES256": forge({"alg": "ES256"}, claims, public_pem(EC_KEY)),
    }
