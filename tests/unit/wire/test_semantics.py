import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.wire.engine import Headers, Limits
from appserver.wire.semantics import CHUNKED, Refusal, Request, check_head, check_partial_head, check_request

SMALL = Limits(request_line=40, field=50, fields=3, head=130, body=1000)
HOST = (b"host", b"a.example")


def check(
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    version: bytes = b"1.1",
    limits: Limits | None = None,
) -> Request:
    """Check a request with a Host and these fields."""
    return check_request(method, target, [HOST, *fields], version, limits or Limits())


def status(call: Any, *arguments: Any, **options: Any) -> int | None:
    """The status of the refusal; None where the input passed."""
    try:
        call(*arguments, **options)
    except Refusal as error:
        refusal = error
    else:
        return None
    # The reason goes into the log and the answer: nothing of the client's may stand in it raw.
    assert refusal.reason.isascii()
    assert refusal.reason.isprintable()
    return refusal.status


# The bytes of a head


@pytest.mark.parametrize(
    ("head", "refused"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nA: \xe4\t\x80\r\n\r\n", None),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-LENGTH: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: content-length: 1, 1\r\n\r\n", None),
    ],
)
def test_a_head_is_checked_byte_for_byte(head: bytes, refused: int | None) -> None:
    assert status(check_head, head, Limits()) == refused


@pytest.mark.parametrize("control", [bytes([code]) for code in range(0x20) if code not in b"\t\r\n"])
def test_no_control_character_passes(control: bytes) -> None:
    assert status(check_head, b"GET / HTTP/1.1\r\nA: b%bc\r\n\r\n" % control, Limits()) == 400


def head_of(*, line: int = 20, field: int | None = None, fields: int = 0) -> bytes:
    """A head whose request line, one field, or number of fields is as given."""
    lines = [b"GET /" + b"x" * (line - 14) + b" HTTP/1.1"]
    lines += [b"A: " + b"x" * (field - 3)] if field else []
    lines += [b"A: b"] * fields
    return b"\r\n".join(lines) + b"\r\n\r\n"


LIMIT_CASES: list[tuple[dict[str, int], int | None]] = [
    ({"line": 40}, None),
    ({"line": 41}, 414),
    ({"field": 50}, None),
    ({"field": 51}, 431),
    ({"fields": 3}, None),
    ({"fields": 4}, 431),
]


@pytest.mark.parametrize(("shape", "refused"), LIMIT_CASES)
def test_a_limit_may_be_reached_and_not_passed(shape: dict[str, int], refused: int | None) -> None:
    assert status(check_head, head_of(**shape), SMALL) == refused


def test_the_head_as_a_whole_has_a_limit() -> None:
    room = SMALL.head - len(b"A: \r\n") * 3 - len(b"GET / HTTP/1.1\r\n\r\n")
    for extra, refused in ((0, None), (1, 431)):
        sizes = (room // 3, room // 3, room - room // 3 * 2 + extra)
        head = b"GET / HTTP/1.1\r\n" + b"".join(b"A: %b\r\n" % (b"x" * size) for size in sizes) + b"\r\n"
        assert len(head) == SMALL.head + extra
        assert status(check_head, head, SMALL) == refused


# What has arrived of a head


def feed(head: bytes, limits: Limits) -> int | None:
    """The refusal of a head that comes byte by byte, up to its blank line."""
    received = bytearray()
    for byte in head.removesuffix(b"\r\n"):
        received.append(byte)
        found = status(check_partial_head, received, len(received) - 1, limits)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize(("shape", "refused"), LIMIT_CASES)
def test_a_limit_holds_for_a_head_that_comes_byte_by_byte(shape: dict[str, int], refused: int | None) -> None:
    assert feed(head_of(**shape), SMALL) == refused


@pytest.mark.parametrize(
    ("received", "refused"),
    [
        (b"G", None),
        (b"GET / HTTP/1.1\r", None),
        (b"GET / HTTP/1.1\r\n", None),
        (b"GET / HTTP/1.1\r\nA", None),
        (b"\x16", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\n", 400),
        (b"GET / \rHTTP", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n\n", 400),
    ],
)
def test_what_cannot_become_a_head_is_refused_at_once(received: bytes, refused: int | None) -> None:
    assert status(check_partial_head, bytearray(received), 0, Limits()) == refused
    assert feed(received + b"\r\n", Limits()) == refused


@given(st.binary(min_size=1).filter(lambda head: b"\r\n\r\n" not in head))
def test_byte_by_byte_and_at_once_agree_on_what_is_no_head(received: bytes) -> None:
    whole = status(check_partial_head, bytearray(received), 0, SMALL)
    if whole is not None:
        assert feed(received + b"\r\n", SMALL) is not None


@given(st.binary(min_size=1, max_size=200))
def test_a_good_head_is_never_refused_while_it_comes(noise: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nA: %b\r\n\r\n" % noise
    if head.count(b"\r\n\r\n") == 1 and status(check_head, head, SMALL) is None:
        assert feed(head, SMALL) is None


# A parsed request


def test_a_plain_request_passes_as_it_came() -> None:
    assert check((b"x", b"1"), target=b"/p?q") == Request(
        "GET", b"/p?q", [HOST, (b"x", b"1")], "1.1", 0, expects=False, last=False, upgrade=False
    )


@pytest.mark.parametrize(
    ("version", "refused"), [(b"1.1", None), (b"1.0", None), (b"2.0", 505), (b"0.9", 505), (b"1.2", 505), (b"3", 505)]
)
def test_versions(version: bytes, refused: int | None) -> None:
    assert status(check, version=version) == refused


def test_the_preface_of_http_2_is_named() -> None:
    with pytest.raises(Refusal) as caught:
        check_request(b"PRI", b"*", [], b"2.0", Limits())
    assert caught.value.status == 505
    assert "HTTP/2" in caught.value.reason


@pytest.mark.parametrize(
    ("method", "refused"),
    [
        (b"GET", None),
        (b"QUERY", None),
        (b"M-SEARCH", None),
        (b"!#$%", None),
        (b"get", 501),
        (b"Get", 501),
        (b"CONNECT", 501),
    ],
)
def test_methods(method: bytes, refused: int | None) -> None:
    assert status(check, method=method) == refused


@pytest.mark.parametrize(
    ("hosts", "version", "refused"),
    [
        ([], b"1.1", 400),
        ([], b"1.0", None),
        ([b"a", b"a"], b"1.1", 400),
        ([b"a", b"b"], b"1.0", 400),
        ([b""], b"1.1", None),
        ([b"a.example:8000"], b"1.1", None),
        ([b"a.example:"], b"1.1", None),
        ([b"[2001:db8::1]:80"], b"1.1", None),
        ([b"xn--4ca.example"], b"1.1", None),
        ([b"a/b"], b"1.1", 400),
        ([b"a?b"], b"1.1", 400),
        ([b"a#b"], b"1.1", 400),
        ([b"user@a"], b"1.1", 400),
        ([b"a b"], b"1.1", 400),
        ([b"a,b"], b"1.1", None),
        ([b"a:b"], b"1.1", 400),
        ([b"a:123456"], b"1.1", 400),
        ([b"[::1"], b"1.1", 400),
        ([b"\xe4.example"], b"1.1", 400),
    ],
)
def test_hosts(hosts: list[bytes], version: bytes, refused: int | None) -> None:
    headers: Headers = [(b"host", host) for host in hosts]
    assert status(check_request, b"GET", b"/", headers, version, Limits()) == refused


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"1", 1), (b"0010", 10), (b"9223372036854775807", 2**63 - 1)],
)
def test_lengths(value: bytes, length: int) -> None:
    assert check((b"content-length", value)).length == length


@pytest.mark.parametrize(
    "value",
    [b"", b"+1", b"-1", b"1_0", b"0x1", b"1.0", b"1 1", b"1,1", b"9223372036854775808", b"0" * 20, b"\xb2", b"one"],
)
def test_lengths_that_are_none(value: bytes) -> None:
    assert status(check, (b"content-length", value)) == 400


def test_two_lengths_are_refused_even_when_equal() -> None:
    assert status(check, (b"content-length", b"1"), (b"content-length", b"1")) == 400


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([b"chunked"], None),
        ([b"CHUNKED"], None),
        ([b"xchunked"], 501),
        ([b"chunked, identity"], 501),
        ([b"gzip, chunked"], 501),
        ([b"identity"], 501),
        ([b""], 501),
        ([b"chunked", b"chunked"], 400),
        ([b"chunked;a=b"], 501),
    ],
)
def test_transfer_codings(values: list[bytes], refused: int | None) -> None:
    assert status(check, *((b"transfer-encoding", value) for value in values)) == refused


def test_a_chunked_body_has_the_length_that_its_framing_tells() -> None:
    assert check((b"transfer-encoding", b"chunked")).length == CHUNKED


@pytest.mark.parametrize("order", [1, -1])
def test_a_length_beside_a_transfer_coding_is_refused(order: int) -> None:
    fields = [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")][::order]
    assert status(check, *fields) == 400


def test_a_transfer_coding_in_http_1_0_is_refused() -> None:
    assert status(check, (b"transfer-encoding", b"chunked"), version=b"1.0") == 400


@pytest.mark.parametrize(("length", "refused"), [(b"1000", None), (b"1001", 413)])
def test_a_body_over_the_limit_is_refused_by_its_length(length: bytes, refused: int | None) -> None:
    assert status(check, (b"content-length", length), limits=SMALL) == refused


@pytest.mark.parametrize(
    ("fields", "version", "expects"),
    [
        ([(b"content-length", b"1"), (b"expect", b"100-continue")], b"1.1", True),
        ([(b"content-length", b"1"), (b"expect", b"100-CONTINUE")], b"1.1", True),
        ([(b"transfer-encoding", b"chunked"), (b"expect", b"100-continue")], b"1.1", True),
        ([(b"content-length", b"0"), (b"expect", b"100-continue")], b"1.1", False),
        ([(b"expect", b"100-continue")], b"1.1", False),
        ([(b"content-length", b"1"), (b"expect", b"100-continue")], b"1.0", False),
    ],
)
def test_who_waits_for_100_continue(fields: Headers, version: bytes, expects: bool) -> None:
    assert check(*fields, version=version).expects is expects


@pytest.mark.parametrize("value", [b"", b"200-ok", b"100-continue, x"])
def test_no_other_expectation_is_met(value: bytes) -> None:
    assert status(check, (b"expect", value)) == 417


@pytest.mark.parametrize(
    ("value", "last"),
    [
        (b"close", True),
        (b"Close", True),
        (b"keep-alive , close", True),
        (b"keep-alive", False),
        (b"", False),
        (b"closed", False),
        (b"upgrade", False),
    ],
)
def test_who_wants_the_connection_closed(value: bytes, last: bool) -> None:
    assert check((b"connection", value)).last is last


@pytest.mark.parametrize(
    ("target", "taken", "host"),
    [
        (b"/", b"/", b"a.example"),
        (b"//x", b"//x", b"a.example"),
        (b"http://b.example", b"/", b"b.example"),
        (b"http://b.example/", b"/", b"b.example"),
        (b"HTTP://b.example:81/p?q", b"/p?q", b"b.example:81"),
        (b"https://[::1]?q", b"/?q", b"[::1]"),
    ],
)
def test_targets_come_down_to_origin_form_and_their_authority_is_the_host(
    target: bytes, taken: bytes, host: bytes
) -> None:
    request = check(target=target)
    assert (request.target, dict(request.headers)[b"host"]) == (taken, host)
    assert [name for name, _ in request.headers] == [b"host"]


def test_an_authority_stands_in_for_a_host_that_http_1_0_may_leave_out() -> None:
    request = check_request(b"GET", b"http://b.example/", [(b"x", b"1")], b"1.0", Limits())
    assert request.headers == [(b"host", b"b.example"), (b"x", b"1")]


@pytest.mark.parametrize("target", [b"*", b"http://a.example"])
def test_options_may_ask_for_the_server_as_a_whole(target: bytes) -> None:
    assert check(method=b"OPTIONS", target=target).target == b"*"


@pytest.mark.parametrize(
    "target",
    [
        b"*",
        b"x",
        b"a.example:80",
        b"/a#b",
        b"http://",
        b"http:///x",
        b"http://user@a/",
        b"http://:80/",
        b"http://a/#f",
        b"ftp://a/",
        b"http:/a",
        b"?q",
        b"",
    ],
)
def test_targets_in_no_form_are_refused(target: bytes) -> None:
    assert status(check, target=target) == 400


@given(st.binary(max_size=40), st.binary(max_size=40), st.lists(st.tuples(st.binary(), st.binary()), max_size=4))
def test_whatever_a_parser_lets_through_is_a_request_or_a_refusal(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    try:
        request = check_request(method, target, [HOST, *fields], b"1.1", Limits())
    except Refusal:
        return
    assert request.target == b"*" or request.target.startswith(b"/")
    assert re.fullmatch(rb"[^#]*", request.target, re.DOTALL)
    assert request.length >= CHUNKED
