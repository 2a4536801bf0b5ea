"""Field blocks by hand, right and wrong (RFC 7541), and the fields of requests (RFC 9113 section 8.3)."""

from typing import Final, TypeAlias

from hpack import Encoder

Fields: TypeAlias = list[tuple[bytes, bytes]]

# Patterns of section 6: the bits before an integer, and how many are left for it.
_INDEXED: Final = (0x80, 7)
_INDEXING: Final = (0x40, 6)
_RESIZE: Final = (0x20, 5)
_NEVER: Final = (0x10, 4)
_WITHOUT: Final = (0x00, 4)

STATIC: Final = 61
"""Entries of the static table (RFC 7541 appendix A)."""
GET: Final = 2
ROOT: Final = 4
HTTP: Final = 6
AUTHORITY: Final = 1
"""Indexes of the static table."""


def integer(value: int, prefix: int, pattern: int = 0) -> bytes:
    """An integer behind a pattern of bits (section 5.1)."""
    most = 2**prefix - 1
    if value < most:
        return bytes((pattern | value,))
    value -= most
    rest = bytearray((pattern | most,))
    while value >= 0x80:
        rest.append(0x80 | value & 0x7F)
        value >>= 7
    rest.append(value)
    return bytes(rest)


def text(value: bytes) -> bytes:
    """A string literal as it is (section 5.2)."""
    return integer(len(value), 7) + value


def coded(value: bytes) -> bytes:
    """A string literal that says that it is in Huffman's code; the bytes are taken as they are."""
    return integer(len(value), 7, 0x80) + value


def indexed(index: int) -> bytes:
    """A field of a table (section 6.1)."""
    return integer(index, _INDEXED[1], _INDEXED[0])


def literal(name: bytes | int, value: bytes, *, indexing: bool = False, never: bool = False) -> bytes:
    """A literal field (section 6.2); an integer names a field of a table."""
    pattern, prefix = _INDEXING if indexing else _NEVER if never else _WITHOUT
    first = integer(name, prefix, pattern) if isinstance(name, int) else bytes((pattern,)) + text(name)
    return first + text(value)


def resize(size: int) -> bytes:
    """A change of the dynamic table's size (section 6.3)."""
    return integer(size, _RESIZE[1], _RESIZE[0])


def plain(fields: Fields) -> bytes:
    """A block that touches no dynamic table."""
    return b"".join(literal(name, value) for name, value in fields)


REQUEST: Final = indexed(GET) + indexed(HTTP) + indexed(ROOT) + literal(AUTHORITY, b"a.example")
"""A whole request, without the dynamic table."""


def encode(encoder: Encoder, fields: Fields) -> bytes:
    """A block as clients send it: what may be forbidden goes through too."""
    block: bytes = encoder.encode(fields, huffman=False)
    return block


def request(
    path: bytes = b"/",
    method: bytes = b"GET",
    *more: tuple[bytes, bytes],
    scheme: bytes = b"http",
    authority: bytes = b"a.example",
) -> Fields:
    """The fields of a request, in the order that clients send them in."""
    return [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path), *more]
