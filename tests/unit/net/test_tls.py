"""Contexts in handshakes with real clients, in memory."""

import ssl
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appserver.encryption import Password
from appserver.errors import CertificateError, UsageError
from appserver.net.certificates import Files, read_identity
from appserver.net.tls import CIPHERS, Context, describe, explain, find_context, is_adequate, load, make_context
from appserver.settings import Settings
from tests.certificates import Issuer, Pair


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@dataclass
class Met:
    """Both sides of a handshake that is done."""

    server: ssl.SSLObject
    client: ssl.SSLObject

    @property
    def names(self) -> set[str]:
        """What the certificate that the client was shown is good for."""
        found: Any = (self.client.getpeercert() or {}).get("subjectAltName", ())
        return {name for _, name in found}


def meet(server_context: ssl.SSLContext, client_context: ssl.SSLContext, name: str | None = None) -> Met:
    """Let two contexts do a handshake; raises what either side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    if name is None:
        client_context.check_hostname = False
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [client, server]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    for side in (client, server):  # tickets, and the alerts of TLS 1.3 that come after the client is done
        with suppress(ssl.SSLWantReadError):
            side.read(1)
    return Met(server, client)


def settle(*pairs: Pair, **options: Any) -> Settings:
    return Settings(
        tls_cert=tuple(str(pair.certificate) for pair in pairs),
        tls_key=tuple(str(pair.key) for pair in pairs),
        **options,
    )


def offer(*pairs: Pair, http2: bool = True, **options: Any) -> Context:
    return load(settle(*pairs, **options), [http2]).contexts[http2]


@pytest.fixture
def pair(issuer: Issuer, tmp_path: Path) -> Pair:
    return issuer.issue(tmp_path / "a.pem", "a.example")


# --- what is spoken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http2", "offered", "agreed"),
    [
        (True, ["h2", "http/1.1"], "h2"),
        (True, ["http/1.1", "h2"], "h2"),
        (True, ["http/1.1"], "http/1.1"),
        (True, ["http/1.0"], None),
        (True, [], None),
        (False, ["h2", "http/1.1"], "http/1.1"),
    ],
)
def test_the_protocol_is_agreed_on(
    http2: bool, offered: list[str], agreed: str | None, issuer: Issuer, pair: Pair
) -> None:
    client = issuer.client()
    if offered:
        client.set_alpn_protocols(offered)
    assert meet(offer(pair, http2=http2), client, "a.example").server.selected_alpn_protocol() == agreed


@pytest.mark.parametrize(
    ("least", "most", "agreed"), [("1.2", "1.3", 0x0304), ("1.2", "1.2", 0x0303), ("1.3", "1.3", 0x0304)]
)
def test_versions_from_the_least_on_are_spoken(least: str, most: str, agreed: int, issuer: Issuer, pair: Pair) -> None:
    client = issuer.client()
    client.maximum_version = ssl.TLSVersion[f"TLSv{most.replace('.', '_')}"]
    met = meet(offer(pair, tls_min_version=least), client, "a.example")
    assert describe(met.server)["tls_version"] == agreed


def test_an_older_version_is_not_spoken(issuer: Issuer, pair: Pair) -> None:
    client = issuer.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError) as caught:
        meet(offer(pair, tls_min_version="1.3"), client, "a.example")
    assert explain(caught.value) == "unsupported protocol"


def test_the_suites_are_mozillas_and_the_client_chooses(pair: Pair) -> None:
    context = offer(pair)
    assert [name for name in context.suites if not name.startswith("TLS_")] == CIPHERS.split(":")
    assert context.inadequate == frozenset()
    assert context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert not context.options & ssl.OP_NO_TICKET


def test_suites_that_http2_must_not_be_spoken_over_are_known(issuer: Issuer, pair: Pair) -> None:
    context = offer(pair, tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA256")
    client = issuer.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert is_adequate(meet(context, client, "a.example").server)
    client.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    met = meet(context, client, "a.example")
    assert not is_adequate(met.server)
    assert describe(met.server)["cipher_suite"] == 0xC023  # RFC 5289


def test_unknown_suites_are_the_operators_mistake(pair: Pair) -> None:
    with pytest.raises(UsageError, match="--tls-ciphers: 'ROT13': "):
        offer(pair, tls_ciphers="ROT13")


# --- which certificate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("a.example", "a.example"),
        ("b.example", "b.example"),
        ("B.Example", "b.example"),
        ("www.b.example", "*.b.example"),
        ("special.b.example", "special.b.example"),
        ("too.deep.b.example", "a.example"),
        ("unknown.example", "a.example"),
        (None, "a.example"),
    ],
)
def test_the_name_that_the_client_asks_for_chooses(
    asked: str | None, shown: str, issuer: Issuer, tmp_path: Path
) -> None:
    names = ("a.example", "b.example", "*.b.example", "special.b.example")
    context = offer(*(issuer.issue(tmp_path / f"{number}.pem", name) for number, name in enumerate(names)))
    client = issuer.client()
    client.check_hostname = False
    met = meet(context, client, asked)
    assert met.names == {shown}
    told = describe(met.server)["server_cert"]
    assert ssl.PEM_cert_to_DER_cert(told.strip()) == met.client.getpeercert(binary_form=True)


def test_the_other_certificates_offer_the_same_protocols(issuer: Issuer, tmp_path: Path) -> None:
    context = offer(issuer.issue(tmp_path / "a.pem", "a.example"), issuer.issue(tmp_path / "b.pem", "b.example"))
    client = issuer.client()
    client.set_alpn_protocols(["h2"])
    assert meet(context, client, "b.example").client.selected_alpn_protocol() == "h2"


def test_of_two_certificates_for_a_name_the_first_is_shown(issuer: Issuer, tmp_path: Path) -> None:
    first = issuer.issue(tmp_path / "1.pem", "a.example", "first.example")
    second = issuer.issue(tmp_path / "2.pem", "a.example", "second.example")
    context = offer(issuer.issue(tmp_path / "0.pem", "default.example"), first, second)
    assert meet(context, issuer.client(), "a.example").names == {"a.example", "first.example"}


def test_a_trailing_dot_means_nothing(pair: Pair) -> None:
    context = offer(pair)
    names = {"a.example": context}
    assert find_context(names, "a.example.") is context
    assert find_context(names, "") is None


def test_rsa_keys_are_served_too(issuer: Issuer, tmp_path: Path) -> None:
    pair = issuer.issue(tmp_path / "a.pem", "a.example", with_rsa=True)
    assert meet(offer(pair), issuer.client(), "a.example").names == {"a.example"}


# --- keys -------------------------------------------------------------------------------------------------------------


def test_an_encrypted_key_opens_with_its_password(issuer: Issuer, tmp_path: Path) -> None:
    pair = issuer.issue(tmp_path / "a.pem", "a.example", password="secret")
    context = offer(pair, tls_key_password=Password("secret"))
    assert meet(context, issuer.client(), "a.example").names == {"a.example"}


@pytest.mark.parametrize(
    ("password", "message"),
    [
        (None, "a.key: the key is encrypted; give its password (--tls-key-password)"),
        ("wrong", "a.key: the password (--tls-key-password) does not open the key"),
        ("x" * 2000, "a.key: the password (--tls-key-password): password cannot be longer than 1024 bytes"),
    ],
)
def test_a_key_that_does_not_open_says_so_without_the_password(
    password: str | None, message: str, issuer: Issuer, tmp_path: Path
) -> None:
    pair = issuer.issue(tmp_path / "a.pem", "a.example", password="secret")
    with pytest.raises(CertificateError) as caught:
        offer(pair, tls_key_password=Password(password) if password else None)
    assert str(caught.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize("with_rsa", [False, True])
def test_a_key_of_another_certificate_is_told(with_rsa: bool, issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    other = issuer.issue(tmp_path / "b.pem", "b.example", with_rsa=with_rsa)
    with pytest.raises(CertificateError) as caught:
        offer(Pair(pair.certificate, other.key))
    assert str(caught.value) == f"{other.key}: is not the key of {pair.certificate}"


def test_a_damaged_key_is_told(pair: Pair) -> None:
    pair.key.write_text("-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(CertificateError, match="a.key: OpenSSL cannot read the private key in it"):
        offer(pair)


def test_a_certificate_that_is_too_weak_is_told_in_openssls_words(tmp_path: Path) -> None:
    certificate, key = tmp_path / "weak.pem", tmp_path / "weak.key"
    words = f"openssl req -x509 -newkey rsa:1024 -nodes -subj /CN=weak -keyout {key} -out {certificate}"
    subprocess.run(words.split(), check=True, capture_output=True)
    with pytest.raises(CertificateError, match="weak.pem: OpenSSL does not take it: ee key too small"):
        offer(Pair(certificate, key))


def test_a_file_that_goes_away_in_between_is_told(pair: Pair) -> None:
    identity = read_identity(Files(pair.certificate, pair.key))
    pair.key.unlink()
    with pytest.raises(CertificateError, match="cannot be read: No such file"):
        make_context(identity, Settings(), None, http2=True)


# --- clients' certificates --------------------------------------------------------------------------------------------


@pytest.fixture
def authority(issuer: Issuer, tmp_path: Path) -> str:
    return str(issuer.write_root(tmp_path / "root.pem"))


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("demand", ["optional", "required"])
def test_a_client_that_shows_itself_is_told_of(
    demand: str, version: str, issuer: Issuer, pair: Pair, authority: str, tmp_path: Path
) -> None:
    shown = issuer.issue(tmp_path / "client.pem", "client.example", common_name="Client, the first")
    client = issuer.client(shown)
    client.maximum_version = ssl.TLSVersion[version]
    met = meet(offer(pair, tls_client_cert=demand, tls_ca=authority), client, "a.example")
    told = describe(met.server)
    assert told["client_cert_name"] == r"CN=Client\, the first"
    assert told["client_cert_error"] is None
    assert told["client_cert_chain"][0] in shown.certificate.read_text()


def test_a_client_that_shows_nothing_is_served_where_it_need_not(issuer: Issuer, pair: Pair, authority: str) -> None:
    met = meet(offer(pair, tls_client_cert="optional", tls_ca=authority), issuer.client(), "a.example")
    told = describe(met.server)
    assert (told["client_cert_chain"], told["client_cert_name"], told["client_cert_error"]) == ((), None, None)


def test_nobody_is_asked_by_default(issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    met = meet(offer(pair), issuer.client(issuer.issue(tmp_path / "client.pem", "client.example")), "a.example")
    assert describe(met.server)["client_cert_chain"] == ()


def test_a_client_without_a_certificate_is_turned_away_where_it_needs_one(
    issuer: Issuer, pair: Pair, authority: str
) -> None:
    with pytest.raises(ssl.SSLError) as caught:
        meet(offer(pair, tls_client_cert="required", tls_ca=authority), issuer.client(), "a.example")
    assert explain(caught.value) == "peer did not return a certificate"


@pytest.mark.parametrize("demand", ["optional", "required"])
@pytest.mark.parametrize(
    ("own", "days", "cause"),
    [(False, 90, "unable to get local issuer certificate"), (True, -1, "certificate has expired")],
)
def test_a_certificate_that_cannot_be_verified_is_turned_away(
    own: bool, days: float, cause: str, demand: str, issuer: Issuer, pair: Pair, authority: str, tmp_path: Path
) -> None:
    shown = (issuer if own else Issuer()).issue(tmp_path / "client.pem", "client.example", days=days)
    with pytest.raises(ssl.SSLError) as caught:
        meet(offer(pair, tls_client_cert=demand, tls_ca=authority), issuer.client(shown), "a.example")
    assert explain(caught.value) == f"the client's certificate: {cause}"


def test_authorities_may_be_a_folder(issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()
    assert offer(pair, tls_client_cert="required", tls_ca=str(folder)).verify_mode is ssl.CERT_REQUIRED


def test_authorities_that_cannot_be_read_are_told(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"/none.pem: the authorities \(--tls-ca\) cannot be read: No such file"):
        offer(pair, tls_client_cert="required", tls_ca=str(tmp_path / "none.pem"))
    with pytest.raises(CertificateError, match=r"a.key: expected certificates of authorities in PEM form \(--tls-ca\)"):
        offer(pair, tls_client_cert="required", tls_ca=str(pair.key))


# --- all of them ------------------------------------------------------------------------------------------------------


def test_what_is_loaded_is_listed_in_order(issuer: Issuer, tmp_path: Path) -> None:
    pairs = [issuer.issue(tmp_path / f"{name}.pem", f"{name}.example") for name in "ab"]
    loaded = load(settle(*pairs), [True, False])
    assert [identity.facts.label for identity in loaded.identities] == ["a.example", "b.example"]
    assert set(loaded.contexts) == {True, False}


def test_without_a_certificate_there_is_nothing_to_load() -> None:
    with pytest.raises(UsageError, match=r"--tls-cert: expected a certificate"):
        load(Settings(), [True])


def test_another_servers_context_is_described_as_far_as_it_goes(issuer: Issuer, pair: Pair) -> None:
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    foreign.load_cert_chain(pair.certificate, pair.key)
    told = describe(meet(foreign, issuer.client(), "a.example").server)
    assert (told["server_cert"], told["cipher_suite"], told["tls_version"]) == (None, None, 0x0304)
