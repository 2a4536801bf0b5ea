"""How a process was started, and how it becomes another program; each in a real one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appserver.system.image import SIGNALS, Command, become, held_signals

TELL = """
import json, sys
from appserver.system.image import find_command
command = find_command()
print(json.dumps([command.path, command.line, command.words]))
"""


def told(*words: str | Path) -> tuple[str, list[str], list[str]]:
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    path, line, arguments = json.loads(ended.stdout)
    return path, line, arguments


def test_a_module_is_run_by_its_interpreter_with_its_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "teller.py").write_text(TELL)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), *sys.path)))
    words = (sys.executable, "-X", "dev", "-m", "teller", "--", "-m", "x")
    assert told(*words) == (sys.executable, list(words), ["--", "-m", "x"])


@pytest.mark.parametrize("flag", ["", " -B"])
def test_a_script_is_run_itself_by_the_path_that_it_was_run_by(flag: str, tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    script = tmp_path / "current" / "tell"
    script.write_text(f"#!{sys.executable}{flag}\n{TELL}")
    script.chmod(0o755)
    assert told(script, "shop:app") == (str(script), [str(script), "shop:app"], ["shop:app"])
    # Named to an interpreter it is an argument.
    assert told(sys.executable, script) == (sys.executable, [sys.executable, str(script)], [])


def test_signals_wait_over_an_exec_and_end_nobody() -> None:
    program = """
import os, signal, sys
from appserver.system.image import Command, become, held_signals, release_signals
if sys.argv[1:] == ["second"]:
    pending = signal.sigpending()
    got = []
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, _: got.append(number))
    release_signals()
    print(sorted(pending) == [signal.SIGUSR2, signal.SIGTERM], sorted(got), os.read(int(os.environ["PIPE"]), 9))
    sys.exit()
reading, writing = os.pipe()
os.write(writing, b"kept")
with held_signals():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGUSR2)
    become(
        Command(sys.executable, (sys.executable, "-c", sys.orig_argv[2]), ("second",)),
        {**os.environ, "PIPE": str(reading)},
        [reading],
    )
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"True {[int(signal.SIGUSR2), int(signal.SIGTERM)]} b'kept'\n"


def test_an_exec_that_fails_changes_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(FileNotFoundError), held_signals():
            become(Command(str(tmp_path / "nothing"), ("nothing",), ()), os.environ, [reading, writing])
        assert not os.get_inheritable(reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert not SIGNALS & signal.pthread_sigmask(signal.SIG_BLOCK, ())


FIRST = """
import os, signal
from appserver.system.image import hold_orders, release_signals
assert os.getpid() == 1
hold_orders()
os.kill(1, signal.SIGTERM)
signal.signal(signal.SIGTERM, lambda *_: print("told"))
release_signals()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_process_1_of_a_container_hears_of_a_stop_from_before_it_had_a_handler() -> None:
    ended = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", FIRST],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "told\n"
