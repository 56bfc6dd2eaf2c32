"""A certificate authority of the tests, and the papers it gives out: PEM files for TLS between us and a Redis.

authority = Authority(folder, "ours")
papers = authority.issue("node", "localhost", "127.0.0.1")
papers.redis_options()      # for redis-server
papers.query()              # for the URL of a broker: ca=…&cert=…&key=…
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests import keyring

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
END = START + datetime.timedelta(days=365 * 100)


@dataclass(frozen=True)
class Papers:
    """What one side has: its certificate, the key to it, and the authority that it trusts."""

    ca: Path
    cert: Path
    key: Path

    def redis_options(self) -> tuple[str, ...]:
        return (
            "--tls-ca-cert-file", str(self.ca), "--tls-cert-file", str(self.cert), "--tls-key-file", str(self.key),
        )  # fmt: skip

    def query(self) -> str:
        return f"ca={self.ca}&cert={self.cert}&key={self.key}"


class Authority:
    """See the module; `file` is its own certificate, by which others trust it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = keyring.ec_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
        self._issued = 0
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        self.file = folder / f"{name}-ca.pem"
        self.file.write_bytes(self._signed(builder))

    def issue(self, name: str, *hosts: str, ends: datetime.datetime = END) -> Papers:
        """Give out a certificate that is good for both sides of a connection, for these names and addresses."""
        key = keyring.ec_key()
        owner = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = (
            self._builder(owner, key, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        papers = Papers(self.file, self._folder / f"{name}.pem", self._folder / f"{name}.key")
        papers.cert.write_bytes(self._signed(builder))
        papers.key.write_text(keyring.private_pem(key))
        return papers

    def _builder(
        self, owner: x509.Name, key: keyring.PrivateKey, ends: datetime.datetime = END
    ) -> x509.CertificateBuilder:
        self._issued += 1
        return (
            x509.CertificateBuilder()
            .subject_name(owner)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(self._issued)
            .not_valid_before(START)
            .not_valid_after(ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
