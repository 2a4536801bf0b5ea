from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.wire.chunked import CHUNK_LINE_LIMIT, CHUNKS_AT_ONCE, ChunkedBody, State
from appserver.wire.engine import Limits
from appserver.wire.semantics import Refusal

SMALL = Limits(field=20, fields=2, head=60, body=100)


def decode(pieces: Iterable[bytes], limits: Limits | None = None) -> tuple[bytes, bytes, bool]:
    """Content, what is left behind it, and whether the body has ended."""
    body, received, content = ChunkedBody(limits or Limits()), bytearray(), b""
    for piece in pieces:
        received += piece
        content += body.take(received)
    return content, bytes(received), body.ended


def one_by_one(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def refusal(data: bytes, limits: Limits | None = None) -> int | None:
    """The status that the bytes are refused with, at once and one by one alike."""
    found: list[int | None] = []
    for pieces in ([data], one_by_one(data)):
        try:
            decode(pieces, limits)
        except Refusal as error:
            found.append(error.status)
        else:
            found.append(None)
    assert found[0] == found[1]
    return found[0]


GOOD = [
    (b"0\r\n\r\n", b""),
    (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    (b"0000000000000003\r\nabc\r\n000\r\n\r\n", b"abc"),
    (b"3;name=value\r\nabc\r\n0;last\r\n\r\n", b"abc"),
    (b'3 \t;a="b;c" ; \xe4\r\nabc\r\n0\r\n\r\n', b"abc"),
    (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    (b"0\r\nX-Trailer: 1\r\nY:\r\n\r\n", b""),
]


@pytest.mark.parametrize(("data", "content"), GOOD)
def test_a_body_is_decoded_and_what_follows_is_left(data: bytes, content: bytes) -> None:
    assert decode([data + b"GET /next"]) == (content, b"GET /next", True)


@pytest.mark.parametrize(("data", "content"), GOOD)
def test_a_body_may_come_byte_by_byte(data: bytes, content: bytes) -> None:
    assert decode(one_by_one(data)) == (content, b"", True)


@pytest.mark.parametrize(("data", "content"), GOOD)
def test_a_body_that_is_not_whole_has_not_ended(data: bytes, content: bytes) -> None:
    for end in range(len(data)):
        taken, _, ended = decode([data[:end]])
        assert not ended
        assert content.startswith(taken)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b"+3\r\n",
        b"-3\r\n",
        b"0x3\r\n",
        b"1_0\r\n",
        b" 3\r\n",
        b"3 \r\n",
        b"3 3\r\n",
        b"3\n",
        b"3;a\n",
        b"3\r\r\n",
        b"00000000000000003\r\n",
        b"3;a\0b\r\n",
        b"3;a\x7f\r\n",
        b";a\r\n",
        b"3\r\nabcX",
        b"3\r\nabc\n",
        b"3\r\nabc\rX",
        b"3\r\nabcd\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n",
        b"0\r\na: 1\r\n folded\r\n\r\n",
        b"0\r\na : 1\r\n\r\n",
        b"0\r\n: 1\r\n\r\n",
        b"0\r\na: \0\r\n\r\n",
        b"0\r\na: 1\n",
        b"0\r\n\n",
    ],
)
def test_what_is_not_to_the_letter_is_refused(data: bytes) -> None:
    assert refusal(data) == 400


@pytest.mark.parametrize(("extra", "refused"), [(0, None), (1, 400)])
def test_a_size_line_has_a_limit(extra: int, refused: int | None) -> None:
    line = b"0;" + b"x" * (CHUNK_LINE_LIMIT - 2 + extra)
    assert refusal(line + b"\r\n\r\n") == refused
    assert refusal(line + b"x" * 10) == (400 if extra == 0 else refused)


@pytest.mark.parametrize(("sizes", "refused"), [([100], None), ([101], 413), ([60, 40], None), ([60, 41], 413)])
def test_the_bodys_limit_counts_what_is_announced(sizes: list[int], refused: int | None) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes)
    assert refusal(data, SMALL) == refused


@pytest.mark.parametrize(
    ("trailers", "refused"),
    [
        (b"a: 1\r\nb: 2\r\n", None),
        (b"a: 1\r\nb: 2\r\nc: 3\r\n", 431),
        (b"a: " + b"x" * 17 + b"\r\n", None),
        (b"a: " + b"x" * 18 + b"\r\n", 431),
    ],
)
def test_trailers_have_the_limits_of_a_head(trailers: bytes, refused: int | None) -> None:
    assert refusal(b"0\r\n" + trailers + b"\r\n", SMALL) == refused


def test_trailers_without_end_are_refused_while_they_come() -> None:
    assert refusal(b"0\r\na: " + b"x" * 1000, SMALL) == 431
    assert refusal(b"0\r\n" + b"a: 1\r\n" * 1000, SMALL) == 431


def test_the_states_are_passed_in_order() -> None:
    body = ChunkedBody(Limits())
    seen = []
    for piece in (b"", b"3\r\n", b"abc", b"\r\n", b"0\r\n", b"\r\n"):
        body.take(bytearray(piece))
        seen.append(body.state)
    assert seen == [State.SIZE, State.DATA, State.END, State.SIZE, State.TRAILERS, State.DONE]
    assert body.total == 3


def test_many_chunks_are_taken_in_several_calls() -> None:
    body, received = ChunkedBody(Limits()), bytearray(b"1\r\nx\r\n" * (2 * CHUNKS_AT_ONCE) + b"0\r\n\r\n")
    for _ in range(2):
        assert body.take(received) == b"x" * CHUNKS_AT_ONCE
        assert (body.more, body.ended) == (True, False)
    assert body.take(received) == b""
    assert (body.more, body.ended, bytes(received)) == (False, True, b"")


def test_a_chunk_that_is_not_whole_is_not_more() -> None:
    body = ChunkedBody(Limits())
    assert body.take(bytearray(b"1\r\nx\r\n" * CHUNKS_AT_ONCE)) == b"x" * CHUNKS_AT_ONCE
    assert not body.more
    assert body.take(bytearray(b"1\r")) == b""
    assert not body.more


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.lists(st.integers(0, 200)))
def test_any_content_in_any_cut_comes_out_as_it_went_in(chunks: list[bytes], places: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    edges = [0, *sorted(place for place in places if place < len(data)), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(edges)]
    assert decode(pieces) == (b"".join(chunks), b"", True)


@given(st.binary(max_size=100))
def test_any_bytes_are_content_or_a_refusal_the_same_in_every_cut(data: bytes) -> None:
    refusal(data, SMALL)
