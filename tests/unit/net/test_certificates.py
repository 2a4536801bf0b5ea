import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from appserver.encryption import Password
from appserver.errors import CertificateError, CredentialError, UsageError
from appserver.net.certificates import Files, find_files, read_identity, read_password
from appserver.settings import Settings
from tests.certificates import Issuer


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(folder: Path) -> list[tuple[str, str]]:
    """What is found in a folder, relative to it."""
    files = find_files(Settings(tls_dir=str(folder)))
    return [(str(pair.certificate.relative_to(folder)), str(pair.key.relative_to(folder))) for pair in files]


# --- which files ------------------------------------------------------------------------------------------------------


def test_certificates_and_keys_are_paired_in_order() -> None:
    settings = Settings(tls_cert=("a.pem", "b.pem", "c.pem"), tls_key=("a.key", "b.key"))
    assert find_files(settings) == [
        Files(Path("a.pem"), Path("a.key")),
        Files(Path("b.pem"), Path("b.key")),
        Files(Path("c.pem"), Path("c.pem")),
    ]


def test_without_certificates_there_is_nothing() -> None:
    assert find_files(Settings()) == []


def test_credentials_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    touch(tmp_path, "web.key")
    settings = Settings(tls_cert=("/a.pem",), tls_key=("credential:web.key",))
    assert find_files(settings) == [Files(Path("/a.pem"), tmp_path / "web.key")]
    with pytest.raises(CredentialError):
        find_files(Settings(tls_cert=("credential:web.pem",)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # certbot's live/
        (
            [*(f"{site}/{name}.pem" for site in "ba" for name in ("cert", "chain", "fullchain", "privkey")), "README"],
            [("a/fullchain.pem", "a/privkey.pem"), ("b/fullchain.pem", "b/privkey.pem")],
        ),
        # secrets of Kubernetes, one and several
        (["tls.crt", "tls.key", "ca.crt", "..data/tls.crt", "..data/tls.key"], [("tls.crt", "tls.key")]),
        (
            ["a/tls.crt", "a/tls.key", "b/tls.crt", "b/tls.key"],
            [("a/tls.crt", "a/tls.key"), ("b/tls.crt", "b/tls.key")],
        ),
        (["a/cert.pem", "a/key.pem"], [("a/cert.pem", "a/key.pem")]),
        # by name
        (["b.pem", "b.key", "a.crt", "a.key"], [("a.crt", "a.key"), ("b.pem", "b.key")]),
        (["both.pem", "notes.txt", ".hidden.pem"], [("both.pem", "both.pem")]),
        (["a.pem", "a.key", "b/tls.crt", "b/tls.key"], [("a.pem", "a.key"), ("b/tls.crt", "b/tls.key")]),
        # a sub-folder without certificates is somebody's business
        (["a.pem", "a.key", "old/notes.txt"], [("a.pem", "a.key")]),
    ],
)
def test_a_folder_is_searched(names: list[str], expected: list[tuple[str, str]], tmp_path: Path) -> None:
    touch(tmp_path, *names)
    assert found(tmp_path) == expected


def test_the_folder_comes_behind_what_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.pem", "a.key")
    files = find_files(Settings(tls_dir=str(tmp_path), tls_cert=("/z.pem",)))
    assert [pair.certificate for pair in files] == [Path("/z.pem"), tmp_path / "a.pem"]


def test_a_folder_without_certificates_is_told_what_it_may_have(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"no certificate there; expected fullchain.pem \+ privkey.pem, "):
        find_files(Settings(tls_dir=str(tmp_path)))
    with pytest.raises(CertificateError, match=r"/none: No such file or directory; expected a folder"):
        find_files(Settings(tls_dir=str(tmp_path / "none")))


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user who is not root, which tests may be."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("name", ["shop", "shop.pem"])
def test_what_may_not_be_looked_at_in_a_folder_is_named(name: str) -> None:
    # Not in tmp_path, which nobody but the tests' user may enter.
    with TemporaryDirectory(prefix="as-") as text:
        folder = Path(text)
        folder.chmod(0o755)
        hidden = folder / "hidden"
        touch(folder, "tls/a.pem", "tls/a.key", "hidden/shop/tls.crt", "hidden/shop.pem")
        link = folder / "tls" / name
        link.symlink_to(hidden / name)
        hidden.chmod(0)
        try:
            with without_rights(), pytest.raises(CertificateError) as caught:
                find_files(Settings(tls_dir=str(folder / "tls")))
        finally:
            hidden.chmod(0o700)
    assert str(caught.value) == f"{link}: Permission denied; expected a certificate or a folder of one"


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.pem", "a.key")
    (tmp_path / "old").symlink_to(tmp_path / "none")
    assert found(tmp_path) == [("a.pem", "a.key")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tls_key": ("a",)}, "--tls-key: 'a': expected a --tls-cert for each --tls-key"),
        ({"tls_cert": ("a",), "tls_key": ("b", "c")}, "--tls-key: 'c': expected a --tls-cert for each --tls-key"),
        ({"tls_ca": "/ca"}, "--tls-ca: '/ca': expected a certificate of the server's own (--tls-cert)"),
        (
            {"tls_ca": "/ca", "tls_client_cert": "required"},
            "--tls-ca: '/ca': expected a certificate of the server's own (--tls-cert)",
        ),
        ({"tls_client_cert": "required"}, "--tls-client-cert: 'required': expected --tls-ca, whose clients are let in"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_files(Settings(**options))
    assert str(caught.value) == message


# --- reading them -----------------------------------------------------------------------------------------------------


def test_the_first_certificate_of_a_file_is_the_servers(issuer: Issuer, tmp_path: Path) -> None:
    pair = issuer.issue(tmp_path / "a.pem", "a.example", "*.a.example")
    root = issuer.write_root(tmp_path / "root.pem").read_text()
    pair.certificate.write_text("a comment\n" + pair.certificate.read_text() + root)
    identity = read_identity(Files(pair.certificate, pair.key))
    assert identity.facts.names == ("a.example", "*.a.example")
    assert identity.pem in pair.certificate.read_text()
    assert identity.pem.count("BEGIN") == 1


def test_one_file_may_hold_both(issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    issuer.issue(path, "a.example", key=path)
    assert read_identity(Files(path, path)).facts.names == ("a.example",)


def break_file(folder: Path, name: str, content: bytes | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pem", None, "a.pem: the certificate cannot be read: No such file or directory"),
        ("a.key", None, "a.key: the key of {0}/a.pem cannot be read: No such file or directory"),
        ("a.pem", b"", "a.pem: expected a certificate in PEM form (-----BEGIN CERTIFICATE-----)"),
        ("a.pem", b"\x30\x82\xff", "a.pem: expected a certificate in PEM form (-----BEGIN CERTIFICATE-----)"),
        ("a.key", b"x", "a.key: expected a private key in PEM form (-----BEGIN PRIVATE KEY-----)"),
        (
            "a.pem",
            b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n",
            "a.pem: a certificate in it is damaged: no certificate in DER form",
        ),
    ],
)
def test_the_file_at_fault_is_named(
    name: str, content: bytes | None, message: str, issuer: Issuer, tmp_path: Path
) -> None:
    pair = issuer.issue(tmp_path / "a.pem", "a.example")
    break_file(tmp_path, name, content)
    with pytest.raises(CertificateError) as caught:
        read_identity(Files(pair.certificate, pair.key))
    assert str(caught.value) == f"{tmp_path}/{message.format(tmp_path)}"


def test_a_certificate_without_its_key_in_the_same_file_says_how_to_give_one(issuer: Issuer, tmp_path: Path) -> None:
    path = issuer.issue(tmp_path / "a.pem", "a.example").certificate
    with pytest.raises(CertificateError, match="or give --tls-key"):
        read_identity(Files(path, path))


# --- the password -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "password"),
    [("secret", b"secret"), ("secret\n", b"secret"), (" s\u00e9 \r\nmore\n", " s\u00e9 ".encode())],
)
def test_a_password_is_the_first_line_of_its_file(content: str, password: bytes, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(content, newline="")
    assert read_password(Password(str(path))) == password


def test_a_password_may_be_a_credential_or_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "web.password").write_text("secret\n")
    assert read_password(Password("credential:web.password")) == b"secret"
    assert read_password(Password("secret")) == b"secret"
    assert read_password(None) is None


def test_a_password_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(CredentialError, match="credential:none"):
        read_password(Password("credential:none"))
    with pytest.raises(CertificateError) as caught:
        read_password(Password("/hunter2"))  # may be a password that looks like a path
    assert str(caught.value) == "the file of --tls-key-password cannot be read: No such file or directory"
