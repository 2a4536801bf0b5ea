"""Who blocks an event loop: the line in which its thread stands.

The stack is looked at by a thread of Python's, which holds the interpreter's lock (GIL) while it does. faulthandler's
own timer holds nothing, walks frames that change under it, and ends a busy process with SIGSEGV (ADR 0033).
"""

import re
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType, TracebackType
from typing import Final, NamedTuple, Self

from appserver.telemetry.log import Log

BLOCKED_SECONDS: Final = 1.0
"""A loop that turns later than this is told of: somebody blocks it, and every client waits."""

STILL_SECONDS: Final = 10.0
"""One that does not turn for so long is told of while it lasts: it may be for ever."""

PAUSE_SECONDS: Final = 10.0
"""No more than one record in so many seconds, with the number of those left out."""

DEPTH: Final = 100
"""Frames of a stack that are told, from the innermost."""

_FRAME: Final = re.compile(r'  File "(.*)", line ([0-9]+) in (.*)')
_OURSELVES: Final = f"{Path(__file__).parents[1]}/"
_RUNNER: Final = f"{_OURSELVES}process/worker.py"


class Frame(NamedTuple):
    """A line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def find_blocker(stacks: str) -> str:
    """The line in which the main thread stands, of stacks that faulthandler wrote; empty where they tell none."""
    return name_blocker(read_stack(stacks))


def read_stack(stacks: str) -> list[Frame]:
    """The frames of the main thread, from the innermost, of stacks that faulthandler wrote."""
    _, mark, main = stacks.rpartition("Current thread")
    found = _FRAME.findall(main.partition("\n\n")[0] if mark else stacks)
    return [Frame(file, int(line), function) for file, line, function in found]


def find_place(stack: Sequence[Frame]) -> str:
    """The innermost line of the application, else of a package; empty where neither is at work.

    Args:
        stack: From the innermost frame.
    """
    return name_blocker([frame for frame in stack if _rank(frame.file) < 2])


def name_blocker(stack: Sequence[Frame]) -> str:
    """The innermost line of the application, else of a package, else of any; empty without a stack.

    Args:
        stack: From the innermost frame.
    """
    return str(min(stack, key=lambda frame: _rank(frame.file))) if stack else ""


def _rank(file: str) -> int:
    if file.startswith((_OURSELVES, "<")):
        return 2
    if "/lib/python" in file:
        return 1 if "/site-packages/" in file or "/dist-packages/" in file else 2
    return 0


def waits(stack: Sequence[Frame]) -> bool:
    """Whether it is the loop itself that waits, for events: it could turn, if it were let.

    Args:
        stack: From the innermost frame.
    """
    file, _, function = stack[0]
    # asyncio stands in its selector then, called by no code but its own; uvloop has no frame below the call of it.
    idle = file.endswith("/selectors.py") or (file, function) == (_RUNNER, "_complete")
    return idle and all(_rank(frame.file) == 2 for frame in stack)


@dataclass(slots=True)
class _Block:
    """A time in which the loop did not turn.

    Attributes:
        since: When it had turned last, of a monotonic clock.
        stack: Where it stood; empty where nobody could look.
        seconds: For how long, at least.
        told: While it lasted.
    """

    since: float
    stack: list[Frame]
    seconds: float = 0.0
    told: bool = False


class Watch:
    """Tells who blocks the event loop of the thread that made it, while it is entered as a context.

    Args:
        log: Where that is told.
        tick: `turn` is called so often, in seconds.
        patience: A call that is later than this is told of.
        still: One that has not come for so long is told of while it is missed.
        pause: Between two records.
    """

    def __init__(
        self,
        log: Log,
        tick: float,
        *,
        patience: float = BLOCKED_SECONDS,
        still: float = STILL_SECONDS,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._log, self._tick, self._patience, self._still, self._pause = log, tick, patience, still, pause
        self._watched = threading.get_ident()
        self._turned = monotonic()
        self._told = self._turned - pause
        self._seen: _Block | None = None
        self._longest: _Block | None = None  # of those that have not been told
        self._untold = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="appserver-watch")

    def __enter__(self) -> Self:
        self._turned = monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def turn(self) -> float:
        """The loop turns: to be called from it once in a tick; gives by how many seconds that was late."""
        now, since = monotonic(), self._turned
        self._turned = now
        late = now - since - self._tick
        if late > self._patience:
            seen = self._seen
            block = seen if seen is not None and seen.since == since else _Block(since, [])
            block.seconds = late
            self._untold += 1
            if self._longest is None or late > self._longest.seconds:
                self._longest = block
        if self._longest is not None and now - self._told >= self._pause:
            longest, others = self._longest, self._untold - 1
            self._told, self._longest, self._untold = now, None, 0
            more = f"; {others} times more in the last {self._pause:g} s, for less long" if others else ""
            self._tell(longest, f"The event loop did not turn for {longest.seconds:.1f} s", more)
        return late

    def _tell(self, block: _Block, text: str, more: str = "") -> None:
        blocker = name_blocker(block.stack)
        if block.stack and waits(block.stack):
            # Stopped, or one of too many on the host: to blame the application would send its people astray.
            blocker, why = "", ": nothing blocks it, the process got no processor"
        else:
            why = f", blocked in {blocker}" if blocker else ""
        self._log.warning(
            f"{text}{why}{more}",
            code="watchdog",
            blocked_us=round(block.seconds * 1_000_000),
            blocker=blocker or None,
            stacks="\n".join(f'  File "{file}", line {line} in {function}' for file, line, function in block.stack)
            or None,
        )

    # The thread

    def _look(self) -> None:
        # Signals are for the loop's thread: faulthandler calls the one that takes them the current one.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        wait = self._tick + self._patience
        while not self._stopped.wait(wait):
            since = self._turned
            late = monotonic() - since - self._tick
            if late < self._patience:
                wait = self._patience - late
                continue
            wait = self._tick
            block = self._seen
            if block is None or block.since != since:
                stack = _read_stack(self._watched)
                if self._turned == since:  # else it shows what came after
                    self._seen = _Block(since, stack)
            elif late >= self._still and not block.told:
                block.told, block.seconds = True, late
                self._tell(block, f"The event loop has not turned for {late:.0f} s")


def _read_stack(thread: int) -> list[Frame]:
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001 - documented, for debugging
    stack: list[Frame] = []
    while frame is not None and len(stack) < DEPTH:
        stack.append(Frame(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name))
        frame = frame.f_back
    return stack
