"""Certificates of the tests' own: an authority, a server on 127.0.0.1, and a client."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Certificates"]


@dataclass(frozen=True)
class Certificates:
    """The files, in PEM. Another authority has signed none of them.

    Parameters:
      folder: where they are.
    """

    folder: Path

    @classmethod
    def made_in(cls, folder: Path) -> Certificates:
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _signed("authority", authority_key, authority_key, "authority", is_authority=True)
        _write(folder / "ca.pem", authority)
        other_key = ec.generate_private_key(ec.SECP256R1())
        _write(folder / "other.pem", _signed("other", other_key, other_key, "other", is_authority=True))
        for name in ("server", "client"):
            key = ec.generate_private_key(ec.SECP256R1())
            _write(folder / f"{name}.pem", _signed(name, key, authority_key, "authority"))
            (folder / f"{name}.key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
            (folder / f"{name}.key").chmod(0o600)
        return cls(folder)

    def __getattr__(self, name: str) -> Path:
        """`ca`, `other`, `server`, `client` and, with `_key`, their keys."""
        stem, _, kind = name.partition("_")
        return self.folder / f"{stem}.{kind or 'pem'}"


def _signed(name: str, key: Any, issuer_key: Any, issuer: str, *, is_authority: bool = False) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
