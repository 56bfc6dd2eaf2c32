"""TLS with a Redis: whom we trust, what we show, and what is wrong when it fails.

Laws: files that have changed are read again, so that a certificate may be renewed while we run, and others are not: the
system's authorities alone would hold up the event loop for a tenth of a second, at each connection. What is wrong is
said in words that name the part of the address to look at. Knows no sockets.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import Final

from server.brokers.redis.address import Tls

# X509_V_ERR_…: nobody whom we trust has signed it.
_UNTRUSTED: Final = frozenset({18, 19, 20, 21})
_OF_OURS: Final = ("UNKNOWN_CA", "CERTIFICATE_", "UNSUPPORTED_CERTIFICATE", "ACCESS_DENIED")

# Whether a file has changed: its inode, its size and when it was written; None if there is none.
_Stamp = tuple[int, int, int] | None


class TlsFault(OSError):
    """There is no TLS to be had; `str()` of it says why."""


def context(tls: Tls) -> ssl.SSLContext:
    """Return what a connection is made with. Raises TlsFault, which names the file."""
    system = ssl.get_default_verify_paths()
    trusted = [tls.ca] if tls.ca else [path for path in (system.cafile, system.capath) if path]
    return _made(tls, tuple(_stamp(file) for file in (*trusted, tls.cert, tls.key)))


def fault(error: ssl.SSLError) -> str:
    """Say what is wrong, of an error while the two sides came to know each other."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "; ca= in the address names the authority to trust" if error.verify_code in _UNTRUSTED else ""
        return f"its certificate is not accepted: {str(error.verify_message).rstrip('.')}{advice}"
    reason = (error.reason or "").upper()
    if "ALERT_CERTIFICATE_REQUIRED" in reason:
        return "it wants to see a certificate of ours: give cert= and key= in the address"
    if "ALERT" in reason and any(part in reason for part in _OF_OURS):
        return f"it does not accept our certificate, cert= in the address: {_words(error)}"
    advice = "; it may want to see a certificate of ours, cert= and key=" if "HANDSHAKE_FAILURE" in reason else ""
    return f"TLS with it fails: {_words(error)}{advice}"


@lru_cache(maxsize=16)
def _made(tls: Tls, _: tuple[_Stamp, ...]) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=tls.ca or None)
    except OSError as error:
        raise TlsFault(f"ca={tls.ca}: {_words(error)}") from None
    if tls.cert:
        try:
            # Without a password of its own, OpenSSL would ask for one on the terminal.
            made.load_cert_chain(tls.cert, tls.key or None, password=lambda: "")
        except OSError as error:
            named = f"cert={tls.cert}" + (f", key={tls.key}" if tls.key else "")
            raise TlsFault(f"{named}: {_words(error)}") from None
    return made


def _stamp(file: str) -> _Stamp:
    try:
        seen = os.stat(file)
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM, or an encrypted key").lower().replace("_", " ")
    return (error.strerror or str(error)).lower()
