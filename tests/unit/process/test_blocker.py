"""Who blocks an event loop is found in stacks, and told by a thread that looks at them."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

import appserver
from appserver.process.blocker import Frame, Watch, find_blocker, name_blocker, waits
from tests.unit.records import Records

OURS = str(Path(appserver.__file__).parent)
VIEWS = """
import re, time

def nap(seconds):
    time.sleep(seconds)

def match():
    re.match("(a?){25}a{25}", "a" * 25)
"""


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, Callable[..., None]]:
    """An application's module: where it stands is the application's, and not the tests'."""
    names: dict[str, Callable[..., None]] = {}
    exec(compile(VIEWS, tmp_path / "shop.py", "exec"), names)
    return names


def watch(records: Records, *, pause: float = 0.0, still: float = 60.0) -> Watch:
    return Watch(records.log, 0.1, patience=0.1, still=still, pause=pause)


# --- what faulthandler writes -----------------------------------------------------------------------------------------


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


LAST_LINE = 11


def stacks_of(folder: Path, last: str) -> str:
    """What faulthandler really writes of a process that stands in the line `last`."""
    (folder / "shop.py").write_text(SHOP.replace("LAST", last))
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"here\n"
            stacks = ""
            while f'shop.py", line {LAST_LINE} in ' not in stacks:  # it is still on its way there
                stacks = dump(child)
        finally:
            child.kill()
    return stacks


def dump(child: subprocess.Popen[bytes]) -> str:
    """All that faulthandler writes, up to the outermost line of the main thread."""
    assert child.stderr is not None
    text = ""
    while not text.endswith(" in <module>\n"):
        if not select.select([child.stderr], [], [], 0.2)[0]:
            # Once more: what comes while another of its threads still writes is dropped.
            child.send_signal(signal.SIGUSR1)
            continue
        data = os.read(child.stderr.fileno(), 1 << 16)
        assert data, "it has ended"
        text += data.decode()
    return text


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
    assert find_blocker(stacks) == f"{tmp_path}/shop.py:{LAST_LINE} in render"


def test_a_stack_of_libraries_alone_is_named_by_its_innermost_line() -> None:
    stacks = 'Current thread 0x1 (most recent call first):\n  File "/usr/lib/python3.13/a.py", line 3 in wait\n'
    assert find_blocker(stacks) == "/usr/lib/python3.13/a.py:3 in wait"


@pytest.mark.parametrize("stacks", ["", "Current thread 0x1 (most recent call first):\n  <no Python frame>\n", "???"])
def test_without_stacks_there_is_no_blocker(stacks: str) -> None:
    assert find_blocker(stacks) == ""


# --- stacks -----------------------------------------------------------------------------------------------------------


def frames(*files: str) -> list[Frame]:
    return [Frame(file, number, "f") for number, file in enumerate(files, 1)]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("/usr/lib/python3.13/socket.py", "/srv/shop/views.py", "/srv/shop/main.py"), 2),
        (("/usr/lib/python3.13/socket.py", "/v/lib/python3.13/site-packages/driver.py", "/srv/shop/views.py"), 3),
        (("/usr/lib/python3.13/socket.py", "/usr/lib/python3/dist-packages/driver.py", f"{OURS}/asgi/cycle.py"), 2),
        (("<frozen importlib._bootstrap>", "/srv/shop/views.py"), 2),
        ((f"{OURS}/net/serial.py", f"{OURS}/net/connection.py"), 1),
    ],
)
def test_the_line_is_the_applications_else_a_packages_else_any(files: tuple[str, ...], named: int) -> None:
    assert name_blocker(frames(*files)) == f"{files[named - 1]}:{named} in f"


def test_a_stack_without_frames_has_no_blocker() -> None:
    assert name_blocker([]) == ""


def test_a_loop_that_waits_is_told_from_one_that_is_blocked() -> None:
    run = Frame(f"{OURS}/process/worker.py", 9, "_complete")
    select = Frame("/usr/lib/python3.13/selectors.py", 5, "select")
    assert waits([select, Frame("/usr/lib/python3.13/asyncio/base_events.py", 7, "_run_once"), run])
    assert waits([run])  # uvloop
    assert not waits([select, Frame("/srv/shop/views.py", 3, "render"), run])
    assert not waits([Frame(f"{OURS}/net/serial.py", 3, "data_received"), run])


# --- the watch --------------------------------------------------------------------------------------------------------


def test_what_blocks_is_told_when_the_loop_turns_again(shop: dict[str, Callable[..., None]], tmp_path: Path) -> None:
    records = Records()
    with watch(records) as one:
        one.turn()
        shop["nap"](2.0)
        assert records.of("watchdog") == []
        one.turn()
    (told,) = records.of("watchdog")
    assert told["blocker"] == f"{tmp_path}/shop.py:5 in nap"
    assert told["message"].endswith(f" s, blocked in {told['blocker']}")
    assert told["blocked_us"] > 1_800_000


def test_code_that_keeps_the_interpreters_lock_is_named_when_it_lets_go(
    shop: dict[str, Callable[..., None]], tmp_path: Path
) -> None:
    records = Records()
    with watch(records) as one:
        one.turn()
        began = monotonic()
        shop["match"]()
        assert monotonic() - began > 0.3, "the expression is too cheap to block anything"
        one.turn()
    assert records.of("watchdog")[0]["blocker"] == f"{tmp_path}/shop.py:8 in match"


def test_one_that_is_not_late_is_not_told() -> None:
    records = Records()
    with Watch(records.log, 0.1, patience=5.0) as one:
        for _ in range(5):
            sleep(0.1)
            one.turn()
    assert records.all() == []


def test_the_longest_of_many_is_told_with_their_number(shop: dict[str, Callable[..., None]]) -> None:
    records = Records()
    with watch(records, pause=60.0) as one:
        for seconds in (0.3, 0.4, 0.9):
            shop["nap"](seconds)
            one.turn()
        assert len(records.of("watchdog")) == 1
        one._told -= 60.0  # as if so much time had passed
        shop["nap"](0.3)
        one.turn()
    _, later = records.of("watchdog")
    assert "; 2 times more in the last 60 s, for less long" in later["message"]
    assert later["blocked_us"] > 700_000


def test_one_that_never_ends_is_told_of_once_while_it_lasts(
    shop: dict[str, Callable[..., None]], tmp_path: Path
) -> None:
    records = Records()
    with watch(records, still=0.5) as one:
        one.turn()
        shop["nap"](3.0)
        (told,) = records.of("watchdog")
        assert "The event loop has not turned for " in told["message"]
        assert told["blocker"] == f"{tmp_path}/shop.py:5 in nap"


def test_the_thread_ends_with_the_watch_and_takes_no_signals() -> None:
    with watch(Records()):
        (thread,) = [one for one in threading.enumerate() if one.name == "appserver-watch"]
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        assert blocked & (1 << (15 - 1)), status  # SIGTERM
    assert not thread.is_alive()
