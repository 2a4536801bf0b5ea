"""The service manager's word that memory is short, from each kind of file that may tell it."""

import asyncio
import base64
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from appserver.system.pressure import Pressure, open_pressure, take_variables

PSI = Path("/proc/pressure/memory")


def hears(pressure: Pressure, make: Callable[[], object]) -> list[bool]:
    """What `take` says as often as a loop of each kind finds it readable, after `make`."""
    told = []
    for make_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            told.append(runner.run(_hear(pressure, make)))
    return told


async def _hear(pressure: Pressure, make: Callable[[], object]) -> bool:
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bool] = loop.create_future()
    loop.add_reader(pressure.fileno(), lambda: None if heard.done() else heard.set_result(pressure.take()))
    await asyncio.sleep(0.05)
    assert not heard.done(), "nothing has been told"
    make()
    async with asyncio.timeout(10):
        told = await heard
    loop.remove_reader(pressure.fileno())
    return told


def open_(path: Path | str, text: bytes | None = None) -> Pressure:
    variables = {"MEMORY_PRESSURE_WATCH": str(path)}
    if text is not None:
        variables["MEMORY_PRESSURE_WRITE"] = base64.b64encode(text).decode()
    pressure = open_pressure(variables)
    assert pressure is not None
    return pressure


@pytest.mark.parametrize("variables", [{}, {"MEMORY_PRESSURE_WATCH": "/dev/null"}, {"MEMORY_PRESSURE_WATCH": ""}])
def test_without_a_path_nothing_is_watched(variables: dict[str, str]) -> None:
    assert open_pressure(variables) is None


def test_a_fifo_tells_each_time_that_something_is_written_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "pressure"
    os.mkfifo(path)
    # What is to be written would be read by ourselves.
    pressure = open_(path, b"some 100000 2000000")
    assert hears(pressure, lambda: path.write_bytes(b"x" * 5000)) == [True, True]
    pressure.close()


def test_a_socket_is_told_what_is_wanted_and_tells_until_it_is_closed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "pressure"))
        listener.listen()
        pressure = open_(tmp_path / "pressure", b"any\0bytes")
        peer, _ = listener.accept()
    with peer:
        assert peer.recv(100) == b"any\0bytes"
        assert hears(pressure, lambda: peer.send(b"!")) == [True, True]
    assert pressure.take() is False
    pressure.close()


@pytest.mark.skipif(not os.access(PSI, os.W_OK), reason="the kernel tells no pressure, or not to us")
def test_the_kernels_file_takes_what_systemd_has_us_write() -> None:
    # As systemd writes it, with its NUL; two seconds are what the kernel grants everybody.
    pressure = open_(PSI, b"some 1900000 2000000\0")
    assert pressure.take() is True
    pressure.close()


@pytest.mark.parametrize(
    ("watch", "write", "why"),
    [
        ("/nowhere/memory.pressure", None, "MEMORY_PRESSURE_WATCH=/nowhere/memory.pressure: No such file or directory"),
        ("/dev/zero", None, "MEMORY_PRESSURE_WATCH=/dev/zero: expected a file of the kernel, a FIFO or a UNIX socket"),
        ("/etc/passwd", None, "MEMORY_PRESSURE_WATCH=/etc/passwd: Operation not permitted"),
        ("/etc/passwd", "%", "MEMORY_PRESSURE_WRITE=%: expected Base64"),
    ],
)
def test_what_cannot_be_watched_is_an_error_that_names_it(watch: str, write: str | None, why: str) -> None:
    variables = {"MEMORY_PRESSURE_WATCH": watch} | ({} if write is None else {"MEMORY_PRESSURE_WRITE": write})
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ValueError, match=why):
        open_pressure(variables)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environ = {"MEMORY_PRESSURE_WATCH": "/a", "MEMORY_PRESSURE_WRITE": "b", "PATH": "/bin"}
    assert take_variables(environ) == {"MEMORY_PRESSURE_WATCH": "/a", "MEMORY_PRESSURE_WRITE": "b"}
    assert environ == {"PATH": "/bin"}
