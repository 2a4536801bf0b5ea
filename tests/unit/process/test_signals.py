"""What signals do to processes without an event loop, each tried by one of its own."""

import signal
import socket
import subprocess
import sys
from typing import Any

HEAD = """
import os, signal, socket, sys, time
from appserver.process import signals
"""


def run(code: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", HEAD + code], capture_output=True, text=True, check=False, timeout=60, **options
    )


def test_a_process_ends_with_its_master_also_where_that_has_gone_before() -> None:
    line, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.close()
    code = f"signals.end_with_master(socket.socket(fileno={end.fileno()}), wanted=True); time.sleep(30)"
    with end:
        done = run(code, pass_fds=[end.fileno()])
    assert done.returncode == -signal.SIGIO, done.stderr


def test_a_process_goes_on_with_its_master() -> None:
    line, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"signals.end_with_master(socket.socket(fileno={end.fileno()}), wanted=True); time.sleep(0.2)"
    with line, end:
        done = run(code, pass_fds=[end.fileno()])
    assert done.returncode == 0, done.stderr
