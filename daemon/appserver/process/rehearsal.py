"""The rehearsal of an upgrade: the program that is about to be executed says whether it could go on from here.

It is run as it would be, with the same arguments, in a child that serves nothing.
"""

import asyncio
import json
import os
import signal
import subprocess
from asyncio import AbstractEventLoop
from contextlib import ExitStack, suppress
from typing import Any, Final

from appserver import __version__
from appserver.errors import Exit, OperatorError
from appserver.process.estate import read
from appserver.process.handover import environment_for_workers
from appserver.settings import Loaded
from appserver.system.image import REHEARSAL, Command

ANSWER_SIZE: Final = 64 * 1024


class UpgradeError(OperatorError):
    """The version that is installed cannot be become; all is as it was.

    Args:
        reason: Why.
        output: What it has written, where it has run.
    """

    exit_code = Exit.STARTUP

    def __init__(self, reason: str, output: str | None = None) -> None:
        super().__init__(reason)
        self.output = output


async def rehearse(
    command: Command, descriptor: int, patience: float, loop: AbstractEventLoop, children: set[int]
) -> str:
    """Have a child try whether it could go on from an estate.

    `--version` because every version of appserver ends after it: one that knows of no upgrades would serve.

    Args:
        command: How the program is run.
        descriptor: Of the estate.
        patience: How long the child may take, in seconds.
        loop: The running loop.
        children: Of the master; this one is among them as long as it is waited for.

    Returns:
        The version that it is.

    Raises:
        UpgradeError: It could not, or did not say so in time.
    """
    with ExitStack() as stack:
        answer, complaint = os.memfd_create("appserver-answer"), os.memfd_create("appserver-complaint")
        stack.callback(os.close, answer)
        stack.callback(os.close, complaint)
        try:
            # It returns when the child has executed, as quickly as it does for workers.
            child = subprocess.Popen(  # noqa: ASYNC220, S603 - what we were started with
                [*command.head, "--version", *command.words],
                executable=command.path,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=complaint,
                pass_fds=[descriptor],
                process_group=0,
                env={**environment_for_workers(os.environ), REHEARSAL: str(descriptor)},
            )
        except OSError as error:
            raise UpgradeError(f"{command.path} cannot be executed: {error.strerror or error}") from error
        children.add(child.pid)
        stack.callback(children.discard, child.pid)
        stack.callback(child.wait)
        stack.callback(_kill, child)
        pidfd = os.pidfd_open(child.pid)
        stack.callback(os.close, pidfd)
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        stack.callback(loop.remove_reader, pidfd)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await ended.wait()
        code = child.poll()
        said, complained = (os.pread(one, ANSWER_SIZE, 0).decode("utf-8", "replace") for one in (answer, complaint))
    return _judge(code, said, complained, patience)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:  # else its number may be another one's
        os.killpg(child.pid, signal.SIGKILL)


def _judge(code: int | None, said: str, complained: str, patience: float) -> str:
    """What the child has made of it."""
    if code is None:
        raise UpgradeError(f"the new version did not say within {patience:g} s that it can take over")
    if code:
        lines = complained.strip().splitlines() or [f"it ended with {code}"]
        raise UpgradeError(f"the new version cannot take over: {lines[-1]}", complained.strip() or None)
    try:
        version: Any = json.loads(said.strip().rpartition("\n")[2])["takes_over"]
    except (ValueError, KeyError, TypeError):
        shown = said.strip().partition("\n")[0][:100]
        raise UpgradeError(f"what is installed knows of no upgrade in place, and needs a restart: {shown!r}") from None
    return str(version)


def play(loaded: Loaded, descriptor: int) -> None:
    """Be the child: import what a master and a worker need, and tell whether the estate can be taken over.

    Raises:
        AppserverError: It cannot.
    """
    # Whether they can be imported is what is tried: `supervise` is what the next image begins with.
    from appserver.process import child, preload, supervise  # noqa: F401, PLC0415
    from appserver.wire.select import pick, pick_http2  # noqa: PLC0415

    read(descriptor)
    pick(loaded.settings.http)
    pick_http2(loaded.settings.http2_engine)
    print(json.dumps({"takes_over": __version__}))  # noqa: T201 - the answer
