from collections.abc import Sequence
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.wire import http2_head
from appserver.wire.engine import Limits
from appserver.wire.http2_head import UNKNOWN_LENGTH, HeadReader, Malformed, check_trailers, read_request
from appserver.wire.semantics import Refusal, Request

Fields: TypeAlias = list[tuple[bytes, bytes]]

LINE: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/")]


def line(
    *, method: bytes = b"GET", scheme: bytes = b"http", authority: bytes = b"a.example", path: bytes = b"/"
) -> Fields:
    return [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]


def without(name: bytes) -> Fields:
    return [field for field in LINE if field[0] != name]


def read(fields: Sequence[tuple[bytes, bytes]], limits: Limits | None = None, *, end: bool = True) -> Request:
    return read_request(fields, limits or Limits(), end=end)


# What is right


def test_a_request_has_the_form_that_http_1_gives() -> None:
    request = read([*line(path=b"/p?q"), (b"accept", b"*/*"), (b"x-a", b"")])
    headers = [(b"host", b"a.example"), (b"accept", b"*/*"), (b"x-a", b"")]
    assert request == Request("GET", b"/p?q", headers, "2", 0, False, False, False)


def test_pseudo_fields_may_come_in_any_order() -> None:
    assert read(LINE[::-1]).headers == [(b"host", b"a.example")]


@pytest.mark.parametrize("host", [b"a.example", b"A.EXAMPLE"])
def test_host_may_come_beside_the_authority_and_then_stands_first_and_once(host: bytes) -> None:
    assert read([*LINE, (b"accept", b"*/*"), (b"host", host)]).headers == [(b"host", b"a.example"), (b"accept", b"*/*")]


def test_host_takes_the_place_of_the_authority() -> None:
    # RFC 9113 section 8.3.1: what a proxy makes of an HTTP/1.1 request.
    assert read([*without(b":authority"), (b"host", b"b.example:80")]).headers == [(b"host", b"b.example:80")]


def test_cookies_in_crumbs_become_one_field() -> None:
    # RFC 9113 section 8.2.3
    headers = read([*LINE, (b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2"), (b"cookie", b"")]).headers
    assert headers == [(b"host", b"a.example"), (b"accept", b"*/*"), (b"cookie", b"a=1; b=2; ")]


@pytest.mark.parametrize(
    ("end", "length", "size"), [(True, None, 0), (True, b"0", 0), (False, None, UNKNOWN_LENGTH), (False, b"7", 7)]
)
def test_the_length_of_a_body(end: bool, length: bytes | None, size: int) -> None:
    fields = [] if length is None else [(b"content-length", length)]
    assert read([*LINE, *fields], end=end).length == size


@pytest.mark.parametrize("end", [True, False])
def test_nobody_waits_for_100_continue_with_nothing_to_send(end: bool) -> None:
    assert read([*LINE, (b"expect", b"100-Continue")], end=end).expects is not end


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"OPTIONS", b"*"),
        (b"OPTIONS", b"/"),
        (b"BREW", b"/"),
        (b"M-SEARCH", b"/"),
        (b"GET", b"//x"),
        (b"GET", b"/%zz?a?b"),
    ],
)
def test_lines_that_are_right(method: bytes, path: bytes) -> None:
    assert read(line(method=method, path=path))[:2] == (method.decode(), path)


@pytest.mark.parametrize("scheme", [b"http", b"https", b"HTTP", b"coap+tcp"])
def test_any_scheme_that_is_one(scheme: bytes) -> None:
    assert read(line(scheme=scheme)).target == b"/"


def test_te_may_say_trailers() -> None:
    assert (b"te", b"trailers") in read([*LINE, (b"te", b"trailers")]).headers


@pytest.mark.parametrize("value", [b"a b", b"a\tb", b"\xe4\xff", b"", b"~"])
def test_values_that_are_right(value: bytes) -> None:
    assert read([*LINE, (b"x-a", value)]).headers[1] == (b"x-a", value)


# What is malformed


@pytest.mark.parametrize("name", [b":method", b":scheme", b":authority", b":path"])
def test_a_pseudo_field_that_is_missing_or_comes_twice(name: bytes) -> None:
    for fields in (without(name), [*LINE, (name, dict(LINE)[name])]):
        with pytest.raises(Malformed):
            read(fields)


@pytest.mark.parametrize(
    "fields",
    [
        [*LINE, (b":status", b"200")],
        [*LINE, (b":protocol", b"websocket")],
        [*LINE, (b":", b"")],
        *[[field, *LINE] for field in [(b"accept", b"*/*"), (b"host", b"a.example"), (b"cookie", b"a=1")]],
        [*LINE[:3], (b"te", b"trailers"), LINE[3]],
        [*LINE, (b"host", b"b.example")],
        [*LINE, (b"host", b"a.example"), (b"host", b"a.example")],
        [*without(b":authority"), (b"host", b"")],
        [*LINE, (b"host", b"")],
    ],
)
def test_pseudo_fields_and_hosts_that_are_wrong(fields: Fields) -> None:
    with pytest.raises(Malformed):
        read(fields)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("method", [b"", b"GET ", b"G T", b"G\0T", b"(GET)", b"GET\xe9"]),
        ("scheme", [b"", b"1http", b"http:", b"ht tp", b"\xe4"]),
        (
            "authority",
            [b"", b"user@a.example", b"a.example/", b"a b", b"a.example:port", b"a\0", b"\xe4.example", b"a#b"],
        ),
        ("path", [b"", b"*", b"path", b"http://a.example/", b"/a b", b"/a#b", b"/a\0", b"/\x7f", b"/\xe4", b"?q"]),
    ],
)
def test_parts_of_the_line_that_are_wrong(part: str, values: list[bytes]) -> None:
    for value in values:
        with pytest.raises(Malformed):
            read(line(**{part: value}))


@pytest.mark.parametrize("name", [b"", b"Accept", b"x a", b"x:a", b"x\0", b"x\xe4", b"x(", b"accept ", b"x\n"])
def test_names_that_are_wrong(name: bytes) -> None:
    with pytest.raises(Malformed, match="token"):
        read([*LINE, (name, b"value")])
    with pytest.raises(Malformed, match="token"):
        check_trailers([(name, b"value")], Limits())


@pytest.mark.parametrize(
    "value", [b" a", b"a ", b"\ta", b"a\t", b" ", b"a\nb", b"a\rb", b"a\0b", b"\0", b"\x7f", b"\x1f"]
)
@pytest.mark.parametrize("name", [b"x-a", b"cookie"])
def test_values_that_are_wrong(name: bytes, value: bytes) -> None:
    for fields in ([(name, value)], [(name, value), (b"x-b", b"")], [(b"x-b", b""), (name, value)]):
        with pytest.raises(Malformed):
            read([*LINE, *fields])
        with pytest.raises(Malformed):
            check_trailers(fields, Limits())


@pytest.mark.parametrize("name", [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"])
def test_fields_of_http_1_connections(name: bytes) -> None:
    with pytest.raises(Malformed):
        read([*LINE, (name, b"close")])
    with pytest.raises(Malformed):
        check_trailers([(name, b"close")], Limits())


@pytest.mark.parametrize("value", [b"gzip", b"trailers, gzip", b""])
def test_te_may_say_nothing_else(value: bytes) -> None:
    with pytest.raises(Malformed):
        read([*LINE, (b"te", value)])


@pytest.mark.parametrize(
    "lengths", [[b"-1"], [b"+1"], [b"1 1"], [b""], [b"1, 1"], [b"1", b"1"], [b"%d" % 2**63], [b"0x1"]]
)
def test_lengths_that_are_none(lengths: list[bytes]) -> None:
    with pytest.raises(Malformed):
        read([*LINE, *[(b"content-length", length) for length in lengths]], end=False)


def test_a_length_without_a_body() -> None:
    with pytest.raises(Malformed):
        read([*LINE, (b"content-length", b"1")], end=True)


@pytest.mark.parametrize("name", [b":path", b":status", b":x"])
def test_trailers_have_no_pseudo_fields(name: bytes) -> None:
    with pytest.raises(Malformed):
        check_trailers([(name, b"/")], Limits())


# What is well formed and refused


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b":method", b"CONNECT"), (b":authority", b"a.example:443")], 501),
        (line(method=b"get"), 501),
        ([*LINE, (b"expect", b"200-ok")], 417),
        ([*LINE, (b"content-length", b"1001")], 413),
        (line(path=b"/" + b"a" * 200), 414),
        ([*LINE, (b"x-long", b"a" * 200)], 431),
        ([*LINE, *[(b"x-a", b"a" * 90)] * 5], 431),
        ([*LINE, *[(b"x-a", b"")] * 11], 431),
    ],
)
def test_requests_that_are_refused(fields: Fields, status: int) -> None:
    limits = Limits(request_line=200, field=200, fields=10, head=500, body=1_000)
    with pytest.raises(Refusal) as refusal:
        read(fields, limits, end=False)
    assert refusal.value.status == status


@pytest.mark.parametrize(
    "fields",
    [[(b":scheme", b"http")], [(b":path", b"/")], [(b":scheme", b"http"), (b":path", b"/")]],
)
def test_connect_has_an_authority_and_nothing_else(fields: Fields) -> None:
    # RFC 9113 section 8.5
    with pytest.raises(Malformed):
        read([(b":method", b"CONNECT"), (b":authority", b"a.example:443"), *fields])
    with pytest.raises(Malformed):
        read([(b":method", b"CONNECT")])


def test_limits_may_be_reached() -> None:
    limits = Limits(request_line=100, field=100, fields=3, head=300)
    fields = [(b"x-a", b"a" * 97), (b"x-b", b"b" * 60), (b"x-c", b"c" * 60)]
    assert sum(len(name) + len(value) + 4 for name, value in [*LINE, *fields]) == limits.head
    assert len(read([*LINE, *fields], limits).headers) == 4
    with pytest.raises(Refusal, match="header is longer"):
        read([*LINE, fields[0], (b"x-b", fields[1][1] + b"b"), fields[2]], limits)
    assert read(line(path=b"/" + b"a" * 96), limits).target == b"/" + b"a" * 96
    with pytest.raises(Refusal, match="request line"):
        read(line(path=b"/" + b"a" * 97), limits)


def test_a_head_may_be_limited_more_than_a_field() -> None:
    limits = Limits(field=1_000, head=200)
    reader = HeadReader(limits)
    assert reader.read([*LINE, (b"x-a", b"a" * 50)], end=True).target == b"/"
    for read_it in (reader.read, lambda fields, *, end: read(fields, limits, end=end)):
        with pytest.raises(Refusal, match="header is longer than 200"):
            read_it([*line(path=b"/" + b"p" * 100), (b"x-a", b"a" * 50)], end=True)


@pytest.mark.parametrize(("count", "size"), [(4, 0), (1, 200)])
def test_trailers_have_limits_too(count: int, size: int) -> None:
    with pytest.raises(Refusal):
        check_trailers([(b"x-a", b"a" * size)] * count * 2, Limits(fields=3, field=100, head=300))


# What is remembered


def test_names_are_remembered_and_no_more_of_them_than_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_head, "_names", set())
    read([*LINE, (b"x-one", b""), (b"x-" + b"l" * 70, b"")])
    assert http2_head._names == {b"x-one"}
    for number in range(1_000):
        read([*LINE, (b"x-%d" % number, b"")])
    assert len(http2_head._names) == http2_head._NAMES_LIMIT


def test_a_name_that_was_wrong_once_is_wrong_again() -> None:
    for _ in range(2):
        with pytest.raises(Malformed):
            read([*LINE, (b"X-Wrong", b"")])


_SOME = st.lists(
    st.sampled_from(
        [
            (b"accept", b"*/*"),
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
            (b"te", b"trailers"),
            (b"host", b"a.example"),
            (b"content-length", b"0"),
            (b"content-length", b"2000"),
            (b"expect", b"100-continue"),
            (b"connection", b"close"),
            (b"x-a", b" wrong"),
            (b"x-long", b"l" * 300),
            (b":path", b"/again"),
        ]
    ),
    max_size=3,
)
_LINES = st.sampled_from(
    [
        LINE,
        line(method=b"POST", path=b"/other"),
        line(authority=b"b.example"),
        line(path=b"/" + b"p" * 150),
        line(path=b"/" + b"p" * 300),
        line(path=b"wrong"),
        line(method=b"get"),
        line(authority=b"a\0"),
        without(b":authority"),
        without(b":scheme"),
        [*LINE[:3], (b":method", b"GET")],
        LINE[:3],
        LINE[::-1],
        [LINE[3], *LINE[:3]],
    ]
)


@given(st.lists(st.tuples(_LINES, _SOME, st.booleans()), min_size=1, max_size=6))
def test_a_reader_that_remembers_reads_as_one_that_does_not(requests: list[tuple[Fields, Fields, bool]]) -> None:
    limits = Limits(request_line=200, field=250, head=400, body=1_000)
    reader = HeadReader(limits)

    def tell(*, remembering: bool, fields: Fields, end: bool) -> object:
        try:
            return reader.read(fields, end=end) if remembering else read_request(fields, limits, end=end)
        except Malformed:
            return Malformed  # of several faults the one or the other is named
        except Refusal as refusal:
            return refusal.status

    for first, fields, end in requests:
        for _ in range(2):
            told = tell(remembering=True, fields=[*first, *fields], end=end)
            assert told == tell(remembering=False, fields=[*first, *fields], end=end)


@pytest.mark.parametrize("path", [b"/", b"/other?q"])
def test_a_request_that_differs_in_its_path_alone_is_looked_through_once(path: bytes) -> None:
    reader = HeadReader(Limits())
    first = reader.read([*LINE, (b"accept", b"*/*"), (b"host", b"a.example")], end=True)
    other = reader.read([*line(path=path), (b"accept", b"*/*"), (b"host", b"a.example")], end=False)
    assert other == first._replace(target=path, length=UNKNOWN_LENGTH)
    assert other.headers is first.headers


def test_a_reader_knows_what_scheme_the_client_uses() -> None:
    reader = HeadReader(Limits())
    reader.read(line(scheme=b"http"), end=True)
    assert reader.scheme == b"http"


def test_where_requests_always_differ_few_are_kept() -> None:
    reader = HeadReader(Limits())
    requests = [[*LINE, (b"x", b"%d" % number)] for number in range(64)]
    kept = [fields for fields in requests if reader.read(fields, end=True).headers is reader.headers]
    assert len(kept) == 4 + 4
    headers = reader.read(kept[-1], end=True).headers
    assert headers is reader.headers
    # One that is known again: the next ones are kept again.
    assert all(reader.read(fields, end=True).headers is reader.headers for fields in requests[:4])


@pytest.mark.parametrize(
    ("fields", "kept"), [([(b"x", b"y" * 1900)], True), ([(b"x", b"y" * 2000)], False), ([(b"x", b"")] * 40, False)]
)
def test_what_is_kept_of_a_request_is_bounded(fields: Fields, kept: bool) -> None:
    reader = HeadReader(Limits())
    reader.read(LINE, end=True)
    assert (reader.read([*LINE, *fields], end=True).headers is reader.headers) is kept
    assert kept or reader.headers == []


def test_the_scheme_is_that_of_the_last_request() -> None:
    reader = HeadReader(Limits())
    secure, plain = line(scheme=b"https"), [*line(scheme=b"http"), (b"content-length", b"1")]
    for fields, scheme in [(secure, b"https"), (plain, b"http"), (secure, b"https"), (plain, b"http")]:
        reader.read(fields, end=False)
        assert reader.scheme == scheme
