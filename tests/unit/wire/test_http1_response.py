import pytest

from appserver.wire.engine import Headers
from appserver.wire.http1_response import (
    CHUNKS,
    CLOSE,
    LENGTH,
    NO_BODY,
    UNKNOWN,
    make_interim,
    make_last_chunk,
    write_head,
)

FIVE = (b"content-length", b"5")
CHUNKED = (b"transfer-encoding", b"chunked")


def write(
    fields: Headers,
    *,
    status: int = 200,
    size: int = UNKNOWN,
    is_head: bool = False,
    is_old: bool = False,
    last: bool = False,
) -> tuple[str, bool, str, Headers]:
    out: list[bytes] = []
    framing, ends = write_head(out, status, fields, size, is_head, is_old, last)
    line, *lines = b"".join(out).removesuffix(b"\r\n\r\n").decode("latin-1").split("\r\n")
    return framing, ends, line, [(name.encode(), value.encode()) for name, value in (one.split(": ") for one in lines)]


@pytest.mark.parametrize(
    ("status", "fields", "size", "is_head", "is_old", "framing", "written"),
    [
        (200, [FIVE], UNKNOWN, False, False, LENGTH, [FIVE]),
        (200, [FIVE], 5, False, True, LENGTH, [FIVE]),
        (200, [], 5, False, False, LENGTH, [FIVE]),
        (200, [], 5, False, True, LENGTH, [FIVE]),
        (200, [], 0, False, False, LENGTH, [(b"content-length", b"0")]),
        (200, [], UNKNOWN, False, False, CHUNKS, [CHUNKED]),
        (200, [], UNKNOWN, False, True, CLOSE, []),
        (200, [FIVE], 0, True, False, NO_BODY, [FIVE]),
        (200, [], UNKNOWN, True, True, NO_BODY, []),
        (204, [FIVE], 0, False, False, NO_BODY, []),
        (304, [FIVE], 0, False, False, NO_BODY, [FIVE]),
        (304, [], UNKNOWN, False, False, NO_BODY, []),
    ],
)
def test_the_end_is_found_by_one_rule_whatever_the_response(
    status: int, fields: Headers, size: int, is_head: bool, is_old: bool, framing: str, written: Headers
) -> None:
    found = write(fields, status=status, size=size, is_head=is_head, is_old=is_old)
    assert (found[0], found[3]) == (framing, written)
    assert found[1] is False


@pytest.mark.parametrize(
    ("options", "last", "ends", "written"),
    [
        ([], False, False, []),
        ([], True, True, [b"close"]),
        ([b"upgrade"], False, False, [b"upgrade"]),
        ([b"upgrade", b"Keep-Alive"], True, True, [b"upgrade, close"]),
        ([b"x, Close"], False, True, [b"x, close"]),
        ([b"closed"], False, False, [b"closed"]),
    ],
)
def test_the_last_response_says_close_once_beside_what_else_it_lists(
    options: list[bytes], last: bool, ends: bool, written: list[bytes]
) -> None:
    fields = [(b"connection", option) for option in options]
    found = write([*fields, FIVE], last=last)
    assert (found[1], [value for name, value in found[3] if name == b"connection"]) == (ends, written)


def test_the_applications_own_fields_are_not_changed() -> None:
    fields = [(b"connection", b"keep-alive"), (b"x", b"1")]
    write(fields, last=True)
    assert fields == [(b"connection", b"keep-alive"), (b"x", b"1")]


@pytest.mark.parametrize(("status", "line"), [(404, "HTTP/1.1 404 Not Found"), (299, "HTTP/1.1 299 ")])
def test_a_status_without_a_name_keeps_its_space(status: int, line: str) -> None:
    # RFC 9112 section 4: the space before the reason is there though the reason is not.
    assert write([FIVE], status=status)[2] == line
    assert make_interim(status, []) == f"{line}\r\n\r\n".encode()


def test_an_interim_response_is_its_head() -> None:
    assert make_interim(103, [(b"link", b"</a>")]) == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


def test_trailers_stand_behind_the_last_chunk() -> None:
    assert make_last_chunk([(b"x", b"1"), (b"x", b"2")]) == b"0\r\nx: 1\r\nx: 2\r\n\r\n"
