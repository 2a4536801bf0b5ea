"""Certificates and their keys as files: which ones the settings name, and whether each can be served with.

Of a folder (`--tls-dir`) these are taken, in the order of their names:

    FOLDER/fullchain.pem + privkey.pem      as certbot makes them: FOLDER is .../live/NAME, or a sub-folder
    FOLDER/tls.crt + tls.key                as Kubernetes mounts a secret of type kubernetes.io/tls
    FOLDER/cert.pem + key.pem
    FOLDER/NAME.pem or NAME.crt             with NAME.key beside it, or with the key in the same file
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from appserver.encryption import Password
from appserver.errors import CertificateError, UsageError
from appserver.net import x509
from appserver.settings import Settings
from appserver.system.credentials import find_file

# certbot's cert.pem has no chain, so it comes last.
_PAIRS: Final = (("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key"), ("cert.pem", "key.pem"))
_KEY_MARK: Final = "PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Files:
    """Where a certificate with its chain stands, and where its key; both may be the same file."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate that was read: what the server can show itself with.

    Attributes:
        files: Where it stands.
        pem: The certificate without its chain.
        facts: What it says.
    """

    files: Files
    pem: str
    facts: x509.Certificate


def find_files(settings: Settings) -> list[Files]:
    """The files of every certificate that the settings name; the first one is the default.

    Raises:
        UsageError: The settings contradict each other.
        CertificateError: The folder has no certificates, or one without a key.
        CredentialError: The service manager has not handed over what a setting names.
    """
    if len(settings.tls_key) > len(settings.tls_cert):
        raise UsageError("--tls-key", settings.tls_key[-1], "expected a --tls-cert for each --tls-key")
    if settings.tls_client_cert != "none" and settings.tls_ca is None:
        raise UsageError("--tls-client-cert", settings.tls_client_cert, "expected --tls-ca, whose clients are let in")
    if settings.tls_ca is not None and not settings.encrypted:
        # Plain HTTP asks nobody for a certificate: everybody would be let in.
        raise UsageError("--tls-ca", settings.tls_ca, "expected a certificate of the server's own (--tls-cert)")
    certificates = [find_file(text) for text in settings.tls_cert]
    keys = [find_file(text) for text in settings.tls_key]
    # A certificate without a --tls-key has the key in its own file.
    found = [Files(path, key) for path, key in zip(certificates, [*keys, *certificates[len(keys) :]], strict=True)]
    if settings.tls_dir is not None:
        found += _search(find_folders(settings))
    return found


def find_folders(settings: Settings) -> list[Path]:
    """The folders where certificates can appear: that of the settings, and those in it.

    Raises:
        CertificateError: It cannot be read.
        CredentialError: The service manager has not handed it over.
    """
    if settings.tls_dir is None:
        return []
    folder = find_file(settings.tls_dir)
    return [folder, *(entry for entry in _list(folder) if _is_folder(entry))]


def _search(folders: Sequence[Path]) -> list[Files]:
    found = [files for folder in folders for files in _search_one(_list(folder))]
    if not found:
        shapes = ", ".join(" + ".join(pair) for pair in _PAIRS)
        raise CertificateError(f"{folders[0]}: no certificate there; expected {shapes}, or NAME.pem with NAME.key")
    return found


def _list(folder: Path) -> list[Path]:
    try:
        # Kubernetes has the files of each version of a secret in hidden folders.
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise CertificateError(f"{folder}: {error.strerror}; expected a folder of certificates (--tls-dir)") from error


def _is_folder(path: Path) -> bool:
    """Path.is_dir(), but for what may not be looked at: a certificate behind it would be missing without a word."""
    try:
        return S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno == ENOENT:
            return False  # a link that leads nowhere
        raise CertificateError(f"{path}: {error.strerror}; expected a certificate or a folder of one") from error


def _search_one(entries: Iterable[Path]) -> Iterator[Files]:
    """The certificates of one folder: a pair by its well-known names, else whatever stands there by name."""
    paths = {entry.name: entry for entry in entries}
    for certificate, key in _PAIRS:
        if certificate in paths and key in paths:
            yield Files(paths[certificate], paths[key])
            return
    for path in paths.values():
        if path.suffix in (".pem", ".crt") and not _is_folder(path):
            yield Files(path, paths.get(f"{path.stem}.key", path))


def read_identity(files: Files) -> Identity:
    """Read a certificate, and see that there is a key; whether that fits is seen when a context is made of both.

    Raises:
        CertificateError: One of them cannot be read, or is not what it should be.
    """
    text = _read(files.certificate, "the certificate")
    blocks = x509.PEM.findall(text)
    if not blocks:
        raise CertificateError(f"{files.certificate}: expected a certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    try:
        facts = [x509.read_pem(block) for block in blocks]
    except ValueError as error:
        raise CertificateError(f"{files.certificate}: a certificate in it is damaged: {error}") from error
    key = text if files.key == files.certificate else _read(files.key, f"the key of {files.certificate}")
    if _KEY_MARK not in key:
        where = f"{files.key}: expected a private key in PEM form (-----BEGIN PRIVATE KEY-----)"
        raise CertificateError(where + ("; or give --tls-key" if files.key == files.certificate else ""))
    return Identity(files, blocks[0], facts[0])


def read_password(password: Password | None) -> bytes | None:
    """The password of the keys: the first line of the file that it stands in, or itself.

    Raises:
        CertificateError: The file cannot be read.
        CredentialError: The service manager has not handed it over.
    """
    if password is None:
        return None
    if password.place is None:
        return password.text.encode("utf-8", "surrogateescape")
    try:
        text = find_file(password.place).read_text("utf-8", "replace")
    except OSError as error:
        # Not the path: it may be a password that looks like one.
        raise CertificateError(f"the file of --tls-key-password cannot be read: {error.strerror}") from error
    return text.partition("\n")[0].rstrip("\r").encode()


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise CertificateError(f"{path}: {what} cannot be read: {error.strerror}") from error
