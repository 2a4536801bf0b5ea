"""RFC 9113 section 6.5: SETTINGS."""

from collections.abc import Callable

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.frames import MAX_WINDOW, PREFACE, SETTINGS_ACK, Code, Flag, Kind, Setting, frame

Connect = Callable[[], Client]


@pytest.mark.parametrize("values", [{}, {Setting.MAX_CONCURRENT_STREAMS: 1, Setting.MAX_HEADER_LIST_SIZE: 100_000}])
def test_settings_are_acknowledged(client: Client, values: dict[int, int]) -> None:
    """6.5.3: each of them once."""
    before = client.ledger.acks
    for _ in range(3):
        client.set(values)
    client.sync()
    assert client.ledger.acks == before + 3
    client.expect_alive()


def test_an_acknowledgement_is_not_acknowledged(client: Client) -> None:
    """6.5.3: one that nothing was sent for is ignored, or is a connection error."""
    before = client.ledger.acks
    client.send(SETTINGS_ACK, SETTINGS_ACK)
    client.expect_ignored(Code.PROTOCOL_ERROR)
    assert client.ledger.acks == before


@pytest.mark.parametrize("size", [1, 6, 8])
def test_an_acknowledgement_with_a_payload(client: Client, size: int) -> None:
    """6.5: a connection error of type FRAME_SIZE_ERROR."""
    client.send(frame(Kind.SETTINGS, bytes(size), flags=Flag.ACK))
    client.expect_goaway(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize("stream", [1, 2, 2**31 - 1])
@pytest.mark.parametrize("ack", [False, True])
def test_settings_on_a_stream(client: Client, stream: int, ack: bool) -> None:
    """6.5: a connection error of type PROTOCOL_ERROR."""
    client.send(frame(Kind.SETTINGS, stream=stream, flags=Flag.ACK if ack else Flag.NONE))
    client.expect_goaway(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("size", [1, 3, 5, 7, 11])
def test_settings_of_a_wrong_length(client: Client, size: int) -> None:
    """6.5: a connection error of type FRAME_SIZE_ERROR."""
    client.send(frame(Kind.SETTINGS, bytes(size)))
    client.expect_goaway(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (Setting.ENABLE_PUSH, 2, Code.PROTOCOL_ERROR),
        (Setting.ENABLE_PUSH, 2**32 - 1, Code.PROTOCOL_ERROR),
        (Setting.INITIAL_WINDOW_SIZE, 2**31, Code.FLOW_CONTROL_ERROR),
        (Setting.INITIAL_WINDOW_SIZE, 2**32 - 1, Code.FLOW_CONTROL_ERROR),
        (Setting.MAX_FRAME_SIZE, 0, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 2**14 - 1, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 2**24, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 2**32 - 1, Code.PROTOCOL_ERROR),
    ],
)
@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
def test_values_out_of_bounds(connect: Connect, name: Setting, value: int, code: Code, first: bool) -> None:
    """6.5.2: a connection error of the type that each names."""
    client = connect()
    if first:
        client.send(PREFACE)
    else:
        client.start()
    client.send(frames.settings({name: value}))
    client.expect_goaway(code)


@pytest.mark.parametrize(
    "values",
    [
        {Setting.HEADER_TABLE_SIZE: 0},
        {Setting.HEADER_TABLE_SIZE: 2**32 - 1},
        {Setting.ENABLE_PUSH: 0},
        {Setting.ENABLE_PUSH: 1},
        {Setting.MAX_CONCURRENT_STREAMS: 0},
        {Setting.MAX_CONCURRENT_STREAMS: 2**32 - 1},
        {Setting.INITIAL_WINDOW_SIZE: MAX_WINDOW},
        {Setting.MAX_FRAME_SIZE: 2**14},
        {Setting.MAX_FRAME_SIZE: 2**24 - 1},
        {Setting.MAX_HEADER_LIST_SIZE: 2**32 - 1},
        {Setting.NO_RFC7540_PRIORITIES: 1},
        {0x0: 1},
        {0x7: 2**32 - 1},
        {0xABAB: 5, Setting.ENABLE_PUSH: 0},
        {0xFFFF: 2**32 - 1},
    ],
    ids=repr,
)
def test_values_within_bounds(connect: Connect, values: dict[int, int]) -> None:
    """6.5.2: unknown ones are ignored."""
    client = connect()
    client.start(values)
    client.expect_alive()


def test_a_setting_twice_in_one_frame(client: Client) -> None:
    """6.5.3: values are processed in their order: the last one holds."""
    setting = Setting.INITIAL_WINDOW_SIZE.to_bytes(2)
    client.set({Setting.INITIAL_WINDOW_SIZE: 100})
    client.send(frame(Kind.SETTINGS, setting + (1000).to_bytes(4) + setting + (1).to_bytes(4)))
    client.sync()
    client.ledger.resize(1)
    stream = client.ask(b"/bytes?10")
    client.sync()
    assert len(client.ledger.answer(stream).body) == 1


def test_a_bad_value_behind_a_good_one(client: Client) -> None:
    """6.5.3: in their order, and none of them is lost."""
    client.send(frames.settings({Setting.MAX_CONCURRENT_STREAMS: 5, 0x99: 1, Setting.ENABLE_PUSH: 3}))
    client.expect_goaway(Code.PROTOCOL_ERROR)


def test_larger_frames_for_the_client(client: Client) -> None:
    """6.5.2, 4.2: they may be used from then on, and no longer once the limit is lower."""
    client.set({Setting.MAX_FRAME_SIZE: 2**20, Setting.INITIAL_WINDOW_SIZE: 2**20})
    client.grant(0, 2**20)
    assert len(client.expect_answer(client.ask(b"/bytes?300000")).body) == 300_000
    client.set({Setting.MAX_FRAME_SIZE: 2**14})
    assert len(client.expect_answer(client.ask(b"/bytes?300000")).body) == 300_000


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 65_536])
def test_the_table_of_the_servers_encoder(client: Client, size: int) -> None:
    """4.3.1: a reduced table is announced in the next block; this client's decoder refuses what is not."""
    client.expect_answer(client.ask())
    client.ledger.decoder.max_allowed_table_size = size
    client.set({Setting.HEADER_TABLE_SIZE: size})
    for _ in range(3):
        client.expect_answer(client.ask())


def test_a_table_that_shrinks_and_grows_again(client: Client) -> None:
    """RFC 7541 section 4.2: the smallest size in between is announced too."""
    client.expect_answer(client.ask())
    client.set({Setting.HEADER_TABLE_SIZE: 0})
    client.set({Setting.HEADER_TABLE_SIZE: 4096})
    for _ in range(3):
        client.expect_answer(client.ask())
