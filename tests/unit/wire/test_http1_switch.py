from base64 import urlsafe_b64encode

import pytest
from h11 import CLIENT, Connection, EndOfMessage, InformationalResponse, Request

from appserver.wire.engine import Headers
from appserver.wire.http1_switch import PREFACE_HEAD, SWITCHING, read_settings
from tests.conformance.http2.frames import PREFACE

SETTINGS = b"\0\3\0\0\0\x64\0\4\0\1\0\0"


def h2c(settings: bytes, *, upgrade: bytes = b"h2c", connection: bytes = b"upgrade, http2-settings") -> Headers:
    return [(b"host", b"a.example"), (b"connection", connection), (b"upgrade", upgrade), (b"http2-settings", settings)]


@pytest.mark.parametrize("count", [0, 1, 2, 32])
@pytest.mark.parametrize("padded", [True, False])
def test_settings_are_decoded_with_and_without_padding(count: int, padded: bool) -> None:
    settings = b"\0\3\xff\xef\xbe\x64" * count
    encoded = urlsafe_b64encode(settings)
    assert read_settings(h2c(encoded if padded else encoded.rstrip(b"="))) == settings


def test_more_settings_than_anybody_has_are_none() -> None:
    assert read_settings(h2c(urlsafe_b64encode(bytes(33 * 6)))) is None


@pytest.mark.parametrize("settings", [b"A", b"AA", b"AAAAAAA", b"AAAAAAAAAA", b"AAAA AAA"])
def test_settings_that_are_none(settings: bytes) -> None:
    assert read_settings(h2c(settings)) is None


@pytest.mark.parametrize("without", [b"connection", b"upgrade", b"http2-settings"])
def test_all_three_fields_are_needed(without: bytes) -> None:
    headers = h2c(urlsafe_b64encode(SETTINGS))
    assert read_settings(headers) == SETTINGS
    assert read_settings([field for field in headers if field[0] != without]) is None


def test_two_settings_fields_are_one_too_many() -> None:
    headers = h2c(urlsafe_b64encode(SETTINGS))
    assert read_settings([*headers, headers[-1]]) is None


def test_lists_may_be_of_several_fields() -> None:
    headers = h2c(urlsafe_b64encode(SETTINGS), upgrade=b"websocket", connection=b"Upgrade")
    assert read_settings(headers) is None
    more = [(b"upgrade", b"x/1 , h2c"), (b"connection", b"HTTP2-Settings")]
    assert read_settings(headers + more) == SETTINGS


def test_the_preface_has_two_halves() -> None:
    assert PREFACE_HEAD.endswith(b"\r\n\r\n")
    assert PREFACE == PREFACE_HEAD + b"SM\r\n\r\n"


def test_the_answer_is_a_response_without_a_body() -> None:
    client = Connection(CLIENT)
    asked = [("host", "a.example"), ("connection", "upgrade"), ("upgrade", "h2c")]
    client.send(Request(method="GET", target="/", headers=asked))
    client.send(EndOfMessage())
    client.receive_data(SWITCHING + PREFACE)
    answer = client.next_event()
    assert isinstance(answer, InformationalResponse)
    assert answer.status_code == 101
    assert sorted(answer.headers) == [(b"connection", b"Upgrade"), (b"upgrade", b"h2c")]
    assert client.trailing_data == (PREFACE, False)
