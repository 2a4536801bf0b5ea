"""The opening handshake: RFC 6455 sections 4.2 and 9.1, RFC 7692 section 7.1, RFC 8441 section 5."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appserver.wire.engine import Head, Headers
from appserver.wire.origins import Origins
from appserver.wire.semantics import Refusal
from appserver.wire.websocket import deflate_memory
from appserver.wire.websocket_handshake import Handshake, read_handshake

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def ask(
    *fields: tuple[bytes, bytes],
    key: bytes | None = KEY,
    version: bytes | None = b"13",
    http: str = "1.1",
    end: bool = True,
    origins: Origins | None = None,
    bits: int = 12,
) -> Handshake:
    headers: Headers = [(b"host", b"a.example")]
    if key is not None:
        headers.append((b"sec-websocket-key", key))
    if version is not None:
        headers.append((b"sec-websocket-version", version))
    method = "GET" if http == "1.1" else "CONNECT"
    head = Head(1, method, b"/", [*headers, *fields], http, end, False, True)
    return read_handshake(head, origins, bits)


def refused(*fields: tuple[bytes, bytes], **options: Any) -> int:
    with pytest.raises(Refusal) as caught:
        ask(*fields, **options)
    assert caught.value.reason.isascii()
    assert caught.value.reason.isprintable()
    return caught.value.status


def test_the_answer_is_that_of_the_rfc() -> None:
    assert ask() == (
        [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", ACCEPT)],
        [],
        None,
    )


def test_over_http_2_there_is_no_key_and_nothing_to_answer() -> None:
    assert ask(key=None, http="2").answer == []
    assert ask(key=b"rubbish", http="2").answer == []


# Hardening: handshake with a body, key missing or not 16 bytes, version other than 13 (426)


@pytest.mark.parametrize("http", ["1.1", "2"])
def test_a_handshake_with_a_body_is_refused(http: str) -> None:
    assert refused(end=False, http=http) == 400


@pytest.mark.parametrize(
    "key",
    [
        None,
        b"",
        b"dGhlIHNhbXBsZSBub25jZQ",
        b"dGhlIHNhbXBsZSBub25jZQ=",
        b"dGhlIHNhbXBsZSBub25jZQ===",
        b"dGhlIHNhbXBsZSBub25j",
        b"dGhlIHNhbXBsZSBub25jZTE3",
        b"dGhl IHNhbXBsZSBub25jZQ==",
        b"dGhl-HNhbXBsZSBub25jZQ==",
        b"\xc3\xa4hlIHNhbXBsZSBub25jZQ==",
        KEY + b", " + KEY,
    ],
)
def test_a_key_that_is_missing_or_not_16_bytes_is_refused(key: bytes | None) -> None:
    assert refused(key=key) == 400


def test_a_second_key_is_refused() -> None:
    assert refused((b"sec-websocket-key", KEY)) == 400


@pytest.mark.parametrize("version", [None, b"", b"8", b"12", b"14", b"013", b"13.0", b"13, 8", b"+13", b"\xb913"])
def test_a_version_other_than_13_is_told_what_to_upgrade_to(version: bytes | None) -> None:
    assert refused(version=version) == 426
    assert refused(version=version, http="2") == 400  # there is no Upgrade


def test_two_versions_are_refused() -> None:
    assert refused((b"sec-websocket-version", b"13")) == 426


# Whose page it is


EXAMPLE = Origins.of(["https://example.org", "https://*.example.org"])


@pytest.mark.parametrize("http", ["1.1", "2"])
@pytest.mark.parametrize("origin", [b"https://example.org", b"https://a.example.org"])
def test_a_page_of_an_allowed_origin_may_connect(origin: bytes, http: str) -> None:
    assert ask((b"origin", origin), origins=EXAMPLE, http=http).subprotocols == []


@pytest.mark.parametrize("http", ["1.1", "2"])
@pytest.mark.parametrize("origin", [b"https://evil.example", b"null", b"", b"https://\xe9.example.org"])
def test_a_page_of_another_origin_may_not(origin: bytes, http: str) -> None:
    assert refused((b"origin", origin), origins=EXAMPLE, http=http) == 403


def test_two_origins_are_none_that_is_allowed() -> None:
    allowed = (b"origin", b"https://example.org")
    assert refused(allowed, allowed, origins=EXAMPLE) == 403


def test_who_names_no_origin_is_no_page() -> None:
    assert ask(origins=EXAMPLE).subprotocols == []


def test_without_a_list_any_page_may_connect() -> None:
    assert ask((b"origin", b"https://evil.example")).subprotocols == []


# Subprotocols


@pytest.mark.parametrize(
    ("values", "offered"),
    [
        ([b"chat"], ["chat"]),
        ([b"chat, superchat"], ["chat", "superchat"]),
        ([b"b,a"], ["b", "a"]),
        ([b"chat", b"superchat"], ["chat", "superchat"]),
        ([b"Chat, chat"], ["Chat", "chat"]),
        ([b"v12.stomp\t,, x"], ["v12.stomp", "x"]),
    ],
)
def test_subprotocols_are_told_in_the_clients_order(values: list[bytes], offered: list[str]) -> None:
    assert ask(*((b"sec-websocket-protocol", value) for value in values)).subprotocols == offered


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("grün".encode(), id="non-ASCII subprotocol offered"),
        b"\xe9",
        b"",
        b",",
        b"a b",
        b'"chat"',
        b"chat;q=1",
        b"a, (b)",
        b"chat, chat",
        b"a/b",
    ],
)
@pytest.mark.parametrize("http", ["1.1", "2"])
def test_what_is_no_list_of_subprotocols_is_refused(value: bytes, http: str) -> None:
    assert refused((b"sec-websocket-protocol", value), http=http) == 400


def test_a_subprotocol_twice_is_refused_in_two_fields_too() -> None:
    assert refused((b"sec-websocket-protocol", b"chat"), (b"sec-websocket-protocol", b"x, chat")) == 400


# Compression


BARE = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def agree(*values: bytes, bits: int = 12) -> tuple[bytes, int, int, bool, bool] | None:
    """What is answered, and what becomes of both directions."""
    handshake = ask(*((b"sec-websocket-extensions", value) for value in values), bits=bits)
    if handshake.deflate is None:
        return None
    deflate, answer = handshake.deflate
    assert deflate.memory == deflate_memory(deflate.local_max_window_bits, deflate.remote_max_window_bits)
    return (
        answer,
        deflate.local_max_window_bits,
        deflate.remote_max_window_bits,
        deflate.local_no_context_takeover,
        deflate.remote_no_context_takeover,
    )


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        # As Firefox and Chromium write it.
        (
            b"permessage-deflate; client_max_window_bits",
            (b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12", 12, 12, False, False),
        ),
        (b"permessage-deflate", (b"permessage-deflate; server_max_window_bits=12", 12, 15, False, False)),
        (
            b"permessage-deflate; server_max_window_bits=10; client_max_window_bits=11",
            (b"permessage-deflate; server_max_window_bits=10; client_max_window_bits=11", 10, 11, False, False),
        ),
        (
            BARE,
            (
                BARE + b"; server_max_window_bits=12",
                12,
                15,
                True,
                True,
            ),
        ),
        (
            b'permessage-deflate; server_max_window_bits="11"',
            (b"permessage-deflate; server_max_window_bits=11", 11, 15, False, False),
        ),
    ],
)
def test_compression_is_agreed_on_within_what_both_allow(offer: bytes, agreed: tuple[Any, ...]) -> None:
    assert agree(offer) == agreed


@pytest.mark.parametrize(
    "offer",
    [
        b"x-webkit-deflate-frame",
        b"permessage-bzip2; permessage-deflate",
        b"permessage-deflate; server_max_window_bits",
        b"permessage-deflate; server_max_window_bits=7",
        b"permessage-deflate; server_max_window_bits=16",
        b"permessage-deflate; server_max_window_bits=09",
        b"permessage-deflate; client_max_window_bits=0",
        b"permessage-deflate; server_no_context_takeover=1",
        b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        b"permessage-deflate; unknown",
        b"permessage-deflate; server_max_window_bits=8; server_max_window_bits=8",
    ],
)
def test_an_offer_that_cannot_be_taken_is_declined_and_not_refused(offer: bytes) -> None:
    assert agree(offer) is None


def test_a_window_that_zlib_does_not_have_is_declined() -> None:
    assert agree(b"permessage-deflate; server_max_window_bits=8") is None


def test_of_several_offers_the_first_that_can_be_taken_is() -> None:
    first, second = b"permessage-deflate; server_max_window_bits=99", b"permessage-deflate; server_max_window_bits=9"
    expected = (b"permessage-deflate; server_max_window_bits=9", 9, 15, False, False)
    assert agree(b"foo, " + first + b", " + second) == agree(first, second) == expected


def test_compression_that_is_not_offered_or_switched_off_is_not_agreed_on() -> None:
    assert agree() is None
    assert agree(b"permessage-deflate", bits=0) is None


def test_no_more_than_a_few_offers_are_looked_at() -> None:
    bad = b", ".join([b"permessage-deflate; unknown"] * 16)
    assert agree(bad + b", permessage-deflate") is None
    assert agree(b", ".join([b"foo"] * 15) + b", permessage-deflate") is not None


@pytest.mark.parametrize(
    "value", [b"", b";", b"a b", b"a;", b"a; b=", b'a; b="c', b'a; b="c d"', b"a=1", b"\xe9", "ä".encode()]
)
def test_what_is_no_list_of_extensions_is_refused(value: bytes) -> None:
    assert refused((b"sec-websocket-extensions", value)) == 400


# Anything at all


NAMES = [
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-protocol",
    b"sec-websocket-extensions",
    b"origin",
]
VALUES = [
    KEY,
    b"13",
    b"chat",
    b"permessage-deflate",
    b"permessage-deflate; server_max_window_bits=",
    b"https://example.org",
]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.binary(max_size=40)), max_size=5),
    st.sampled_from(["1.1", "2"]),
)
def test_any_fields_are_a_handshake_or_refused(fields: Headers, http: str) -> None:
    try:
        handshake = ask(*fields, http=http, origins=EXAMPLE)
    except Refusal as refusal:
        status, names = refusal.status, []
    else:
        status, names = 101, handshake.subprotocols
    assert status in (101, 400, 403, 426)
    # Each may become a field of the answer: in ASCII, and without a way out of it.
    for name in names:
        assert name.isascii()
        assert name.isprintable()
        assert not set(name) & set(' ,;"')
