"""Keys and certificates for tests, made on the spot, and tokens that a careful library would refuse to write."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: PrivateKey, password: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def key_set(*keys: ec.EllipticCurvePrivateKey) -> str:
    """A JSON Web Key Set with the public halves of `keys`."""
    entries: list[Any] = [json.loads(ECAlgorithm.to_jwk(key.public_key())) for key in keys]
    return json.dumps({"keys": [entry | {"kid": str(index)} for index, entry in enumerate(entries)]})


def certificate(key: PrivateKey) -> str:
    """A certificate for localhost, signed by itself."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * 100))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def b64url(data: bytes | str | dict[str, Any]) -> str:
    """Base64 as in tokens; an object is written as JSON."""
    if isinstance(data, dict):
        data = json.dumps(data)
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: Any, claims: Any, key: str | bytes) -> str:
    """Sign with HMAC-SHA256 whatever the header says."""
    signed = f"{b64url(header)}.{b64url(claims)}"
    secret = key.encode() if isinstance(key, str) else key
    return f"{signed}.{b64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"
