"""RFC 7540 section 3.2: a plain connection that begins in HTTP/1.1 and asks for h2c.

RFC 9113 section 3.1 has taken that out; clients still do it, and a server may always go on in HTTP/1.1.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable

import pytest

from appserver.wire.select import http2_engines
from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.frames import PREFACE, Code, Setting

Connect = Callable[[], Client]

pytestmark = pytest.mark.parametrize("connect", [f"plain-{name}" for name in sorted(http2_engines())], indirect=True)

UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")


def request(*fields: str, line: str = "GET / HTTP/1.1", values: dict[int, int] | None = None) -> bytes:
    """A request in HTTP/1.1 that asks for h2c, with these settings."""
    payload = frames.settings(values)[frames.HEAD_SIZE :]
    encoded = urlsafe_b64encode(payload).rstrip(b"=").decode()
    return "\r\n".join([line, "Host: a.example", *UPGRADE, f"HTTP2-Settings: {encoded}", *fields, "", ""]).encode()


def switch(client: Client, data: bytes) -> None:
    """Send it, and see the connection switched; then this side's preface."""
    head = client.upgrade(data)
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 101 Switching Protocols"
    assert b"upgrade: h2c" in head.lower()
    client.send(PREFACE, frames.settings(), frames.SETTINGS_ACK)


def test_the_request_is_answered_on_stream_1(connect: Connect) -> None:
    """3.2: in HTTP/2, and the connection goes on in it; the fields that asked for it are not the application's."""
    client = connect()
    switch(client, request("X-A: 1", line="GET /a?b HTTP/1.1"))
    told = client.expect_answer(1).told
    assert (told["method"], told["path"], told["query"]) == ("GET", "/a", "b")
    assert ["x-a", "1"] in told["headers"]
    client.expect_alive()


def test_a_head(connect: Connect) -> None:
    """3.2: without content."""
    client = connect()
    switch(client, request(line="HEAD / HTTP/1.1"))
    assert client.expect_answer(1).body == b""
    client.expect_alive()


def test_the_clients_settings_hold(connect: Connect) -> None:
    """3.2.1: those of HTTP2-Settings, until its SETTINGS change them; they are not acknowledged."""
    client = connect()
    client.ledger.resize(5)
    switch(client, request(line="GET /bytes?10 HTTP/1.1", values={Setting.INITIAL_WINDOW_SIZE: 5}))
    client.sync()
    client.sync()
    assert len(client.ledger.answer(1).body) == 5
    assert client.ledger.acks == 1
    client.grant(1, 5)
    client.expect_answer(1)


def test_stream_1_is_half_closed(connect: Connect) -> None:
    """3.2: the client has no more to say on it."""
    client = connect()
    switch(client, request(line="GET /hold HTTP/1.1"))
    client.send(frames.data(1, b"x"))
    client.expect_error(1, Code.STREAM_CLOSED)


def test_stream_1_is_taken(connect: Connect) -> None:
    """5.1.1: the next request is on stream 3."""
    client = connect()
    switch(client, request())
    client.expect_answer(1)
    assert client.next_stream == 3
    client.expect_answer(client.ask())


def test_the_preface_is_still_to_come(connect: Connect) -> None:
    """3.2, 3.5: without it, a connection error."""
    client = connect()
    assert client.upgrade(request(line="GET /hold HTTP/1.1")).startswith(b"HTTP/1.1 101 ")
    client.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    client.expect_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
        request("HTTP2-Settings: AAQAAAAF"),
        request().replace(b"Upgrade: h2c", b"Upgrade: h2"),
        request().replace(b"Upgrade: h2c", b"Upgrade: TLS/1.2"),
        request().replace(b"HTTP2-Settings: ", b"HTTP2-Settings: AAQA"),
        request().replace(b"HTTP2-Settings: ", b"HTTP2-Settings: %%%%"),
    ],
    ids=[
        "not-in-connection",
        "no-settings",
        "settings-twice",
        "h2",
        "tls",
        "settings-cut",
        "settings-not-base64",
    ],
)
def test_who_asks_in_another_way_is_answered_in_http1(connect: Connect, data: bytes) -> None:
    """3.2, 3.2.1: the request itself is good, and answered as if it had not asked."""
    client = connect()
    assert client.upgrade(data).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (Setting.ENABLE_PUSH, 2, Code.PROTOCOL_ERROR),
        (Setting.INITIAL_WINDOW_SIZE, 2**31, Code.FLOW_CONTROL_ERROR),
        (Setting.MAX_FRAME_SIZE, 1, Code.PROTOCOL_ERROR),
    ],
)
def test_settings_out_of_bounds(connect: Connect, name: Setting, value: int, code: Code) -> None:
    """3.2.1, 6.5.2: as in a SETTINGS frame, or answered in HTTP/1.1."""
    client = connect()
    head = client.upgrade(request(values={name: value}))
    if head.startswith(b"HTTP/1.1 101 "):
        client.send(PREFACE, frames.settings())
        client.expect_goaway(code, Code.PROTOCOL_ERROR)
    else:
        assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
