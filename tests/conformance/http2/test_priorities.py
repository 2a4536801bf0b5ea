"""RFC 9218: extensible priorities."""

from collections.abc import Callable

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.frames import Code, Kind, Setting, frame


def expect_goaway(client: Client, code: Code) -> None:
    """A connection error, where the engine has priorities: its SETTINGS say so. Else the frame is an unknown one."""
    client.until(lambda: client.ledger.greeted, "SETTINGS")
    if client.ledger.settings.get(Setting.NO_RFC7540_PRIORITIES):
        client.expect_goaway(code)
    else:
        assert client.pipe.engine == "h2"
        client.expect_alive()


@pytest.mark.parametrize(
    "value", [b"", b"u=0", b"u=7, i", b"i", b"u=99", b"u=?0", b"not a dictionary (", b"\xff\x00", b"x" * 1000]
)
def test_the_priority_field(client: Client, value: bytes) -> None:
    """Sections 4, 5: what cannot be read is ignored, as long as it is a good field value."""
    good = value.isascii() and b"\0" not in value
    stream = client.ask(b"/", (b"priority", value if good else b"u=\xff"))
    client.expect_answer(stream)
    client.expect_alive()


@pytest.mark.parametrize("value", [b"", b"u=0", b"u=7, i", b"u=99", b"not a dictionary (", b"\xff\x00", b"x" * 1000])
@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_priority_update(client: Client, value: bytes, when: str) -> None:
    """Section 7.1: before, while and after the stream is open; what cannot be read is ignored, or is an error.

    A parse failure may be a connection error of type PROTOCOL_ERROR (section 7.1); we ignore it.
    """
    stream = 1
    if when == "while":
        client.ask(b"/hold")
    elif when == "after":
        client.expect_answer(client.ask())
    client.send(frames.priority_update(stream, value))
    client.expect_alive()


def test_an_answer_follows_its_priority_update(client: Client) -> None:
    """Section 7.1: it is served whatever it says."""
    client.send(frames.priority_update(1, b"u=0"), frames.priority_update(3, b"u=7"))
    first, second = client.ask(b"/bytes?30000"), client.ask(b"/bytes?30000")
    client.expect_answer(second)
    client.expect_answer(first)


def test_priority_update_on_a_stream(client: Client) -> None:
    """Section 7.1: it belongs to stream 0: a connection error of type PROTOCOL_ERROR."""
    client.send(frame(Kind.PRIORITY_UPDATE, b"\0\0\0\1u=1", stream=1))
    expect_goaway(client, Code.PROTOCOL_ERROR)


def test_priority_update_for_no_stream(client: Client) -> None:
    """Section 7.1: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.priority_update(0))
    expect_goaway(client, Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("size", [0, 3])
def test_priority_update_that_is_too_short(client: Client, size: int) -> None:
    """RFC 9113 section 4.2: a connection error of type FRAME_SIZE_ERROR."""
    client.send(frame(Kind.PRIORITY_UPDATE, bytes(size)))
    expect_goaway(client, Code.FRAME_SIZE_ERROR)


def test_priority_update_for_a_push_that_is_idle(client: Client) -> None:
    """Section 7.1: a connection error of type PROTOCOL_ERROR."""
    client.send(frames.priority_update(2))
    expect_goaway(client, Code.PROTOCOL_ERROR)


def test_urgent_answers_come_first(local: Client) -> None:
    """Section 10: where the engine has priorities, which its SETTINGS_NO_RFC7540_PRIORITIES says."""
    local.set({Setting.INITIAL_WINDOW_SIZE: 0})
    late = local.ask(b"/bytes?60000", (b"priority", b"u=7"))
    urgent = local.ask(b"/bytes?60000", (b"priority", b"u=0"))
    if not local.ledger.settings.get(Setting.NO_RFC7540_PRIORITIES):
        assert local.pipe.engine == "h2"
        return
    local.set({Setting.INITIAL_WINDOW_SIZE: 100_000})  # of which the connection's window is the narrower one
    local.sync()
    assert local.ledger.answer(urgent).ended
    assert not local.ledger.answer(late).ended


def test_no_old_priorities(connect: Callable[[], Client]) -> None:
    """Section 2.1: said first, and the same value again."""
    client = connect()
    client.start({Setting.NO_RFC7540_PRIORITIES: 1})
    client.set({Setting.NO_RFC7540_PRIORITIES: 1})
    client.expect_alive()


def test_no_old_priorities_out_of_bounds(connect: Callable[[], Client]) -> None:
    """Section 2.1: any other value than 0 or 1 is a connection error of type PROTOCOL_ERROR."""
    client = connect()
    client.send(frames.PREFACE, frames.settings({Setting.NO_RFC7540_PRIORITIES: 2}))
    expect_goaway(client, Code.PROTOCOL_ERROR)
