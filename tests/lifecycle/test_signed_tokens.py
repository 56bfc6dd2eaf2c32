"""JSON Web Tokens through the real port: each kind of key, forgeries, and credentials that end. RFC 7519, RFC 8725."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import pytest

from tests import keyring
from tests.harness import Server, serve
from tests.lifecycle.asking import ask, bearer, hears_itself, talk
from tests.wire import request

SECRET = "a secret that is long enough for each of the algorithms, and then some"
OTHER_SECRET = "another secret that is long enough for each of the algorithms, and more"


def claims(seconds: float = 60, **more: Any) -> dict[str, Any]:
    return {"sub": "alice", "exp": time.time() + seconds, **more}


def try_token(server: Server, token: str) -> set[int]:
    """Show a token in both ways; return the statuses of the answers."""
    return {
        ask(server.port, request("/ws", bearer(token))).status,
        ask(server.port, request(f"/ws?token={token}")).status,
    }


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], Any]]:
    """For each kind of key: the options of a server that trusts it, and what signs for that server."""
    folder: Path = tmp_path_factory.mktemp("keys")
    rsa, first, second = keyring.rsa_key(), keyring.ec_key(), keyring.ec_key()
    (folder / "rsa.pem").write_text(keyring.public_pem(rsa))
    (folder / "set.json").write_text(keyring.key_set(first, second))
    return {
        "HS256": (["--jwt-secret", SECRET, "--jwt-algorithm", "HS256"], SECRET),
        "RS256": (["--jwt-public-key", str(folder / "rsa.pem"), "--jwt-algorithm", "RS256"], rsa),
        "ES256": (["--jwt-public-key", keyring.public_pem(first), "--jwt-algorithm", "ES256"], first),
        "JWKS": (["--jwt-jwks-file", str(folder / "set.json"), "--jwt-algorithm", "ES256"], second),
    }


@pytest.mark.parametrize("kind", ["HS256", "RS256", "ES256", "JWKS"])
def test_signed_tokens(keys: dict[str, tuple[list[str], Any]], kind: str) -> None:
    options, key = keys[kind]
    algorithm = "ES256" if kind == "JWKS" else kind
    headers = {"kid": "1"} if kind == "JWKS" else None

    def sign(payload: dict[str, Any], key: Any = key, algorithm: str = algorithm, **more: Any) -> str:
        return jwt.encode(payload, key, algorithm, headers={**(headers or {}), **more})

    with serve("--auth", "jwt", *options) as server:
        assert try_token(server, sign(claims())) == {101}
        assert try_token(server, sign(claims(nbf=time.time() - 5))) == {101}
        good = sign(claims())
        head, body, signature = good.split(".")
        forged = {
            "expired": sign(claims(-5)),
            "without an end": sign({"sub": "alice"}),
            "an end that is no date": sign(claims() | {"exp": "soon"}),
            "not valid yet": sign(claims(nbf=time.time() + 60)),
            "the signature cut off": f"{head}.{body}.",
            "no signature at all": jwt.encode(claims(), None, "none"),
            "a signature changed": f"{head}.{body}.{('B' if signature[0] == 'A' else 'A') + signature[1:]}",
            "another body": f"{head}.{jwt.encode(claims(sub='mallory'), OTHER_SECRET).split('.')[1]}.{signature}",
            "another key": jwt.encode(claims(), keyring.ec_key(), "ES256", headers=headers),
            "another secret": jwt.encode(claims(), OTHER_SECRET, "HS256", headers=headers),
            "a key id that is a path": sign(claims(), kid="../../../dev/null"),
            "another algorithm": jwt.encode(claims(), SECRET, "HS384", headers=headers),
            "not a token": "not.a.token",
            "nothing but dots": "..",
            "too long": sign(claims(padding="a" * 9000)),
        }
        if kind in ("HS256", "RS256", "ES256"):
            del forged["a key id that is a path"]  # a lone key goes with any id: there is nothing to choose
        statuses = {name: try_token(server, token) for name, token in forged.items()}
        log = server.log_text()
    too_long = statuses.pop("too long")
    assert too_long <= {401, 414, 431}
    assert statuses == {name: {401} for name in statuses}
    assert "Traceback" not in log


def test_the_public_key_is_no_secret_to_sign_with(keys: dict[str, tuple[list[str], Any]]) -> None:
    """RFC 8725, section 2.1: a token signed by HMAC with what everybody knows."""
    options, key = keys["RS256"]
    pem = keyring.public_pem(key).encode()
    signed = {"alg": "HS256", "typ": "JWT"}
    # By hand: the library refuses to sign so.
    head, body = (jwt.utils.base64url_encode(json.dumps(part).encode()) for part in (signed, claims()))
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head + b"." + body, pem)
    token = b".".join((head, body, jwt.utils.base64url_encode(signature))).decode()
    with serve("--auth", "jwt", *options) as server:
        assert try_token(server, token) == {401}


def test_audience_and_issuer() -> None:
    options = ("--auth", "jwt", "--jwt-secret", SECRET, "--jwt-audience", "chat", "--jwt-issuer", "us")
    with serve(*options) as server:

        def statuses(**more: Any) -> set[int]:
            return try_token(server, jwt.encode(claims(**more), SECRET))

        assert statuses(aud="chat", iss="us") == {101}
        assert statuses(aud=["mail", "chat"], iss="us") == {101}
        assert statuses(aud="mail", iss="us") == {401}
        assert statuses(iss="us") == {401}
        assert statuses(aud="chat", iss="them") == {401}
        assert statuses(aud="chat") == {401}


def test_a_raw_channel_is_open_to_whom_its_rules_or_a_token_let_in() -> None:
    namespaces = json.dumps({"closed": {"subscribe": False}})
    options = ("--auth", "jwt", "--jwt-secret", SECRET, "--personal-channels")
    with serve(*options, env={"STENTOR_NAMESPACES": namespaces}) as server:

        def status(channel: str, user: str = "bob", **more: Any) -> int:
            token = jwt.encode(claims(**more) | {"sub": user}, SECRET)
            return ask(server.port, request(f"/ws/{quote(channel)}", bearer(token))).status

        for channel, owner in (("#alice", "alice"), ("closed:a", None)):
            assert status(channel) == 403
            assert status(channel, channels=[channel + "b"]) == 403
            assert status(channel, channels=[channel]) == 101
            assert status(channel, subs={channel: {}}) == 101
            if owner is not None:
                assert status(channel, owner) == 101


@pytest.mark.parametrize("path", ["/ws", "/echo"])
def test_credentials_that_expire_end_the_connection(path: str) -> None:
    with serve("--auth", "jwt", "--jwt-secret", SECRET) as server:
        end = time.time() + 2
        with (
            talk(server, path, bearer(jwt.encode({"exp": end}, SECRET))) as client,
            talk(server, path, bearer(jwt.encode(claims(), SECRET))) as other,
        ):
            assert hears_itself(client, b"early")
            said = client.read_until_closed()
            late = time.time() - end
            assert hears_itself(other, b"still here")
        disconnects = server.get_json("/debug/disconnects")["disconnects"]
    print(f"closed {late:.3f} s after the end of the credentials")
    assert (said.code, said.reason) == (1008, "credentials expired")
    assert -0.1 <= late <= 1.0
    assert "credentials expired" in {entry["reason"] for entry in disconnects}
