"""What a master reads off a worker that has ended, or that hangs; and that a failed start leaves nothing behind."""

import os
import resource
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from appserver.net.listeners import Listener
from appserver.process.spawn import Worker, explain_exit, start_worker
from appserver.settings import Settings
from appserver.system.notify import hear


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-signal.SIGKILL, "was killed by SIGKILL, perhaps for lack of memory"),
        (-signal.SIGRTMIN - 7, "was killed by 41"),
    ],
)
def test_an_exit_code_in_words(code: int, text: str) -> None:
    assert explain_exit(code) == text


# --- descriptors ------------------------------------------------------------------------------------------------------


@pytest.fixture
def limit() -> Iterator[int]:
    """The soft limit of descriptors, put back at the end."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def start() -> Worker:
    # It ends at once: there is no application.
    return start_worker(1, 1, Settings(app="nothing_at_all:app"), {"PYTHONPATH": "/nowhere"}, [], voice=2)


def test_a_start_that_fails_for_want_of_descriptors_leaves_none_behind(limit: int) -> None:
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()) + 20, limit)
    )
    spare: list[int] = []
    try:
        with suppress(OSError):
            while True:
                spare.append(os.dup(0))
        failed = 0
        assert not has_children()
        while True:
            try:
                worker = start()
            except OSError:
                failed += 1
            else:
                break
            assert not has_children(), "a process runs that nobody watches"
            assert count_free() == failed - 1, f"with {failed - 1} descriptors free, some were left open"
            os.close(spare.pop())  # the next time there is one more
        worker.signal(signal.SIGKILL)
        worker.reap()
        assert count_free() == failed
    finally:
        for descriptor in spare:
            os.close(descriptor)
    assert failed > 5


def count_free() -> int:
    """How many descriptors can be opened."""
    opened: list[int] = []
    with suppress(OSError):
        while True:
            opened.append(os.dup(0))
    for descriptor in opened:
        os.close(descriptor)
    return len(opened)


def has_children() -> bool:
    """Whether there are any, zombies too; asked without a descriptor."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def test_a_worker_that_has_ended_takes_signals_without_harm() -> None:
    worker = start()
    worker.signal(signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    worker.signal(signal.SIGTERM)
    worker.explain()
    worker.retire()
    assert worker.stacks() == ""
    assert worker.reap() == -signal.SIGKILL


def test_a_worker_leaves_at_a_word_that_it_knows_and_at_no_other() -> None:
    """A later version may take its master over, and knows more words."""
    settings = Settings(app="behaviour:app", app_dir=str(Path(__file__).parents[2] / "apps"), log_level="error")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        voice = os.eventfd(1)
        worker = start_worker(1, 1, settings, os.environ, [Listener(sock, "web")], voice=voice)
        os.close(voice)
    told: list[dict[str, str]] = []

    def wait_for(name: str) -> None:
        while not any(name in said for said in told):
            assert select.select([worker.line], [], [], 30)[0], told
            said, open_ = hear(worker.line)
            told.extend(said)
            assert open_, told

    wait_for("READY")
    worker.line.send(b"a word of a later version")
    worker.line.send(b'{"ask": "log-level", "level": "error", "id": 1}')
    wait_for("X_ANSWER")  # so the word before it has been read
    assert not any("STOPPING" in said for said in told)
    worker.retire()
    wait_for("STOPPING")
    assert worker.reap() == 0


def test_a_worker_that_leaves_already_cuts_nothing_when_its_master_retires_it() -> None:
    """As where an operator tells it to leave while its successor becomes ready."""
    settings = Settings(app="behaviour:app", app_dir=str(Path(__file__).parents[2] / "apps"), log_level="critical")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        voice = os.eventfd(1)
        worker = start_worker(1, 1, settings, os.environ, [Listener(sock, "web")], voice=voice)
        os.close(voice)

        def wait_for(name: str) -> None:
            while True:
                assert select.select([worker.line], [], [], 30)[0], name
                told, open_ = hear(worker.line)
                if any(name in said for said in told):
                    return
                assert open_, name

        wait_for("READY")
        with socket.create_connection(sock.getsockname(), timeout=30) as client, client.makefile("rb") as answer:
            client.sendall(b"GET /stream?seconds=1 HTTP/1.1\r\nHost: shop\r\n\r\n")
            while (line := answer.readline()) != b"first\r\n":
                assert line, "no answer"
            worker.signal(signal.SIGTERM)
            wait_for("STOPPING")
            worker.retire()
            assert answer.readline() + answer.readline() == b"5\r\n last\r\n"
    assert worker.reap() == 0
