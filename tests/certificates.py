"""Certificates for tests: an authority in memory, and what it issues as files."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

_DAYS: Final = 180
"""So long certificates have been good already."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its key."""

    certificate: Path
    key: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        """How the server is told of it."""
        return "--tls-cert", str(self.certificate), "--tls-key", str(self.key)


class Issuer:
    """Issues certificates, in the name of an authority of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Authority of a test")
        uses = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        signing = x509.KeyUsage(
            **dict.fromkeys((*uses, "encipher_only", "decipher_only"), False), key_cert_sign=True, crl_sign=True
        )
        self._certificate = self._sign(
            self._name, self._key, 3650, -_DAYS, x509.BasicConstraints(ca=True, path_length=None), signing
        )

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        days: float,
        begins_in: float,
        *extensions: x509.ExtensionType,
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=begins_in))
            .not_valid_after(now + timedelta(days=days))
            # Without these, and the authority's KeyUsage, Python 3.13 does not verify it (VERIFY_X509_STRICT).
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(
        self,
        certificate: Path,
        *names: str,
        key: Path | None = None,
        days: float = 90,
        begins_in: float = -_DAYS,
        password: str | None = None,
        with_rsa: bool = False,
        common_name: str = "",
    ) -> Pair:
        """Write a certificate, and the key beside it: NAME.pem and NAME.key.

        Args:
            certificate: The file; what is there is replaced, first the certificate and then the key.
            names: What it is good for: DNS names and IP addresses.
            key: Another file for the key; the same one for both is fine.
            days: How long it is good.
            begins_in: In how many days that begins.
            password: Encrypts the key.
            with_rsa: Make a key for RSA, not ECDSA.
            common_name: Of the subject; the first name if none is given.
        """
        private = rsa.generate_private_key(65537, 2048) if with_rsa else ec.generate_private_key(ec.SECP256R1())
        pem = self._sign(
            _name(common_name or names[0]),
            private,
            days,
            begins_in,
            x509.SubjectAlternativeName([_general_name(name) for name in names]),
        )
        secret = private.private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            NoEncryption() if password is None else BestAvailableEncryption(password.encode()),
        )
        key = key or certificate.with_suffix(".key")
        certificate.write_bytes(pem + (secret if key == certificate else b""))
        if key != certificate:
            key.write_bytes(secret)
        return Pair(certificate, key)

    def write_root(self, path: Path) -> Path:
        """Write the authority's own certificate."""
        path.write_bytes(self._certificate)
        return path

    def client(self, identity: Pair | None = None) -> ssl.SSLContext:
        """What a client connects with that trusts this authority alone.

        Args:
            identity: The certificate that it shows.
        """
        context = ssl.create_default_context(cadata=self._certificate.decode())
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        return context


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
