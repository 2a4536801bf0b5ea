"""What a master leaves to the next image of itself, of this version or another."""

import asyncio
import json
import os
import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final

import pytest

from appserver.net.listeners import Listener
from appserver.process import policy
from appserver.process.crew import Crew
from appserver.process.estate import (
    FORMAT,
    Estate,
    EstateError,
    Tally,
    WorkerRecord,
    adopt_crew,
    adopt_listeners,
    adopt_worker,
    gather,
    read,
    take,
)
from appserver.process.generation import Generation
from appserver.process.spawn import Worker
from appserver.settings import Settings
from appserver.system.image import ESTATE
from appserver.telemetry.log import build

PATIENCE: Final = 20.0
NOTHING = Settings(app="nothing_at_all:app", log_level="critical")
LEAST: dict[str, Any] = {
    "format": FORMAT,
    "version": "9",
    "listeners": [{"fd": 3, "name": "web"}],
    "generations": [{"number": 4, "wanted": 1, "voice": 5, "workers": []}],
    "current": 4,
    "fixed": {},
    "tally": {},
}


def file_of(content: object) -> int:
    descriptor = os.memfd_create("estate")
    os.write(descriptor, content if isinstance(content, bytes) else json.dumps(content).encode())
    return descriptor


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[list[Listener]]:
    path = tmp_path / "control.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        yield [
            Listener(tcp, "web", tls=True, http2=True, inherited=True, activated=True),
            Listener(unix, str(path), control=True, path=(path, path.lstat())),
        ]


def again(listener: Listener) -> Listener:
    """The same on a descriptor of its own: in a test the image before lives on."""
    return replace(listener, sock=listener.sock.dup(), path=None)


def test_listeners_are_as_they_were(listeners: list[Listener]) -> None:
    copies = [again(listener) for listener in listeners]
    copies[1].path = listeners[1].path
    log = build("critical", "json")

    async def gathered() -> Estate:
        return gather(copies, Crew([], log, asyncio.get_running_loop()), Settings(), Tally())

    adopted = adopt_listeners(asyncio.run(gathered()))
    for before, after in zip(listeners, adopted, strict=True):
        assert (after.url, after.name, after.control) == (before.url, before.name, before.control)
        assert (after.tls, after.http2) == (before.tls, before.http2)
        assert (after.inherited, after.activated) == (before.inherited, before.activated)
        assert not after.sock.getblocking()
    assert listeners[1].path is not None
    path, _ = listeners[1].path
    adopted[0].close()
    adopted[1].close()
    assert not path.exists()
    for copy in copies:
        copy.sock.detach()


def test_a_file_that_is_another_ones_by_now_is_not_removed(listeners: list[Listener]) -> None:
    assert listeners[1].path is not None
    path, _ = listeners[1].path
    copy = again(listeners[1])
    copy.path = listeners[1].path
    path.unlink()
    path.touch()
    log = build("critical", "json")

    async def gathered() -> Estate:
        return gather([copy], Crew([], log, asyncio.get_running_loop()), Settings(), Tally())

    (adopted,) = adopt_listeners(asyncio.run(gathered()))
    adopted.close()
    copy.sock.detach()
    assert path.exists()


def begin_child(program: str) -> WorkerRecord:
    """A child as the image before has left it: of a process object nothing is known."""
    pid = os.posix_spawnp("sh", ["sh", "-c", program], os.environ)
    line, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.close()
    stacks = os.memfd_create("stacks")
    return WorkerRecord(pid, line.detach(), stacks, 1, "leaving", 1.0, 2.0, 3.0, ["serving"])


@pytest.mark.parametrize(("program", "code"), [("exit 3", 3), ("exit 0", 0), ("kill -9 $$", -signal.SIGKILL)])
def test_workers_of_the_image_before_are_watched_to_their_end(program: str, code: int) -> None:
    log = build("critical", "json")

    async def live() -> None:
        loop = asyncio.get_running_loop()
        record, voice = begin_child(program), os.eventfd(0)
        told = {**LEAST, "written": monotonic() - 100, "tally": {"lost": 3, "last": 6, "past": {"answered": 9}}}
        told["generations"] = [{"number": 4, "wanted": 1, "voice": voice, "retired": True, "workers": [asdict(record)]}]
        crew = Crew([], log, loop)
        generation = adopt_crew(read(file_of(told)), crew, loop)
        (worker,) = crew.workers
        assert (worker.pid, worker.begun) == (record.pid, 3.0)
        # What it has said while nobody listened has yet to be heard.
        late = worker.since - 1.0
        assert 100 <= late < 100 + PATIENCE
        assert worker.beat == pytest.approx(2.0 + late)
        assert (crew.lost, crew.last, crew.past.answered, crew.current) == (3, 6, 9, generation)
        # It can be left once more.
        (again,) = gather([], crew, Settings(), Tally()).generations
        (kept,) = again.workers
        assert (kept.pid, kept.line, kept.stacks) == (record.pid, record.line, record.stacks)
        assert kept.been == ["leaving", "serving"]
        while worker.exit_code is None:
            crew.left.clear()
            await crew.left.wait()
        assert worker.exit_code == code
        assert crew.workers == []

    asyncio.run(live())


def test_a_worker_that_ends_while_none_is_watched_is_heard_of_afterwards() -> None:
    log = build("critical", "json")

    async def live() -> None:
        crew = Crew([], log, asyncio.get_running_loop())
        generation = crew.begin(NOTHING, os.environ)
        crew.hold()
        (worker,) = crew.workers
        with selectors.DefaultSelector() as selector:
            selector.register(worker.pidfd, selectors.EVENT_READ)
            assert selector.select(PATIENCE)
        await asyncio.sleep(0.05)
        assert not generation.complete.done()
        crew.resume()
        failure = await generation.settle()
        assert failure is not None
        assert failure.startswith("a worker ended with exit code 3 before it was ready: nothing_at_all:app: no module")
        crew.retire(generation)

    asyncio.run(live())


# --- other versions ---------------------------------------------------------------------------------------------------


def test_what_another_version_leaves_out_has_a_default() -> None:
    estate = read(file_of(LEAST))
    assert (estate.listeners[0].tls, estate.generations[0].settings, estate.tally.lost) == (False, {}, 0)
    assert estate.descriptors == [3, 5]


def test_what_is_not_known_here_is_passed_over() -> None:
    richer = {**LEAST, "weather": "fine", "listeners": [{"fd": 3, "name": "web", "quic": True}]}
    assert read(file_of(richer)).listeners == read(file_of(LEAST)).listeners


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04",
        b"[]",
        b"7",
        {},
        {**LEAST, "format": FORMAT + 1},
        {**LEAST, "current": 5},
        {**LEAST, "generations": 7},
        {**LEAST, "generations": [{"number": 4}]},
        {**LEAST, "listeners": [{"name": "web"}]},
        {**LEAST, "tally": []},
    ],
)
def test_what_cannot_be_read_is_an_error(content: object) -> None:
    with pytest.raises(EstateError):
        read(file_of(content))


def test_a_state_that_has_no_name_here_is_left_to_end() -> None:
    record = replace(begin_child("exit 0"), state="meditating")

    async def adopt() -> Worker:
        complete = asyncio.get_running_loop().create_future()
        return adopt_worker(record, Generation(1, NOTHING, 1, {}, complete, voice=0))

    worker = asyncio.run(adopt())
    assert worker.state == policy.LEAVING
    assert worker.reap() == 0


@pytest.mark.parametrize("number", ["999999", "-1", "many", ""])
def test_a_variable_that_names_no_file_is_an_error(number: str) -> None:
    environ = {ESTATE: number}
    with pytest.raises(EstateError):
        take(environ)
    assert environ == {}


def test_nothing_that_was_taken_is_inherited_further() -> None:
    voice, sock = os.eventfd(0), socket.socket()
    with closing(sock):
        os.set_inheritable(voice, True)
        sock.set_inheritable(True)
        told = {
            **LEAST,
            "listeners": [{"fd": sock.fileno(), "name": "web"}],
            "generations": [{"number": 4, "wanted": 1, "voice": voice, "workers": []}],
        }
        take({ESTATE: str(file_of(told))})
        assert (os.get_inheritable(voice), sock.get_inheritable()) == (False, False)
    os.close(voice)
