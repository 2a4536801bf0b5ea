"""Lines into a pipe whose reader does as it likes."""

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import TextIO

import pytest

from appserver.telemetry import stream as stream_module
from appserver.telemetry.log import build
from appserver.telemetry.stream import StalledError, Stream

STALL = 0.2
LONG = b"x" * 10_000 + b"\n"
"""More than the pipe takes."""


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "STALL_SECONDS", STALL)


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with open(reading, "rb"), open(writing, "w") as write:  # noqa: PTH123 - descriptors have no path
        yield reading, write


def fill(sink: Stream) -> float:
    """Seconds that a line waits of which the pipe takes but a part."""
    begun = monotonic()
    sink.write(LONG)
    return monotonic() - begun


def stall(sink: Stream) -> float:
    """Seconds that a line waits before it is given up."""
    begun = monotonic()
    with pytest.raises(StalledError):
        sink.write(b"lost\n")
    return monotonic() - begun


def drain(reading: int) -> bytes:
    os.set_blocking(reading, False)
    data = b""
    try:
        while more := os.read(reading, 65536):
            data += more
    except BlockingIOError:
        pass
    return data


def test_a_line_waits_for_its_reader_a_little_and_the_next_ones_not_at_all(pipe: tuple[int, TextIO]) -> None:
    sink = Stream(pipe[1])
    assert STALL * 0.9 <= fill(sink) < STALL * 5
    assert sum(stall(sink) for _ in range(20)) < STALL


def test_when_it_is_read_again_the_torn_line_is_ended_first(pipe: tuple[int, TextIO]) -> None:
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
    sink = Stream(writing)
    fill(sink)
    stall(sink)
    assert drain(reading) == LONG[:8192]
    sink.write(b"whole\n")
    assert drain(reading) == LONG[8192:] + b"whole\n"
    sink.write(b"another\n")
    assert drain(reading) == b"another\n"


def test_a_line_that_was_not_begun_leaves_nothing_to_end(pipe: tuple[int, TextIO]) -> None:
    reading, writing = pipe
    sink = Stream(writing)
    sink.write(b"x" * 4095 + b"\n")
    stall(sink)
    drain(reading)
    sink.write(b"whole\n")
    assert drain(reading) == b"whole\n"


def test_a_reader_that_comes_back_gets_patience_again(pipe: tuple[int, TextIO]) -> None:
    reading, writing = pipe
    sink = Stream(writing)
    fill(sink)
    stall(sink)
    drain(reading)
    assert stall(sink) >= STALL * 0.9


def test_a_line_longer_than_the_pipe_is_written_whole_to_who_reads(pipe: tuple[int, TextIO]) -> None:
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 65536)
    Stream(writing).write(LONG)
    assert drain(reading) == LONG


def test_lines_that_nobody_reads_are_counted(pipe: tuple[int, TextIO]) -> None:
    log = build("info", "json", pipe[1])
    log.info("x" * 10_000)  # begun: its end follows when somebody reads
    log.info("lost")
    log.info("lost")
    assert log.dropped == 2


def test_a_batch_is_taken_as_far_as_the_pipe_does_and_nothing_waits(pipe: tuple[int, TextIO]) -> None:
    reading, writing = pipe
    sink = Stream(writing)
    lines = [b"%0999d\n" % number for number in range(10)]
    begun = monotonic()
    assert sink.offer(lines) == 4  # what is whole in PIPE_BUF bytes
    assert sink.offer(lines) == 0
    assert monotonic() - begun < STALL
    data = drain(reading)
    assert sink.wait(STALL)
    assert data + drain(reading) == b"".join(lines[:4])


def test_a_batch_does_not_wait_for_a_thread_that_waits(pipe: tuple[int, TextIO]) -> None:
    sink = Stream(pipe[1])
    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(fill, sink)
        while sink._lock.acquire(blocking=False):
            sink._lock.release()
        begun = monotonic()
        assert sink.offer([b"line\n"]) == 0
        assert monotonic() - begun < STALL / 2
        filling.result()


def test_a_file_takes_a_batch_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [b"x" * 99_999 + b"\n"] * 50
    with path.open("w") as file:
        assert Stream(file).offer(lines) == 50
    assert path.read_bytes() == b"".join(lines)


def test_a_batch_for_nobody_is_refused() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as broken:  # noqa: PTH123
        sink = Stream(broken)
        with pytest.raises(BrokenPipeError):
            sink.offer([b"line\n"])
