from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.asgi import fields
from appserver.asgi.fields import Defaults, check_fields, check_links, check_promise, check_trailers
from appserver.errors import MisuseError
from appserver.wire.engine import Headers

TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1).map(str.encode)
OURS = Defaults([(b"date", b"now"), (b"server", b"appserver"), (b"x-frame-options", b"deny")])


def test_names_become_lower_case_and_order_is_kept() -> None:
    got = check_fields([(b"X-B", b"1"), (b"set-cookie", b"a"), (b"Set-Cookie", b"b"), (b"x-a", b"")], Defaults())
    assert got.headers == [(b"x-b", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"x-a", b"")]
    assert got.length is None


@pytest.mark.parametrize("given", [[[b"a", b"1"]], ((b"a", b"1"),), iter([(b"a", b"1")]), {b"a": b"1"}.items()])
def test_any_iterable_of_pairs_will_do(given: Any) -> None:
    assert check_fields(given, Defaults()).headers == [(b"a", b"1")]


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ([], OURS),
        ([(b"date", b"mine")], [(b"date", b"mine"), *OURS[1:]]),
        ([(b"Server", b"mine")], [(b"server", b"mine"), OURS[0], OURS[2]]),
        ([(b"server", b"a"), (b"date", b"b")], [(b"server", b"a"), (b"date", b"b"), OURS[2]]),
    ],
)
def test_date_and_server_of_the_application_take_the_place_of_ours(own: Any, wanted: Any) -> None:
    assert check_fields(own, OURS).headers == wanted
    assert len(OURS) == 3


@pytest.mark.parametrize("name", [b"Transfer-Encoding", b"Keep-ALIVE", b"proxy-connection", b"TE"])
def test_framing_is_not_the_applications_to_set(name: bytes) -> None:
    assert check_fields([(name, b"chunked"), (b"a", b"1")], Defaults()).headers == [(b"a", b"1")]


def test_connection_is() -> None:
    assert check_fields([(b"Connection", b"close")], Defaults()).headers == [(b"connection", b"close")]


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"12", 12), (b"9223372036854775807", 2**63 - 1)])
def test_a_length_is_read(value: bytes, length: int) -> None:
    assert check_fields([(b"Content-Length", value)], Defaults()) == ([(b"content-length", value)], length)


def test_a_length_that_is_said_twice_is_said_once() -> None:
    assert check_fields([(b"content-length", b"5")] * 2, Defaults()).headers == [(b"content-length", b"5")]


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1_0", b" 1", b"one", "5", 5, None])
def test_a_length_that_is_no_number_is_misuse(value: Any) -> None:
    with pytest.raises(MisuseError, match="content-length|byte strings"):
        check_fields([(b"content-length", value)], Defaults())


def test_two_lengths_are_misuse() -> None:
    with pytest.raises(MisuseError, match="one number"):
        check_fields([(b"content-length", b"5"), (b"content-length", b"6")], Defaults())


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"\r\n", b"\x01", b"\x7f"])
@pytest.mark.parametrize("place", [b"%sb", b"a%sb", b"a%s"])
@pytest.mark.parametrize("index", range(3))
def test_a_line_end_or_nul_in_a_value_is_misuse_that_names_the_field(bad: bytes, place: bytes, index: int) -> None:
    given = [(b"first", b"1"), (b"second", b"2"), (b"third", b"3")]
    given[index] = (given[index][0], place % bad)
    with pytest.raises(MisuseError, match=f"value of {given[index][0].decode()} holds CR, LF or NUL"):
        check_fields(given, Defaults())


@pytest.mark.parametrize("value", [b" v", b"v ", b"\tv", b"v\t", b" \t v \t ", b"a  b ", b"a\tb\t", b" a \t b"])
@pytest.mark.parametrize("index", range(3))
def test_white_space_around_a_value_is_left_out_and_within_it_is_not(value: bytes, index: int) -> None:
    # RFC 9113 section 8.2.1: with it the response would be malformed.
    given = [(b"first", b"1"), (b"second", b"2 3"), (b"third", b"4\t5  6")]
    given[index] = (given[index][0], value)
    wanted = [(name, value.strip(b" \t")) for name, value in given]
    assert check_fields(given, Defaults()).headers == wanted
    assert check_trailers(given) == check_promise(given) == wanted
    assert check_links([value for _, value in given]) == [(b"link", value) for _, value in wanted]


@pytest.mark.parametrize("value", [b" ", b"\t", b"  \t "])
def test_a_value_of_nothing_but_white_space_is_empty(value: bytes) -> None:
    assert check_fields([(b"a", value)], Defaults()).headers == [(b"a", b"")]


@given(st.lists(st.text(" \tab").map(str.encode)))
def test_no_value_ever_begins_or_ends_with_white_space(values: list[bytes]) -> None:
    headers = check_fields([(b"a", value) for value in values], Defaults()).headers
    assert [value for _, value in headers] == [value.strip(b" \t") for value in values]


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b":status", b"a\r\nb", b"a\0", b"\xe4", b"(a)", "a", 7, None])
def test_a_name_that_is_no_token_is_misuse(name: Any) -> None:
    with pytest.raises(MisuseError, match="header name|byte strings"):
        check_fields([(name, b"1")], Defaults())


@pytest.mark.parametrize("given", [7, [7], [b"ab"], [(b"a",)], [(b"a", b"1", b"2")], ["ab"], [(b"a", "1")], "text"])
def test_what_is_no_list_of_pairs_is_misuse(given: Any) -> None:
    with pytest.raises(MisuseError, match="headers must be|header name"):
        check_fields(given, Defaults())


@given(st.lists(st.tuples(TOKEN, st.binary())))
def test_no_value_ever_ends_its_line(pairs: list[tuple[bytes, bytes]]) -> None:
    try:
        headers = check_fields(pairs, Defaults()).headers
    except MisuseError:
        return
    written = b"".join(b"%s: %s\r\n" % field for field in headers)
    assert written.count(b"\r") == written.count(b"\n") == len(headers)
    assert b"\0" not in written


def test_made_up_names_do_not_fill_the_memory() -> None:
    defaults = Defaults()
    for number in range(fields._KNOWN_LIMIT + 50):
        check_fields([(b"x-made-up-%d" % number, b"1")], defaults)
    assert len(defaults.kinds) <= fields._KNOWN_LIMIT
    assert check_fields([(b"Content-Length", b"3"), (b"X-New-Name", b"")], defaults).length == 3


def test_made_up_values_do_not_fill_the_memory() -> None:
    defaults = Defaults()
    for number in range(fields._KNOWN_LIMIT + 50):
        check_fields([(b"etag", b"%d" % number), (b"x-long", b"l" * number)], defaults)
    assert len(defaults.values) <= fields._KNOWN_LIMIT + fields._VALUES_SIZE
    assert sum(map(len, defaults.values)) <= fields._KNOWN_LIMIT * fields._VALUES_SIZE
    with pytest.raises(MisuseError):
        check_fields([(b"etag", b"0"), (b"x-b", b"1\n")], defaults)


_VALUE = st.sampled_from([b"", b"a", b" a", b"a ", b"a\tb", b"a  b", b"\t", b"a\r", b"\na", b"4", b"l" * 300])
_RESPONSE = st.lists(st.tuples(st.sampled_from([b"x-a", b"X-B", b"content-length", b"server"]), _VALUE), max_size=4)


@given(st.lists(_RESPONSE, max_size=6))
def test_what_is_known_of_a_value_changes_nothing(responses: list[list[tuple[bytes, bytes]]]) -> None:
    def check(given: list[tuple[bytes, bytes]], defaults: Defaults) -> object:
        try:
            return check_fields(given, defaults)
        except MisuseError as error:
            return str(error)

    knowing = Defaults(OURS)
    for response in [*responses, *responses]:
        assert check(response, knowing) == check(response, Defaults(OURS))


def test_no_value_stays_where_nothing_is_made_anew() -> None:
    for check in (check_trailers, check_promise):
        assert check([(b"x-secret", b"value")]) == [(b"x-secret", b"value")]
    assert check_links([b"<value>"]) == [(b"link", b"<value>")]
    assert fields._TRAILERS.values | fields._PROMISED.values | fields._BARE.values == set()


def test_a_value_that_claims_to_be_another_is_looked_at() -> None:
    class Chameleon(bytes):
        def __bytes__(self) -> bytes:
            return self

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash(b"known")

    defaults = Defaults()
    for _ in range(2):
        check_fields([(b"x-a", b"known")], defaults)
        with pytest.raises(MisuseError):
            check_fields([(b"x-a", Chameleon(b"y\r\nset-cookie: 1"))], defaults)


@pytest.mark.parametrize("value", [bytearray(b"known"), memoryview(b"known")])
def test_a_known_value_is_still_made_bytes(value: Any) -> None:
    defaults = Defaults()
    for sent in (b"known", value):
        ((_, taken),) = check_fields([(b"x-a", sent)], defaults).headers
        assert type(taken) is bytes


@pytest.mark.parametrize("check", [check_trailers, check_promise])
def test_trailers_and_promises_are_checked_as_headers_are(check: Callable[[Any], Headers]) -> None:
    assert check(iter([(b"X-A", b"1"), [b"ETag", bytearray(b"2")]])) == [(b"x-a", b"1"), (b"etag", b"2")]
    for wrong in (7, [(b"a", "1")], [(b"a b", b"1")], [(b"a", b"1\n")], [(b":path", b"/")]):
        with pytest.raises(MisuseError):
            check(wrong)


@pytest.mark.parametrize("name", fields._NOT_IN_TRAILERS)
def test_no_name_that_comes_too_late_is_a_trailer_in_any_case(name: bytes) -> None:
    for spelling in (name, name.upper()):
        with pytest.raises(MisuseError, match=f"^{name.decode()} may not be a trailer"):
            check_trailers([(spelling, b"1")])


def test_what_one_check_learns_of_a_name_is_not_what_another_does() -> None:
    assert check_links([b"<a>"]) == [(b"link", b"<a>")]
    assert check_trailers([(b"link", b"<a>")]) == check_promise([(b"link", b"<a>")]) == [(b"link", b"<a>")]
    assert check_fields([(b"vary", b"a"), (b"host", b"b")], Defaults()).headers == [(b"vary", b"a"), (b"host", b"b")]
