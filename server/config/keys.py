"""Certificates and keys: whether what the operator gave can be used for what it is meant for.

Each function returns the fault as the end of a sentence about the file or key, or None. Libraries are imported when
there is something to look at: a server without TLS or tokens needs none of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

_FAMILY: Final = {
    "RS256": "RSA",
    "RS384": "RSA",
    "RS512": "RSA",
    "ES256": "EC (P-256)",
    "ES384": "EC (P-384)",
    "ES512": "EC (P-521)",
}


def fault_of_certificate(certificate: Path, key: Path) -> str | None:
    """Look for a certificate chain and its private key, both PEM and the key not encrypted."""
    import ssl

    try:
        # Without a password of its own, OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not a PEM file, or an encrypted one"
        return f"is not the private key to tls_cert ({str(reason).lower().replace('_', ' ')})"
    return None


def fault_of_public_key(pem: str, algorithm: str) -> str | None:
    """Look for a public key in PEM that verifies `algorithm`."""
    if "PRIVATE KEY" in pem:
        return "must be a public key; this is a private one"
    if not _usable(_algorithm(algorithm), pem):
        return f"must be a public {_FAMILY[algorithm]} key in PEM to verify {algorithm}"
    return None


def fault_of_key_set(file: Path, algorithm: str) -> str | None:
    """Look for a JSON Web Key Set (RFC 7517) with a key that verifies `algorithm`."""
    from jwt import PyJWKSet, PyJWTError

    try:
        keys = PyJWKSet.from_dict(json.loads(file.read_bytes())).keys
    except (OSError, ValueError, TypeError, AttributeError, PyJWTError):
        return "must be a JSON Web Key Set with at least one usable key"
    if not any(_usable(_algorithm(algorithm), key.key) for key in keys):
        return f"has no {_FAMILY[algorithm]} key to verify {algorithm}"
    return None


def _algorithm(name: str) -> Algorithm:
    from jwt import get_algorithm_by_name

    return get_algorithm_by_name(name)


def _usable(algorithm: Algorithm, key: object) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from jwt import InvalidKeyError

    try:
        algorithm.prepare_key(key)
    except (InvalidKeyError, TypeError, ValueError, UnsupportedAlgorithm):
        return False
    return True
