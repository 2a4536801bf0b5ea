"""RFC 9113 section 10.5: floods end in GOAWAY, and cost no more memory than an honest client does.

In this process time stands still unless a test moves it: what is a flood must be one at any speed of the machine.
"""

import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from tests.conformance.http2 import frames
from tests.conformance.http2.client import Client
from tests.conformance.http2.fields import REQUEST, STATIC, indexed, literal, resize
from tests.conformance.http2.frames import Code, Kind, Setting, frame
from tests.conformance.http2.memory import Memory

Connect = Callable[[], Client]
Flood = Callable[[], Iterator[bytes]]

COUNT = 20_000
"""Frames of a flood; the end must come long before."""

BATCH = 50
"""Frames of one write, at most."""

WRITE = 64 * 1024
"""Bytes of one write, about: what the client itself holds is not to be measured."""

HELD = indexed(2) + indexed(6) + literal(1, b"a.example") + literal(4, b"/hold")
"""A request that is not answered."""

MEMORY = 2 * 1024 * 1024
"""Bytes that a connection may hold, whatever comes; its windows alone are 1 MiB."""


def rapid_reset() -> Iterator[bytes]:
    """CVE-2023-44487: requests that are cancelled at once."""
    for number in range(COUNT):
        stream = 2 * number + 1
        yield frames.headers(stream, REQUEST) + frames.rst_stream(stream)


def rapid_reset_of_bodies() -> Iterator[bytes]:
    """The same with requests that were not whole yet."""
    for number in range(COUNT):
        stream = 2 * number + 1
        yield frames.headers(stream, REQUEST, end=False) + frames.rst_stream(stream)


def made_reset() -> Iterator[bytes]:
    """CVE-2025-8671: requests that the server is made to reset, here by a window update of nothing."""
    for number in range(COUNT):
        stream = 2 * number + 1
        yield frames.headers(stream, REQUEST, end=False) + frames.window_update(stream, 0)


def made_reset_by_data() -> Iterator[bytes]:
    """By DATA behind the end."""
    for number in range(COUNT):
        stream = 2 * number + 1
        yield frames.headers(stream, HELD) + frames.data(stream, b"late")


def made_reset_by_window() -> Iterator[bytes]:
    """By a window over its maximum."""
    for number in range(COUNT):
        stream = 2 * number + 1
        yield frames.headers(stream, HELD) + frames.window_update(stream, frames.MAX_WINDOW)


def malformed() -> Iterator[bytes]:
    """By requests that are none."""
    for number in range(COUNT):
        stream = 2 * number + 1
        yield frames.headers(stream, REQUEST[1:])


def too_many() -> Iterator[bytes]:
    """By streams over the limit."""
    for number in range(COUNT):
        stream = 2 * number + 1
        yield frames.headers(stream, HELD)


def pings() -> Iterator[bytes]:
    """CVE-2019-9512."""
    for _ in range(COUNT):
        yield frames.ping()


def all_settings() -> Iterator[bytes]:
    """CVE-2019-9515."""
    for _ in range(COUNT):
        yield frames.settings()


def large_settings() -> Iterator[bytes]:
    """As many values as go into a frame."""
    for _ in range(COUNT):
        yield frame(Kind.SETTINGS, (Setting.INITIAL_WINDOW_SIZE.to_bytes(2) + (70_000).to_bytes(4)) * 2000)


def acknowledgements() -> Iterator[bytes]:
    """Of settings and pings that were never sent."""
    for _ in range(COUNT):
        yield frames.SETTINGS_ACK + frames.ping(ack=True)


def priorities() -> Iterator[bytes]:
    """CVE-2019-9513: for streams that are idle, each another one."""
    for number in range(COUNT):
        yield frames.priority(2 * number + 1)


def priority_updates() -> Iterator[bytes]:
    """The same in the new way."""
    for number in range(COUNT):
        yield frames.priority_update(2 * number + 1)


def unknown() -> Iterator[bytes]:
    """Extensions that nobody speaks."""
    for _ in range(COUNT):
        yield frame(0x7F)


def goaways() -> Iterator[bytes]:
    """Leaving for ever, with a request that goes on."""
    yield frames.headers(1, HELD)
    for _ in range(COUNT):
        yield frames.goaway()


def empty_data() -> Iterator[bytes]:
    """CVE-2019-9518."""
    yield frames.headers(1, REQUEST, end=False)
    for _ in range(COUNT):
        yield frames.data(1)


def padding_alone() -> Iterator[bytes]:
    """The same, but for its size."""
    yield frames.headers(1, REQUEST, end=False)
    for _ in range(COUNT):
        yield frames.data(1, padding=0)


def window_updates() -> Iterator[bytes]:
    """Of the connection, by ones."""
    yield frames.headers(1, HELD)
    for _ in range(COUNT):
        yield frames.window_update(0, 1)


def window_updates_of_a_stream() -> Iterator[bytes]:
    """Of a stream that has nothing to send."""
    yield frames.headers(1, HELD)
    for _ in range(COUNT):
        yield frames.window_update(1, 1)


def continuations() -> Iterator[bytes]:
    """CVE-2024-27316: a block that never ends."""
    yield frames.headers(1, REQUEST, whole=False)
    for number in range(COUNT):
        yield frames.continuation(1, literal(b"x-%d" % number, b"y"), whole=False)


def empty_continuations() -> Iterator[bytes]:
    """The same without a byte in it."""
    yield frames.headers(1, REQUEST, whole=False)
    for _ in range(COUNT):
        yield frames.continuation(1, b"", whole=False)


def large_continuations() -> Iterator[bytes]:
    """As large as frames may be."""
    yield frames.headers(1, REQUEST, whole=False)
    for _ in range(1000):
        yield frames.continuation(1, literal(b"x", b"y" * 16_000), whole=False)


FLOODS: list[Flood] = [
    rapid_reset,
    rapid_reset_of_bodies,
    made_reset,
    made_reset_by_data,
    made_reset_by_window,
    malformed,
    too_many,
    pings,
    all_settings,
    large_settings,
    acknowledgements,
    priorities,
    priority_updates,
    unknown,
    goaways,
    empty_data,
    padding_alone,
    window_updates,
    window_updates_of_a_stream,
    continuations,
    empty_continuations,
    large_continuations,
]


def pour(client: Client, flood: Flood) -> int:
    """Send it until the server has had enough; how many of its pieces that took."""
    batch, sent, size = [], 0, 0
    for piece in flood():
        batch.append(piece)
        size += len(piece)
        if len(batch) == BATCH or size > WRITE:
            client.send(*batch)
            sent, size = sent + len(batch), 0
            batch.clear()
            if client.pipe.over:
                break
    client.send(*batch)
    return sent


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_flood_ends_the_connection(connect: Connect, flood: Flood) -> None:
    """10.5: by GOAWAY with ENHANCE_YOUR_CALM, and others are served on."""
    client = connect()
    client.start()
    pour(client, flood)
    client.expect_goaway(Code.ENHANCE_YOUR_CALM)
    other = connect()
    other.start()
    other.expect_alive()


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_flood_holds_no_memory(local: Client, flood: Flood) -> None:
    """10.5: at its worst, this client's own part included."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        pour(local, flood)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < MEMORY


@pytest.mark.parametrize(
    "flood", [pings, all_settings, priorities, window_updates, unknown, empty_data], ids=lambda flood: flood.__name__
)
def test_what_comes_slowly_is_no_flood(local: Client, memory: Memory, flood: Flood) -> None:
    """10.5: 20 a second, for as long as it takes to send more than any budget."""
    for number, piece in enumerate(flood()):
        memory.clock.now += 0.05
        local.send(piece)
        if number == 4000:
            break
    local.sync()
    assert not local.ledger.goaways


def test_a_browser_that_changes_its_mind_is_no_flood(local: Client, memory: Memory) -> None:
    """10.5: a page of 100 requests, given up for the next one, ten times a minute."""
    for _ in range(30):
        streams = [local.ask(b"/hold") for _ in range(100)]
        local.send(*(frames.rst_stream(stream) for stream in streams))
        memory.clock.now += 6.0
    local.expect_alive()


def test_a_long_download_is_no_flood(local: Client) -> None:
    """10.5: its WINDOW_UPDATEs are its own doing."""
    local.set({Setting.INITIAL_WINDOW_SIZE: 2**20})
    for _ in range(20):
        stream = local.ask(b"/bytes?1000000")
        answer = local.ledger.answer(stream)
        while not answer.ended:
            local.grant(0, 8192)
            local.grant(stream, 8192)
            local.sync()
    assert not local.ledger.goaways


def test_a_long_upload_in_small_pieces_is_no_flood(local: Client) -> None:
    """10.5: what carries bytes is no empty frame."""
    stream = local.ask(method=b"POST", end=False)
    for _ in range(5000):
        local.send(frames.data(stream, b"x"))
    local.send(frames.data(stream, end=True))
    local.expect_answer(stream)


# HPACK


def test_a_bomb_of_references(client: Client) -> None:
    """10.5.1, RFC 7541 section 7: a field of 4 KiB, named again and again with one byte."""
    stream = client.next_stream
    bomb = literal(b"x", b"y" * 4000, indexing=True) + indexed(STATIC + 1) * 12_000
    client.send(frames.headers(stream, REQUEST + bomb))
    answer, ends = client.ledger.answer(stream), client.ledger.goaways
    client.until(lambda: answer.status == 431 or bool(ends), "431, or GOAWAY")
    if ends:
        client.expect_goaway(Code.ENHANCE_YOUR_CALM, Code.COMPRESSION_ERROR)
    else:
        client.expect_alive()


def test_a_bomb_holds_no_memory(local: Client) -> None:
    """10.5.1: 48 MiB, if it were believed."""
    bomb = literal(b"x", b"y" * 4000, indexing=True) + indexed(STATIC + 1) * 12_000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        local.send(frames.headers(1, REQUEST + bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < MEMORY


def test_a_bomb_of_continuations(client: Client) -> None:
    """10.5.1: the same in pieces."""
    client.send(frames.headers(1, REQUEST + literal(b"x", b"y" * 4000, indexing=True), whole=False))
    for _ in range(8):
        client.send(frames.continuation(1, indexed(STATIC + 1) * 16_000, whole=False))
    client.send(frames.continuation(1, b""))
    answer, ends = client.ledger.answer(1), client.ledger.goaways
    client.until(lambda: answer.status == 431 or bool(ends), "431, or GOAWAY")
    if ends:
        client.expect_goaway(Code.ENHANCE_YOUR_CALM, Code.COMPRESSION_ERROR)
    else:
        client.expect_alive()


def test_a_table_that_is_emptied_and_filled(client: Client) -> None:
    """RFC 7541 section 7.3: costs no more than its bytes; each request is answered, or the client is told off."""
    fill = b"".join(literal(b"x-%d" % number, b"y" * 10, indexing=True) for number in range(80))
    block = resize(0) + resize(4096) + indexed(2) + indexed(6) + literal(1, b"a") + literal(4, b"/bytes?0") + fill
    for _ in range(50):
        stream = client.next_stream
        client.send(frames.headers(stream, block))
        client.expect_answer(stream)
    client.expect_alive()


def test_resizes_without_end(client: Client) -> None:
    """RFC 7541 section 4.2: two changes are enough for anyone; thousands are answered, or are an error."""
    client.send(frames.headers(1, resize(0) * 8000 + REQUEST))
    answer, ends = client.ledger.answer(1), client.ledger.goaways
    client.until(lambda: answer.ended or bool(ends), "an answer, or GOAWAY")


def test_an_answer_that_nobody_reads(local: Client) -> None:
    """10.5: windows held at zero; each stream is one of the 100 that a client may have."""
    local.set({Setting.INITIAL_WINDOW_SIZE: 0})
    limit = local.ledger.settings[Setting.MAX_CONCURRENT_STREAMS]
    for _ in range(limit):
        local.ask(b"/bytes?1000")
    extra = local.ask(b"/bytes?1000")
    answer = local.ledger.answer(extra)
    local.until(lambda: answer.reset is not None, "RST_STREAM")
    assert answer.reset == Code.REFUSED_STREAM
