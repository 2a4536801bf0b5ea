"""RFC 9113 section 3.4: the connection preface."""

from collections.abc import Callable

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.frames import PREFACE, SETTINGS_ACK, Code, Kind, Setting

Connect = Callable[[], Client]


def test_the_server_begins_with_settings(connect: Connect) -> None:
    """3.4: the server's preface is SETTINGS, as its first frame; the ledger looks at every first frame."""
    client = connect()
    client.send(PREFACE, frames.settings())
    client.until(lambda: client.ledger.greeted, "SETTINGS")


def test_the_servers_settings_come_without_being_waited_for(connect: Connect) -> None:
    """3.4: requests may follow the client's preface at once."""
    client = connect()
    client.send(PREFACE, frames.settings())
    client.expect_answer(client.ask())


def test_the_clients_settings_are_acknowledged_behind_the_preface(connect: Connect) -> None:
    """3.4, 6.5.3: and with one ACK for one SETTINGS."""
    client = connect()
    client.send(PREFACE, frames.settings())
    client.sync()
    assert client.ledger.acks == 1


def test_the_servers_settings_are_sensible(client: Client) -> None:
    """6.5.2: values within their bounds, and a limit on streams of at least 100, as recommended."""
    settings = client.ledger.settings
    assert settings[Setting.MAX_CONCURRENT_STREAMS] >= 100
    assert 2**14 <= settings.get(Setting.MAX_FRAME_SIZE, 2**14) < 2**24
    assert settings.get(Setting.INITIAL_WINDOW_SIZE, 0) <= 2**31 - 1
    assert settings.get(Setting.ENABLE_PUSH, 0) == 0
    assert settings[Setting.MAX_HEADER_LIST_SIZE] > 0


@pytest.mark.parametrize("cut", range(1, len(PREFACE)))
def test_a_preface_in_two_pieces(connect: Connect, cut: int) -> None:
    """3.4: cut anywhere."""
    client = connect()
    client.send(PREFACE[:cut])
    client.send(PREFACE[cut:], frames.settings())
    client.expect_alive()


def test_everything_byte_by_byte(connect: Connect) -> None:
    """4.1: frames come in whatever pieces."""
    client = connect()
    data = PREFACE + frames.settings({Setting.ENABLE_PUSH: 0}) + SETTINGS_ACK + frames.ping()
    for byte in data:
        client.send(bytes((byte,)))
    client.expect_alive()


@pytest.mark.parametrize(
    "frame",
    [
        frames.ping(),
        frames.window_update(0, 1),
        frames.headers(1, b"\x82\x84\x86\x41\x01a"),
        frames.priority(1),
        frames.goaway(),
        frames.frame(0xFA, b"x"),
    ],
    ids=lambda frame: Kind(frame[3]).name if frame[3] in set(Kind) else "UNKNOWN",
)
def test_another_frame_than_settings_first(connect: Connect, frame: bytes) -> None:
    """3.4: the client's preface includes SETTINGS; without, it is a connection error of type PROTOCOL_ERROR."""
    client = connect()
    client.send(PREFACE, frame)
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_an_acknowledgement_first(connect: Connect) -> None:
    """3.4: SETTINGS with ACK are not the client's settings."""
    client = connect()
    client.send(PREFACE, SETTINGS_ACK)
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_settings_on_a_stream_first(connect: Connect) -> None:
    """3.4, 6.5."""
    client = connect()
    client.send(PREFACE, frames.frame(Kind.SETTINGS, stream=1))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("place", [18, 20, 23])
def test_a_preface_that_goes_wrong_behind_its_first_line(connect: Connect, place: int) -> None:
    """3.4: an invalid preface is a connection error; GOAWAY may be left out, as the peer may speak another protocol."""
    client = connect()
    client.send(PREFACE[:place] + b"X" + PREFACE[place + 1 :], frames.settings())
    try:
        client.expect_closed()
    except AssertionError as error:  # a listener that also speaks HTTP/1.1 answers in that
        raise AssertionError(f"the connection goes on: {client.story}") from error


def test_the_preface_twice(client: Client) -> None:
    """3.4, 4.2: the second one is read as a frame, of 5,263,945 bytes."""
    client.send(PREFACE)
    client.expect_goaway(Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR)
