"""RFC 7541, and RFC 9113 section 4.3: field blocks."""

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import (
    REQUEST,
    STATIC,
    coded,
    indexed,
    literal,
    plain,
    request,
    resize,
    text,
)
from tests.conformance.http2.frames import Code, Setting

TABLE = 4096
"""Bytes of the dynamic table, before settings say otherwise."""

OVERHEAD = 32
"""What an entry counts beside its name and value (section 4.1)."""

NEWEST = STATIC + 1
HUFFMAN_A = 0b00011
"""The code of `a`, in five bits."""


def ask(client: Client, block: bytes) -> list[list[str]]:
    """Send a request with this block on the next stream; the fields that the application gets, behind Host."""
    stream = client.next_stream
    client.send(frames.headers(stream, block))
    headers: list[list[str]] = client.expect_answer(stream).told["headers"]
    return headers[1:]


def refuse(client: Client, block: bytes) -> None:
    """Send such a request: a connection error of type COMPRESSION_ERROR (RFC 9113 section 4.3)."""
    stream = client.next_stream
    client.send(frames.headers(stream, block))
    client.expect_goaway(Code.COMPRESSION_ERROR)


# What is right


@pytest.mark.parametrize("indexing", [False, True])
@pytest.mark.parametrize("never", [False, True])
def test_literals(client: Client, indexing: bool, never: bool) -> None:
    """Sections 6.2.1 to 6.2.3: with a new name and with an indexed one."""
    block = REQUEST + literal(b"x-a", b"1", indexing=indexing, never=never)
    block += literal(58, b"agent", indexing=indexing, never=never)  # user-agent
    assert ask(client, block) == [["x-a", "1"], ["user-agent", "agent"]]


def test_the_dynamic_table(client: Client) -> None:
    """Sections 2.3.2, 2.3.3: the newest entry has the lowest index; it stays for the next request."""
    assert ask(client, REQUEST + literal(b"x-a", b"1", indexing=True) + literal(b"x-b", b"2", indexing=True))
    assert ask(client, REQUEST + indexed(NEWEST) + indexed(NEWEST + 1)) == [["x-b", "2"], ["x-a", "1"]]
    assert ask(client, REQUEST + literal(NEWEST, b"3")) == [["x-b", "3"]]


def test_a_literal_that_is_not_for_the_table(client: Client) -> None:
    """Section 6.2.2: the entry before it keeps its index."""
    block = REQUEST + literal(b"x-a", b"1", indexing=True) + literal(b"x-b", b"2") + indexed(NEWEST)
    assert ask(client, block) == [["x-a", "1"], ["x-b", "2"], ["x-a", "1"]]


def test_entries_are_evicted(client: Client) -> None:
    """Section 4.4: the oldest make place."""
    value = b"v" * (TABLE // 2 - OVERHEAD - 3)
    block = REQUEST + b"".join(literal(name, value, indexing=True) for name in (b"x-a", b"x-b", b"x-c"))
    assert ask(client, block + indexed(NEWEST + 1))[-1][0] == "x-b"
    refuse(client, REQUEST + indexed(NEWEST + 2))


def test_an_entry_larger_than_the_table_empties_it(client: Client) -> None:
    """Section 4.4: which is no error."""
    ask(client, REQUEST + literal(b"x-a", b"1", indexing=True))
    ask(client, REQUEST + literal(b"x-b", b"v" * TABLE, indexing=True))
    refuse(client, REQUEST + indexed(NEWEST))


def test_a_name_from_an_entry_that_is_evicted_for_it(client: Client) -> None:
    """Section 4.4."""
    ask(client, REQUEST + literal(b"x-a", b"v" * (TABLE - OVERHEAD - 3), indexing=True))
    block = REQUEST + literal(NEWEST, b"w" * (TABLE - OVERHEAD - 3), indexing=True)
    assert ask(client, block)[0][0] == "x-a"


@pytest.mark.parametrize("size", [0, 100, TABLE])
def test_a_change_of_the_tables_size(client: Client, size: int) -> None:
    """Sections 4.2, 6.3: at the beginning of a block, up to what the server's settings allow."""
    ask(client, resize(size) + REQUEST)
    client.expect_alive()


def test_two_changes_of_the_tables_size(client: Client) -> None:
    """Section 4.2: the smallest one, then the last one."""
    ask(client, REQUEST + literal(b"x-a", b"1", indexing=True))
    ask(client, resize(0) + resize(TABLE) + REQUEST)
    refuse(client, REQUEST + indexed(NEWEST))


def test_strings_in_huffmans_code(client: Client) -> None:
    """Section 5.2: this client's encoder uses it here."""
    stream = client.next_stream
    block = client.encoder.encode(
        request(b"/huffman", b"GET", (b"x-a", bytes(range(0x20, 0x7F)).strip())), huffman=True
    )
    client.send(frames.headers(stream, block))
    told = client.expect_answer(stream).told
    assert (told["path"], told["headers"][1][1]) == ("/huffman", bytes(range(0x21, 0x7F)).decode())


def test_huffmans_padding(client: Client) -> None:
    """Section 5.2: the beginning of EOS, which is ones."""
    block = REQUEST + b"\x00" + text(b"x-a") + coded(bytes((HUFFMAN_A << 3 | 0b111,)))
    assert ask(client, block) == [["x-a", "a"]]


@pytest.mark.parametrize("spare", [0, 1, 3])
def test_integers_with_zeros_in_front(client: Client, spare: int) -> None:
    """Section 5.1: longer than they need to be, which is no error."""
    name = b"x" * 130
    long = bytes((127, (len(name) - 127) | 0x80)) + b"\x80" * spare + b"\x00"
    assert ask(client, REQUEST + b"\x00" + long + name + text(b"1")) == [[name.decode(), "1"]]


# What is wrong


@pytest.mark.parametrize(
    "field",
    [indexed(0), indexed(NEWEST), indexed(NEWEST + 100), indexed(2**20), literal(NEWEST, b"x"), literal(2**20, b"x")],
    ids=["zero", "first-unused", "high", "enormous", "name", "enormous-name"],
)
def test_an_index_that_is_none(client: Client, field: bytes) -> None:
    """Sections 2.3.3, 6.1: a decoding error."""
    refuse(client, REQUEST + field)


@pytest.mark.parametrize("first", [b"\x40\x80", b"\x80"], ids=["literal", "indexed"])
def test_index_zero_in_an_empty_block(client: Client, first: bytes) -> None:
    """Section 6.1."""
    refuse(client, first)


@pytest.mark.parametrize(
    "code",
    [
        bytes((HUFFMAN_A << 3,)),  # zeros
        bytes((HUFFMAN_A << 3 | 0b101,)),
        bytes((HUFFMAN_A << 3 | 0b111, 0xFF)),  # 11 bits of padding
        bytes((0xFF,)),  # 8 bits of padding and nothing else
        b"\xff\xff\xff\xff",  # EOS, and two bits of padding
        b"\x1f\xff\xff\xff\xff",
    ],
    ids=["zeros", "mixed", "eleven-bits", "eight-bits", "EOS", "EOS-behind-a"],
)
@pytest.mark.parametrize("where", ["name", "value"])
def test_huffmans_code_with_bad_padding(client: Client, code: bytes, where: str) -> None:
    """Section 5.2: other bits than EOS begins with, more than seven of them, or all of EOS."""
    field = coded(code) + text(b"1") if where == "name" else text(b"x-a") + coded(code)
    refuse(client, REQUEST + b"\x00" + field)


@pytest.mark.parametrize("size", [TABLE + 1, 2**20, 2**31])
def test_a_table_over_the_settings(client: Client, size: int) -> None:
    """Sections 4.2, 6.3."""
    limit = client.ledger.settings.get(Setting.HEADER_TABLE_SIZE, TABLE)
    refuse(client, resize(max(size, limit + 1)) + REQUEST)


@pytest.mark.parametrize("place", [1, len(REQUEST)], ids=["within", "last"])
def test_a_change_of_the_tables_size_behind_a_field(client: Client, place: int) -> None:
    """Section 4.2: only at the beginning of a block."""
    refuse(client, REQUEST[:place] + resize(100) + REQUEST[place:])


@pytest.mark.parametrize(
    "tail",
    [
        b"\xff",
        b"\xff\xff",
        b"\x40",
        b"\x00\x03x-",
        b"\x00\x03x-a",
        b"\x00\x03x-a\x05",
        b"\x00\x03x-a\x05val",
        b"\x00\x7f",
        b"\x3f",
    ],
    ids=repr,
)
def test_a_block_that_is_cut_short(client: Client, tail: bytes) -> None:
    """RFC 9113 section 4.3: it cannot be decoded."""
    refuse(client, REQUEST + tail)


@pytest.mark.parametrize(
    "number",
    [
        b"\xff" * 12,
        b"\xff" * 6 + b"\x00",
        b"\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        b"\xff\xff\xff\xff\xff\x0f",
    ],
    ids=["endless", "42-bits", "zeros", "32-bits"],
)
@pytest.mark.parametrize("where", ["index", "length", "size"])
def test_integers_that_overflow(client: Client, number: bytes, where: str) -> None:
    """Section 5.1: must not be taken for smaller ones."""
    if where == "index":
        block = REQUEST + number
    elif where == "length":
        block = REQUEST + b"\x00\x7f" + number[1:] + b"x"
    else:
        block = b"\x3f" + number[1:] + REQUEST
    refuse(client, block)


def test_a_bad_block_in_trailers(client: Client) -> None:
    """RFC 9113 section 4.3: as in a head."""
    stream = client.post(b"/", b"body", end=False)
    client.send(frames.headers(stream, indexed(0)))
    client.expect_goaway(Code.COMPRESSION_ERROR)


def test_a_bad_block_in_continuation(client: Client) -> None:
    """RFC 9113 section 4.3."""
    client.send(frames.headers(1, REQUEST, whole=False), frames.continuation(1, indexed(0)))
    client.expect_goaway(Code.COMPRESSION_ERROR)


def test_a_bad_block_on_a_refused_stream(client: Client) -> None:
    """RFC 9113 section 4.3: blocks are decoded even where the stream is of no interest."""
    limit = client.ledger.settings[Setting.MAX_CONCURRENT_STREAMS]
    for _ in range(limit):
        client.ask(b"/hold")
    stream = client.next_stream
    client.send(frames.headers(stream, REQUEST + indexed(0)))
    client.expect_goaway(Code.COMPRESSION_ERROR)


@pytest.mark.parametrize("how", ["refused", "malformed", "too-large", "trailers"])
def test_the_table_of_streams_that_come_to_nothing(client: Client, how: str) -> None:
    """RFC 9113 section 4.3: what they put into the table is there for the next."""
    new = literal(b"x-a", b"1", indexing=True)
    if how == "refused":
        for _ in range(client.ledger.settings[Setting.MAX_CONCURRENT_STREAMS]):
            client.ask(b"/hold")
    stream = client.next_stream
    if how == "malformed":
        client.send(frames.headers(stream, plain(request()[1:]) + new))
    elif how == "too-large":
        client.send(frames.headers(stream, REQUEST + literal(b"x-big", b"v" * 10_000) + new))
    elif how == "trailers":
        client.send(frames.headers(stream, REQUEST, end=False), frames.headers(stream, new))
    else:
        client.send(frames.headers(stream, REQUEST + new))
    client.sync()
    if how == "refused":
        client.send(*(frames.rst_stream(1 + 2 * number) for number in range(3)))
    assert ask(client, REQUEST + indexed(NEWEST)) == [["x-a", "1"]]


def test_sensitive_fields_are_taken(client: Client) -> None:
    """Section 6.2.3: never indexed."""
    assert ask(client, REQUEST + literal(b"authorization", b"secret", never=True)) == [["authorization", "secret"]]


def test_every_entry_of_the_static_table(client: Client) -> None:
    """Appendix A: those that may stand in a request."""
    # Not the pseudo-fields, and none whose meaning the server itself looks at.
    indexes = [index for index in range(15, STATIC + 1) if index not in (28, 32, 35, 38, 57)]
    block = REQUEST + b"".join(literal(index, b"1") for index in indexes)
    assert len(ask(client, block)) == len(indexes)
