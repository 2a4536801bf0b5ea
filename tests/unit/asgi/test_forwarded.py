from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.asgi.forwarded import Trust, drop_forwarded, is_forwarded, read_forwarded

LOCAL = Trust(["127.0.0.1", "::1", "10.0.0.0/8", "unix"])
ALL = Trust(["*"])

SPOKEN_FOR = [
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"x-request-id",
]


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("::1", True),
        ("::2", False),
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("::ffff:127.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("", False),
        ("unix", False),
        ("localhost", False),
        ("fe80::1%eth0", False),
    ],
)
def test_addresses_and_networks_are_trusted(address: str, trusted: bool) -> None:
    assert LOCAL.trusts(address) is trusted


def test_everybody_is_everybody() -> None:
    assert ALL.trusts("203.0.113.9")
    assert ALL.unix


def test_nobody_is_nobody() -> None:
    nobody = Trust([])
    assert not nobody.trusts("127.0.0.1")
    assert not nobody.unix


def test_a_network_may_be_named_by_a_host_in_it() -> None:
    assert Trust(["192.0.2.77/24"]).trusts("192.0.2.1")


@pytest.mark.parametrize("entry", ["nonsense", "10.0.0.0/33", "1.2.3", ""])
def test_an_entry_that_is_nothing_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be|Address cannot be empty"):
        Trust([entry])


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        (b"203.0.113.7", "203.0.113.7"),
        (b"198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (b"198.51.100.1, 203.0.113.7, 10.0.0.1, 127.0.0.1", "203.0.113.7"),
        (b"10.0.0.1, 10.0.0.2", "10.0.0.1"),
        (b"203.0.113.7,unknown,10.0.0.2", "10.0.0.2"),
        (b"unknown", None),
        (b"", None),
        (b",", None),
        (b"<script>, 203.0.113.7", "203.0.113.7"),
        (b"203.0.113.7:4711", "203.0.113.7"),
        (b"[2001:db8::7]:4711", "2001:db8::7"),
        (b"2001:db8::7", "2001:db8::7"),
        (b"[2001:db8::7]", "2001:db8::7"),
        (b"  203.0.113.7\t", "203.0.113.7"),
        (b"\xff\xfe", None),
    ],
)
def test_the_client_is_the_first_from_the_right_that_no_trusted_proxy_added(hops: bytes, client: str | None) -> None:
    assert LOCAL.client(hops) == client


def test_with_everybody_trusted_the_client_is_the_leftmost() -> None:
    assert ALL.client(b"198.51.100.1, 203.0.113.7, 10.0.0.1") == "198.51.100.1"


@pytest.mark.parametrize("name", [*SPOKEN_FOR, *(name.replace(b"-", b"_") for name in SPOKEN_FOR if b"-" in name)])
def test_a_peer_that_is_not_trusted_speaks_for_nobody(name: bytes) -> None:
    kept = [(b"host", b"a"), (b"x_other", b"1"), (b"x-other", b"2")]
    assert drop_forwarded([*kept[:1], (name, b"1"), *kept[1:]]) == kept
    assert is_forwarded([*kept[:1], (name, b"1"), *kept[1:]])


@pytest.mark.parametrize("name", [b"x_forwarded-for", b"x-forwarded_proto", b"x_request_id"])
def test_half_a_disguise_is_dropped_too(name: bytes) -> None:
    assert drop_forwarded([(name, b"1")]) == []
    assert is_forwarded([(name, b"1")])
    assert read_forwarded([(name, b"203.0.113.7")], LOCAL) == ([], None, None, None)


def test_headers_without_forwarded_fields_are_not_copied() -> None:
    headers = [(b"host", b"a"), (b"accept", b"*/*")]
    assert not is_forwarded(headers)
    assert read_forwarded(headers, LOCAL).headers is headers


def test_a_trusted_peers_fields_stay_for_the_application() -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-host", b"shop.example")]
    assert read_forwarded(headers, LOCAL) == (headers, "203.0.113.7", None, None)


def test_several_lines_are_one_list() -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-for", b"10.0.0.5")]
    assert read_forwarded(headers, LOCAL).client == "203.0.113.7"


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ([b"https"], "https"),
        ([b"HTTPS"], "https"),
        ([b"http"], "http"),
        ([b"wss"], "https"),
        ([b"ws"], "http"),
        ([b"https, http"], "http"),
        ([b"http", b"https"], "https"),
        ([b"gopher"], None),
        ([b""], None),
        ([b"https, gopher"], None),
        ([b"https", b"gopher"], None),
        ([b"https", b""], None),
    ],
)
def test_the_scheme_is_the_trusted_peers_own_word(values: list[bytes], scheme: str | None) -> None:
    assert read_forwarded([(b"x-forwarded-proto", value) for value in values], LOCAL).scheme == scheme


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (b"4bf92f3577b34da6a3ce929d0e0e4736", True),
        (b"Root=1-67891233-abcdef012345678912345678", True),
        (b"a" * 128, True),
        (b"a" * 129, False),
        (b"", False),
        (b"with space", False),
        (b'quote"', False),
        (b"\xe4", False),
        (b"new\x0bline", False),
    ],
)
def test_a_request_id_is_taken_when_it_can_do_no_harm_in_a_log(value: bytes, taken: bool) -> None:
    assert read_forwarded([(b"x-request-id", value)], LOCAL).request_id == (value.decode() if taken else None)


@given(st.lists(st.tuples(st.sampled_from(SPOKEN_FOR), st.binary())), st.sampled_from([LOCAL, ALL, Trust([])]))
def test_no_value_breaks_the_reading(headers: list[tuple[bytes, bytes]], trust: Any) -> None:
    origin = read_forwarded(headers, trust)
    assert origin.scheme in (None, "http", "https")
    assert drop_forwarded(headers) == []
