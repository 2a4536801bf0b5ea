"""appserver.net.x509, against what the cryptography package reads in the same certificates."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from appserver.net.x509 import read_der, read_pem

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)


def make(
    subject: x509.Name | None = None,
    names: list[x509.GeneralName] | None = None,
    begins: datetime = NOW,
    ends: datetime = NOW + timedelta(days=90),
    serial: int = 1000,
) -> x509.Certificate:
    subject = subject if subject is not None else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")]))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256())


def read_subject(*attributes: "x509.NameAttribute[Any]") -> str:
    return read_der(make(x509.Name(attributes)).public_bytes(Encoding.DER)).subject


def test_addresses_are_read() -> None:
    addresses = [x509.IPAddress(ip_address(text)) for text in ("127.0.0.1", "2001:db8::1")]
    facts = read_der(make(names=[*addresses]).public_bytes(Encoding.DER))
    assert (facts.names, facts.addresses, facts.label) == ((), ("127.0.0.1", "2001:db8::1"), "127.0.0.1")
    both = read_der(make(names=[addresses[0], x509.DNSName("a.example")]).public_bytes(Encoding.DER))
    assert both.hosts == ("a.example", "127.0.0.1")


def test_an_extension_without_anything_in_it_has_no_names() -> None:
    empty = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")]))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
        .add_extension(empty, critical=False)
        .sign(KEY, hashes.SHA256())
    )
    assert read_der(certificate.public_bytes(Encoding.DER)).label == "CN=a.example"


def test_names_times_and_serial_are_read() -> None:
    names = [x509.DNSName("A.example"), x509.DNSName("*.a.example"), x509.RFC822Name("a@example.org")]
    certificate = make(names=names, serial=2**128 + 7)
    facts = read_der(certificate.public_bytes(Encoding.DER))
    assert facts.names == ("a.example", "*.a.example")
    assert facts.label == "a.example"
    assert facts.serial == 2**128 + 7
    assert facts.begins == NOW.timestamp()
    assert facts.ends == (NOW + timedelta(days=90)).timestamp()
    assert read_pem("# some text\n" + certificate.public_bytes(Encoding.PEM).decode()) == facts


def test_without_dns_names_the_subject_is_the_label() -> None:
    facts = read_der(make().public_bytes(Encoding.DER))
    assert (facts.names, facts.label) == ((), "CN=a.example")


@pytest.mark.parametrize("year", [1950, 1999, 2000, 2049, 2050, 9999])
def test_every_century_is_read(year: int) -> None:
    moment = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    facts = read_der(make(begins=datetime(1950, 1, 1, tzinfo=UTC), ends=moment).public_bytes(Encoding.DER))
    assert facts.ends == moment.timestamp()


# A lone blank has a case of its own below: cryptography 38, Debian 12's, escapes it twice.
TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=0xD7FF), min_size=1, max_size=20).filter(
    lambda text: text != " "
)
KINDS = st.sampled_from(
    [
        NameOID.COMMON_NAME,
        NameOID.LOCALITY_NAME,
        NameOID.STATE_OR_PROVINCE_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.STREET_ADDRESS,
        NameOID.USER_ID,
    ]
)


@given(st.lists(st.tuples(KINDS, TEXT), min_size=1, max_size=4))
def test_names_are_written_as_rfc_4514_has_them(parts: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    name = x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])
    assert read_der(make(name).public_bytes(Encoding.DER)).subject == name.rfc4514_string()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('James "Jim" Smith, III', r"CN=James \"Jim\" Smith\, III"),  # RFC 4514 section 4
        ("Before\rAfter", "CN=Before\rAfter"),
        ("Lu\u010di\u0107", "CN=Lu\u010di\u0107"),
        ("#1", r"CN=\#1"),
        (" a ", r"CN=\ a\ "),
        (" ", r"CN=\ "),
        ("a+b=c;<d>\\", r"CN=a\+b=c\;\<d\>\\"),
        ("a\0b", r"CN=a\00b"),
    ],
)
def test_what_means_something_is_escaped(text: str, written: str) -> None:
    assert read_subject(x509.NameAttribute(NameOID.COMMON_NAME, text)) == written


def test_parts_stand_the_last_one_first_and_sets_are_joined() -> None:
    name = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "net")]),
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example")]),
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Sales"),
                    x509.NameAttribute(NameOID.COMMON_NAME, "J.  Smith"),
                ]
            ),
        ]
    )
    subject = read_der(make(name).public_bytes(Encoding.DER)).subject
    assert subject in ("OU=Sales+CN=J.  Smith,DC=example,DC=net", "CN=J.  Smith+OU=Sales,DC=example,DC=net")


@pytest.mark.parametrize("kind", [_ASN1Type.BMPString, _ASN1Type.UTF8String, _ASN1Type.UniversalString])
def test_every_string_type_is_read(kind: _ASN1Type) -> None:
    text = "Stra\u00dfe"
    encoded = {_ASN1Type.BMPString: "utf-16-be", _ASN1Type.UniversalString: "utf-32-be"}.get(kind, "utf-8")
    data = make(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * len(text.encode(encoded)))]))
    raw = data.public_bytes(Encoding.DER)
    old = bytes([0x0C, len(text.encode(encoded))]) + b"x" * len(text.encode(encoded))
    assert old in raw
    raw = raw.replace(old, bytes([kind.value, len(text.encode(encoded))]) + text.encode(encoded))
    assert read_der(raw).subject == f"CN={text}"


def test_what_has_no_short_name_is_a_number_with_the_value_in_hexadecimal() -> None:
    # RFC 4514 section 2.4
    assert read_subject(x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@b")) == "1.2.840.113549.1.9.1=#1603614062"


def test_what_is_not_what_its_type_says_is_written_in_hexadecimal() -> None:
    raw = make(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "M\u00fcller")])).public_bytes(Encoding.DER)
    old = b"\x0c\x07" + "M\u00fcller".encode()
    assert old in raw
    assert read_der(raw.replace(old, b"\x13" + old[1:])).subject == "CN=#13074dc3bc6c6c6572"


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 50, 200])
def test_a_certificate_that_is_cut_short_is_refused(cut: int) -> None:
    data = make().public_bytes(Encoding.DER)
    with pytest.raises(ValueError):
        read_der(data[:cut])


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_der(data)


def test_a_damaged_byte_is_refused_or_read_and_nothing_else() -> None:
    whole = make(names=[x509.DNSName("a.example")]).public_bytes(Encoding.DER)
    refused = 0
    for place, byte in enumerate(whole):
        for other in {0x00, 0x80, 0xFF, byte ^ 1}:
            try:
                read_der(whole[:place] + bytes([other]) + whole[place + 1 :])
            except ValueError:
                refused += 1
    assert refused > len(whole) / 10


def test_text_without_a_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="no certificate in PEM form"):
        read_pem("-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(ValueError):
        read_pem("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n")
