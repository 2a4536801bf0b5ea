"""What the server wants to know of a certificate: its names, how long it is good, whose it is.

The ssl module tells this only of a peer's certificate that it has verified itself. So the dozen values are read from
the DER (X.690) directly; OpenSSL has judged, or will judge, everything else about the certificate.

    Certificate  ::=  SEQUENCE { tbsCertificate, signatureAlgorithm, signature }           RFC 5280 section 4.1
    tbsCertificate    version [0], serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo,
                      issuerUniqueID [1], subjectUniqueID [2], extensions [3]
"""

import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final, NamedTuple

PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_OID: Final = 0x06
_UTC_TIME: Final = 0x17
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_DNS_NAME: Final = 0x82  # GeneralName's choice [2]
_IP_ADDRESS: Final = 0x87  # and [7]
_FAMILIES: Final = {4: AF_INET, 16: AF_INET6}  # by the bytes of an address
_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")  # 2.5.29.17

# The descriptors that every implementation of RFC 4514 (section 3) knows. Others are written as numbers.
_DESCRIPTORS: Final = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}
_ENCODINGS: Final = {
    0x0C: "utf-8",
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString, as everybody reads it
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """Facts of a certificate.

    Attributes:
        names: Its DNS names (subjectAltName), in lower case; a wildcard begins with `*.`.
        addresses: Its IP addresses (subjectAltName).
        subject: Its subject's distinguished name (RFC 4514).
        serial: Its serial number.
        begins: When it begins to be good, in seconds since the epoch.
        ends: When it is no longer good, in seconds since the epoch.
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    subject: str
    serial: int
    begins: float
    ends: float

    @property
    def label(self) -> str:
        """What to call it in a record: its first name or address, else its subject."""
        return next(iter(self.hosts), self.subject)

    @property
    def hosts(self) -> tuple[str, ...]:
        """All that a client may have asked for to be shown it."""
        return self.names + self.addresses


class _Item(NamedTuple):
    """A value with its tag (X.690 section 8.1)."""

    tag: int
    content: bytes
    whole: bytes


def read_pem(text: str) -> Certificate:
    """Read the first certificate of a PEM file.

    Raises:
        ValueError: There is none, or it is malformed.
    """
    found = PEM.search(text)
    if found is None:
        raise ValueError("no certificate in PEM form")
    return read_der(ssl.PEM_cert_to_DER_cert(found[0].strip()))


def read_der(data: bytes) -> Certificate:
    """Read a certificate in DER form.

    Raises:
        ValueError: It is malformed.
    """
    try:
        return _read(data)
    except (IndexError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError("no certificate in DER form") from error


def _read(data: bytes) -> Certificate:
    body = next(_items(next(_items(data)).content))
    parts = _items(body.content)
    first = next(parts)
    serial = next(parts) if first.tag == _VERSION else first
    if body.tag != _SEQUENCE or serial.tag != _INTEGER:
        raise ValueError("no certificate in DER form")
    next(parts)  # the signature's algorithm
    next(parts)  # the issuer
    begins, ends = (_read_time(item) for item in _items(next(parts).content))
    subject = next(parts)
    extensions = next((part.content for part in parts if part.tag == _EXTENSIONS), b"")
    names = list(_find_names(extensions))
    return Certificate(
        names=tuple(name.content.decode("latin-1").lower() for name in names if name.tag == _DNS_NAME),
        addresses=tuple(
            inet_ntop(_FAMILIES[len(name.content)], name.content)
            for name in names
            if name.tag == _IP_ADDRESS and len(name.content) in _FAMILIES
        ),
        subject=_write_name(subject.content),
        serial=int.from_bytes(serial.content, "big"),
        begins=begins,
        ends=ends,
    )


def _items(data: bytes) -> Iterator[_Item]:
    """The values that stand one behind the other in `data`."""
    start = 0
    while start < len(data):
        tag, length, content = data[start], data[start + 1], start + 2
        if tag & 0x1F == 0x1F or length == 0x80:
            raise ValueError("a tag or a length that DER certificates do not have")
        if length > 0x80:
            content += length - 0x80
            length = int.from_bytes(data[start + 2 : content], "big")
        end = content + length
        if end > len(data):
            raise ValueError("cut short")
        yield _Item(tag, data[content:end], data[start:end])
        start = end


def _read_time(item: _Item) -> float:
    """RFC 5280 section 4.1.2.5: two digits of the year up to 2049, four from then on, always in UTC."""
    text = item.content.decode("ascii")
    if item.tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _find_names(extensions: bytes) -> Iterator[_Item]:
    """What the subjectAltName extension holds (RFC 5280 section 4.2.1.6)."""
    for extension in _items(next(_items(extensions)).content if extensions else b""):
        parts = list(_items(extension.content))  # the OID, critical or not, the value
        if parts[0].content == _SUBJECT_ALT_NAME and parts[-1].tag == _OCTETS:
            for names in islice(_items(parts[-1].content), 1):  # none where the extension is empty
                yield from _items(names.content)


# --- RFC 4514 ---------------------------------------------------------------------------------------------------------


def _write_name(data: bytes) -> str:
    """A distinguished name as text, the last part first (RFC 4514 section 2.1)."""
    parts = ["+".join(map(_write_attribute, _items(part.content))) for part in _items(data)]
    return ",".join(reversed(parts))


def _write_attribute(attribute: _Item) -> str:
    kind, value = _items(attribute.content)
    number = _read_oid(kind.content)
    name, encoding = _DESCRIPTORS.get(number), _ENCODINGS.get(value.tag)
    if name is not None and encoding is not None:
        with suppress(UnicodeDecodeError):  # umlauts in a PrintableString: there are authorities that do it
            return f"{name}={_escape(value.content.decode(encoding))}"
    return f"{name or number}=#{value.whole.hex()}"  # section 2.4


def _escape(text: str) -> str:
    """RFC 4514 section 2.4."""
    text = re.sub(r'(["+,;<>\\])', r"\\\1", text).replace("\0", r"\00")
    if text.startswith(("#", " ")):
        text = "\\" + text
    if text.endswith(" ") and text != r"\ ":
        text = text[:-1] + r"\ "
    return text


def _read_oid(data: bytes) -> str:
    """X.690 section 8.19: seven bits a byte, the first two numbers in one."""
    numbers, number = [], 0
    for byte in data:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))
