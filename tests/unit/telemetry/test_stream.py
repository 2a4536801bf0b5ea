"""Lines into a pipe whose reader does as it likes."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Final, TextIO

import pytest

from appserver.telemetry import stream as stream_module
from appserver.telemetry.log import build
from appserver.telemetry.stream import StalledError, Stream

STALL = 0.2
LONG_STALL = 15.0
"""So long that no wait at all is told from a machine that is busy."""

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


def test_a_line_waits_for_its_reader_a_little_and_the_next_ones_not_at_all(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Stream(pipe[1])
    assert STALL * 0.9 <= fill(sink) < LONG_STALL
    monkeypatch.setattr(stream_module, "STALL_SECONDS", LONG_STALL)
    assert sum(stall(sink) for _ in range(20)) < LONG_STALL


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


def test_a_batch_is_taken_as_far_as_the_pipe_does_and_nothing_waits(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STALL_SECONDS", LONG_STALL)
    reading, writing = pipe
    sink = Stream(writing)
    lines = [b"%0999d\n" % number for number in range(10)]
    begun = monotonic()
    assert sink.offer(lines) == 4  # what is whole in PIPE_BUF bytes
    assert sink.offer(lines) == 0
    assert monotonic() - begun < LONG_STALL
    data = drain(reading)
    assert sink.wait(STALL)
    assert data + drain(reading) == b"".join(lines[:4])


def test_a_batch_does_not_wait_for_a_thread_that_waits(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STALL_SECONDS", LONG_STALL)
    reading, writing = pipe
    sink = Stream(writing)
    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(fill, sink)
        while sink._lock.acquire(blocking=False):
            sink._lock.release()
        assert sink.offer([b"line\n"]) == 0
        assert not filling.done()
        while not filling.done():
            drain(reading)
        filling.result()


WRITER: Final = """
import sys
from appserver.telemetry import stream
stream.STALL_SECONDS = 60.0
sink = stream.Stream(sys.stdout)
for _ in range(50):
    sink.write(sys.argv[1].encode() * 10_000 + b"\\n")
    while not sink.offer([sys.argv[1].encode() * 500 + b"\\n"]):
        assert sink.wait(60)
"""

HOLDER: Final = """
import fcntl, sys, time
fcntl.lockf(1, fcntl.LOCK_EX)
sys.stderr.write("held\\n")
time.sleep(600)
"""


def test_no_process_tears_the_long_line_of_another(pipe: tuple[int, TextIO]) -> None:
    reading, writing = pipe
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, letter], stdout=writing) for letter in "abc"]
    writing.close()
    data = b""
    while more := os.read(reading, 65536):
        data += more
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    wanted = [letter * size for letter in (b"a", b"b", b"c") for size in (500, 10_000) for _ in range(50)]
    assert sorted(data.splitlines()) == sorted(wanted)


@pytest.fixture
def holder(pipe: tuple[int, TextIO]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands still in the midst of its line."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=pipe[1], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_a_process_that_stands_still_in_its_line_costs_others_no_line_and_little_time(
    pipe: tuple[int, TextIO], holder: subprocess.Popen[bytes]
) -> None:
    reading, writing = pipe
    sink = Stream(writing)
    assert sink.offer([b"later\n"]) == 0
    begun = monotonic()
    sink.write(b"one\n")
    assert monotonic() - begun >= STALL * 0.9
    assert drain(reading) == b"one\n"
    holder.kill()
    holder.wait()
    assert sink.offer([b"later\n"]) == 1
    assert drain(reading) == b"later\n"


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
