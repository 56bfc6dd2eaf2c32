"""The certificate of the public port: when it ends, and for which names it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from server.doctor.finding import Finding, Verdict, unseen

SOON: Final = timedelta(days=21)


def certificate(file: Path, now: datetime) -> Finding:
    """Look at the first certificate of a chain; those of who signed it follow."""
    from cryptography import x509

    try:
        first = x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError:  # what serves need not be what can be read
        return unseen("certificate")
    starts, ends = first.not_valid_before_utc, first.not_valid_after_utc
    value = f"until {ends:%Y-%m-%d}{_names(first)}"
    if now >= ends:
        return Finding("certificate", value, Verdict.BAD, "It has ended: no client will connect. Renew it.")
    if now < starts:
        return Finding("certificate", value, Verdict.BAD, f"It holds from {starts:%Y-%m-%d %H:%M} UTC on only.")
    if ends - now < SOON:
        advice = f"It ends in {(ends - now).days} days: renew it, and start the server again."
        return Finding("certificate", value, Verdict.WARNING, advice)
    return Finding("certificate", value)


def today() -> datetime:
    """Return the time by the wall clock: what certificates are dated by."""
    return datetime.now(UTC)


def _names(certificate: object) -> str:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ""
    names = [str(name) for name in extension.value.get_values_for_type(x509.DNSName)]
    return f", for {', '.join(names[:3])}{', …' if len(names) > 3 else ''}" if names else ""
