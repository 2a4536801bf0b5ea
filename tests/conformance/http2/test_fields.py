"""RFC 9113 sections 8.2, 8.3, 8.5, 8.6: fields and pseudo-fields."""

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import Fields, request
from tests.conformance.http2.frames import Code

METHOD, SCHEME, AUTHORITY, PATH = request()

# The bytes that a name may have beside digits and lower-case letters (RFC 9110 section 5.6.2).
SYMBOLS = b"!#$%&'*+-.^_`|~"
NAME_BYTES = bytes(range(0x30, 0x3A)) + bytes(range(0x61, 0x7B)) + SYMBOLS
WHITE = b" \t"


def echoed(client: Client, *fields: tuple[bytes, bytes]) -> list[list[str]]:
    """The fields that the application gets, behind Host."""
    headers: list[list[str]] = client.expect_answer(client.ask(b"/", *fields)).told["headers"]
    assert headers[0] == ["host", "a.example"]
    return headers[1:]


# 8.2.1 names


@pytest.mark.parametrize("byte", [byte for byte in range(256) if byte not in NAME_BYTES])
def test_a_name_with_a_forbidden_byte(client: Client, byte: int) -> None:
    """8.2.1, RFC 9110 section 5.6.2: controls, space, upper case, DEL and above, a colon, and what is no token."""
    client.expect_malformed(client.ask(b"/", (b"x-a" + bytes((byte,)) + b"b", b"1")))


@pytest.mark.parametrize("name", [b"", b" ", b"x ", b" x", b"X", b"x-A", b"x:", b"x:y"])
def test_a_name_that_is_none(client: Client, name: bytes) -> None:
    """8.2, 8.2.1."""
    client.expect_malformed(client.ask(b"/", (name, b"1")))


def test_a_name_with_every_byte_that_it_may_have(client: Client) -> None:
    """8.2.1."""
    assert echoed(client, (NAME_BYTES, b"1")) == [[NAME_BYTES.decode(), "1"]]


# 8.2.1 values


@pytest.mark.parametrize("byte", [*range(0x09), *range(0x0A, 0x20), 0x7F])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_value_with_a_control(client: Client, byte: int, place: str) -> None:
    """8.2.1 (NUL, LF, CR), RFC 9110 section 5.5 (the others)."""
    value = {"first": b"%cab", "middle": b"a%cb", "last": b"ab%c"}[place] % byte
    client.expect_malformed(client.ask(b"/", (b"x-a", value)))


@pytest.mark.parametrize("value", [b" a", b"a ", b"\ta", b"a\t", b" ", b"\t", b" a "])
def test_a_value_with_space_around(client: Client, value: bytes) -> None:
    """8.2.1."""
    client.expect_malformed(client.ask(b"/", (b"x-a", value)))


@pytest.mark.parametrize(
    "value", [b"", b"a b", b"a\tb", b"\x80\xff", b"\xc3\xa4", b"a" * 5000, bytes(range(0x21, 0x7F))]
)
def test_a_value_that_is_good(client: Client, value: bytes) -> None:
    """8.2.1, RFC 9110 section 5.5."""
    assert echoed(client, (b"x-a", value)) == [["x-a", value.decode("latin-1")]]


@pytest.mark.parametrize("name", [b":path", b":authority", b":method", b":scheme"])
@pytest.mark.parametrize("byte", [b"\0", b"\r", b"\n", b" ", b"\t", b"\x7f", b"\x80"])
def test_a_pseudo_field_with_a_forbidden_byte(client: Client, name: bytes, byte: bytes) -> None:
    """8.2.1, 8.3.1: what could be smuggled into a request line."""
    fields = [(key, value + byte + b"x" if key == name else value) for key, value in request()]
    client.headers(1, fields)
    client.expect_malformed(1)


def test_a_field_twice_stays_twice(client: Client) -> None:
    """RFC 9110 section 5.3: in its order."""
    assert echoed(client, (b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")) == [["x-a", "1"], ["x-b", "2"], ["x-a", "3"]]


# 8.2.2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"connection", b"close"),
        (b"connection", b"keep-alive"),
        (b"connection", b"x-a"),
        (b"proxy-connection", b"keep-alive"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"upgrade", b"h2c"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"te", b"trailers, deflate;q=0.5"),
        (b"te", b""),
    ],
)
def test_connection_specific_fields(client: Client, name: bytes, value: bytes) -> None:
    """8.2.2, 8.6: the request is malformed."""
    client.expect_malformed(client.ask(b"/", (name, value)))


def test_te_trailers(client: Client) -> None:
    """8.2.2: the one value that TE may have."""
    assert echoed(client, (b"te", b"trailers")) == [["te", "trailers"]]


# 8.2.3


@pytest.mark.parametrize(
    ("crumbs", "whole"),
    [
        ([b"a=b"], "a=b"),
        ([b"a=b", b"c=d"], "a=b; c=d"),
        ([b"a=b; c=d", b"e=f", b"g=h"], "a=b; c=d; e=f; g=h"),
    ],
)
def test_cookies_are_put_together(client: Client, crumbs: list[bytes], whole: str) -> None:
    """8.2.3: before an application sees them."""
    headers = echoed(client, *((b"cookie", crumb) for crumb in crumbs))
    assert headers == [["cookie", whole]]


def test_cookies_between_other_fields(client: Client) -> None:
    """8.2.3."""
    headers = echoed(client, (b"cookie", b"a=b"), (b"x-a", b"1"), (b"cookie", b"c=d"))
    assert sorted(headers) == [["cookie", "a=b; c=d"], ["x-a", "1"]]


# 8.3


@pytest.mark.parametrize("fields", [[METHOD, SCHEME, PATH, AUTHORITY], [PATH, AUTHORITY, SCHEME, METHOD]])
def test_pseudo_fields_in_any_order(client: Client, fields: Fields) -> None:
    """8.3.1."""
    client.headers(1, fields)
    client.expect_answer(1)


MALFORMED: dict[str, Fields] = {
    "no-method": [SCHEME, AUTHORITY, PATH],
    "no-scheme": [METHOD, AUTHORITY, PATH],
    "no-path": [METHOD, SCHEME, AUTHORITY],
    "no-pseudo-field": [(b"host", b"a.example"), (b"x-a", b"1")],
    "method-twice": [METHOD, METHOD, SCHEME, AUTHORITY, PATH],
    "methods": [METHOD, (b":method", b"POST"), SCHEME, AUTHORITY, PATH],
    "scheme-twice": [METHOD, SCHEME, SCHEME, AUTHORITY, PATH],
    "path-twice": [METHOD, SCHEME, AUTHORITY, PATH, PATH],
    "authority-twice": [METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH],
    "empty-method": [(b":method", b""), SCHEME, AUTHORITY, PATH],
    "empty-scheme": [METHOD, (b":scheme", b""), AUTHORITY, PATH],
    "empty-path": [METHOD, SCHEME, AUTHORITY, (b":path", b"")],
    "empty-authority": [METHOD, SCHEME, (b":authority", b""), PATH],
    "status": [METHOD, SCHEME, AUTHORITY, PATH, (b":status", b"200")],
    "unknown": [METHOD, SCHEME, AUTHORITY, PATH, (b":unknown", b"x")],
    "nameless": [METHOD, SCHEME, AUTHORITY, PATH, (b":", b"x")],
    "protocol": [METHOD, SCHEME, AUTHORITY, PATH, (b":protocol", b"websocket")],
    "upper-case": [(b":Method", b"GET"), SCHEME, AUTHORITY, PATH],
    "late-path": [METHOD, SCHEME, AUTHORITY, (b"x-a", b"1"), PATH],
    "late-method": [SCHEME, AUTHORITY, PATH, (b"x-a", b"1"), METHOD],
    "late-scheme": [METHOD, AUTHORITY, PATH, (b"x-a", b"1"), SCHEME],
    "late-authority": [METHOD, SCHEME, PATH, (b"x-a", b"1"), AUTHORITY],
    "late-behind-host": [METHOD, SCHEME, PATH, (b"host", b"a.example"), AUTHORITY],
    "late-behind-cookie": [METHOD, SCHEME, AUTHORITY, (b"cookie", b"a=b"), PATH],
    "path-without-slash": [METHOD, SCHEME, AUTHORITY, (b":path", b"a")],
    "path-of-a-query": [METHOD, SCHEME, AUTHORITY, (b":path", b"?a")],
    "path-of-a-url": [METHOD, SCHEME, AUTHORITY, (b":path", b"http://a.example/")],
    "path-with-fragment": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a#b")],
    "asterisk-for-get": [METHOD, SCHEME, AUTHORITY, (b":path", b"*")],
    "method-with-space": [(b":method", b"GET /x"), SCHEME, AUTHORITY, PATH],
    "method-no-token": [(b":method", b"G@T"), SCHEME, AUTHORITY, PATH],
    "scheme-no-scheme": [METHOD, (b":scheme", b"ht tp"), AUTHORITY, PATH],
    "userinfo": [METHOD, SCHEME, (b":authority", b"user@a.example"), PATH],
    "authority-with-path": [METHOD, SCHEME, (b":authority", b"a.example/b"), PATH],
    "authority-with-query": [METHOD, SCHEME, (b":authority", b"a.example?b"), PATH],
    "authorities": [METHOD, SCHEME, (b":authority", b"a.example,b.example"), PATH, (b"host", b"b.example")],
    "bad-port": [METHOD, SCHEME, (b":authority", b"a.example:port"), PATH],
    "other-host": [METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"b.example")],
    "host-twice": [METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"a.example"), (b"host", b"a.example")],
    "no-authority-and-no-host": [METHOD, SCHEME, PATH],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("end", [True, False], ids=["alone", "with-body"])
def test_malformed_requests(client: Client, fields: Fields, end: bool) -> None:
    """8.3, 8.3.1: a stream error of type PROTOCOL_ERROR."""
    client.headers(1, fields, end=end)
    if not end:
        client.send(frames.data(1, b"body", end=True))
    client.expect_malformed(1)


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_no_application_sees_malformed_requests(local: Client, fields: Fields) -> None:
    """8.1.1."""
    local.headers(1, fields)
    local.sync()
    assert 1 not in local.pipe.exchanges  # type: ignore[attr-defined]


GOOD: dict[str, tuple[Fields, str]] = {
    "host-alone": ([METHOD, SCHEME, PATH, (b"host", b"b.example")], "b.example"),
    "host-like-authority": ([METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"a.example")], "a.example"),
    "port": ([METHOD, SCHEME, (b":authority", b"a.example:8080"), PATH], "a.example:8080"),
    "ipv6": ([METHOD, SCHEME, (b":authority", b"[::1]:80"), PATH], "[::1]:80"),
    "asterisk": ([(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")], "a.example"),
    "https": ([METHOD, (b":scheme", b"https"), AUTHORITY, PATH], "a.example"),
}


@pytest.mark.parametrize(("fields", "host"), GOOD.values(), ids=GOOD)
def test_hosts(client: Client, fields: Fields, host: str) -> None:
    """8.3.1: :authority is what the application gets as Host."""
    client.headers(1, fields)
    assert client.expect_answer(1).told["headers"] == [["host", host]]


@pytest.mark.parametrize(
    "path", [b"/", b"//", b"/a/b?c=d&e#"[:-1], b"/%20%ff", b"/?", b"/:@!$&'()*+,;=", b"/" + b"a" * 4000]
)
def test_paths(client: Client, path: bytes) -> None:
    """8.3.1: path and query, as they came."""
    told = client.expect_answer(client.ask(path)).told
    assert told["path"] + ("?" + told["query"] if told["query"] else "") == path.decode().removesuffix("?")


def test_a_method_in_lower_case(client: Client) -> None:
    """RFC 9110 section 9.1: methods are case-sensitive; ASGI's are upper case. Refused as in HTTP/1.1."""
    answer = client.answer(client.ask(method=b"get"))
    assert answer.status in (400, 405, 501)
    client.expect_alive()


# Limits: answered, not broken (10.5.1)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"x-a", b"a" * 9000)], 431),
        ([(b"x-%d" % number, b"a") for number in range(150)], 431),
        ([(b"x-%d" % number, b"a" * 5000) for number in range(15)], 431),
    ],
    ids=["field", "fields", "head"],
)
def test_more_than_the_server_takes(client: Client, fields: Fields, status: int) -> None:
    """10.5.1: 431, and HPACK goes on with what it had."""
    assert client.answer(client.ask(b"/", *fields)).status == status
    client.expect_alive()
    assert echoed(client, (b"x-1", b"a")) == [["x-1", "a"]]


def test_a_path_that_is_too_long(client: Client) -> None:
    """RFC 9110 section 15.5.15."""
    assert client.answer(client.ask(b"/" + b"a" * 9000)).status == 414
    client.expect_alive()


def test_other_expectations(client: Client) -> None:
    """RFC 9110 section 15.5.18."""
    assert client.answer(client.ask(b"/", (b"expect", b"more"))).status == 417
    client.expect_alive()


# 8.5 CONNECT, RFC 8441


def test_connect_is_refused(client: Client) -> None:
    """8.5: by an answer; the connection goes on."""
    client.headers(1, [(b":method", b"CONNECT"), (b":authority", b"a.example:443")], end=False)
    answer = client.answer(1)
    assert answer.status in (405, 501)
    client.expect_alive()


@pytest.mark.parametrize(
    "fields",
    [
        [(b":method", b"CONNECT")],
        [(b":method", b"CONNECT"), AUTHORITY, PATH],
        [(b":method", b"CONNECT"), AUTHORITY, SCHEME],
        [(b":method", b"CONNECT"), AUTHORITY, SCHEME, PATH],
    ],
    ids=["no-authority", "path", "scheme", "both"],
)
def test_malformed_connect(client: Client, fields: Fields) -> None:
    """8.5: :authority alone beside the method."""
    client.headers(1, fields, end=False)
    client.expect_malformed(1)


def test_extended_connect_is_offered(client: Client) -> None:
    """RFC 8441 section 3: by a setting of 1; what it is for is in tests/conformance/websocket."""
    assert client.ledger.settings.get(frames.Setting.ENABLE_CONNECT_PROTOCOL) == 1


def test_a_protocol_belongs_to_connect(client: Client) -> None:
    """RFC 8441 section 4: :protocol stands in no other request."""
    client.headers(1, [(b":method", b"GET"), (b":protocol", b"websocket"), SCHEME, PATH, AUTHORITY], end=False)
    client.expect_malformed(1)


def test_data_behind_a_refused_connect(client: Client) -> None:
    """8.5: is not taken for another's."""
    client.headers(1, [(b":method", b"CONNECT"), (b":authority", b"a.example:443")], end=False)
    client.send(frames.data(1, b"GET / HTTP/1.1\r\n\r\n"))
    client.answer(1)
    client.send(frames.rst_stream(1, Code.CANCEL))
    client.expect_alive()
