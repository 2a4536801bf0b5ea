"""What a master reads off a worker that has ended, or that hangs; and that a failed start leaves nothing behind."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep

import pytest

from appserver.process.spawn import Worker, explain_exit, find_blocker, start_worker
from appserver.settings import Settings

PROGRAM = """
import faulthandler, signal, sys, threading
faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
sys.path.insert(0, sys.argv[1])
import shop
threading.Thread(target=shop.wait, daemon=True).start()
shop.serve()
"""

SHOP = """\
import re, threading, time

def wait():
    threading.Event().wait()

def serve():
    render()

def render():
    print("here", flush=True)
    LAST
"""


def stacks_of(folder: Path, last: str) -> str:
    """What faulthandler really writes of a process that stands in the line `last`."""
    (folder / "shop.py").write_text(SHOP.replace("LAST", last))
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "here\n"
        sleep(0.2)
        child.send_signal(signal.SIGUSR1)
        sleep(0.2)
        child.kill()
        return child.stderr.read()


@pytest.mark.parametrize(
    "last",
    [
        "time.sleep(9)",
        # The line is the application's, also where it stands in a library that it has called.
        "threading.Event().wait(9)",
        "sum(iter(int, 1))",
    ],
)
def test_the_blocker_is_the_innermost_line_of_the_application(last: str, tmp_path: Path) -> None:
    stacks = stacks_of(tmp_path, last)
    assert stacks.count("most recent call first") >= 2
    assert find_blocker(stacks) == f"{tmp_path}/shop.py:11 in render"


def test_a_stack_of_libraries_alone_is_named_by_its_innermost_line() -> None:
    stacks = 'Current thread 0x1 (most recent call first):\n  File "/usr/lib/python3.13/a.py", line 3 in wait\n'
    assert find_blocker(stacks) == "/usr/lib/python3.13/a.py:3 in wait"


@pytest.mark.parametrize("stacks", ["", "Current thread 0x1 (most recent call first):\n  <no Python frame>\n", "???"])
def test_without_stacks_there_is_no_blocker(stacks: str) -> None:
    assert find_blocker(stacks) == ""


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
