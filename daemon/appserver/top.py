"""`appserverctl top`: the figures of a running server as they change, on a terminal.

A thread asks `/status` once a second and hands over what it hears; everything else happens in the main thread, which
draws, and waits for keys. What is drawn is lines of text with a style, made without a terminal (`render`).
"""

import curses
import locale
import os
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Final, NamedTuple

from appserver.errors import Exit, UsageError
from appserver.remote import RemoteError, find_control, get

SPAN: Final = 300
"""Reports that are kept, and drawn: five minutes of them."""

RATE_REPORTS: Final = 4
"""Intervals that a rate is taken over: workers tell their figures once a second too, not in step."""

INTERVAL_SECONDS: Final = 1.0
KEY_MILLISECONDS: Final = 200
"""How soon a report that has come, or a key, is seen."""

BARS: Final = " ▁▂▃▄▅▆▇█"
BARS_ASCII: Final = " .:-=+*#@"

PLAIN: Final = ""
STRONG: Final = "strong"
BAD: Final = "bad"
DIM: Final = "dim"
"""Styles of a line."""

Line = tuple[str, str]
"""Text and style."""


class Figure(NamedTuple):
    """A row with a sparkline: its label, where it is in a report, whether its growth counts, how it is written."""

    label: str
    name: str
    rate: bool
    write: Callable[[float], str]


def write_number(value: float) -> str:
    """Write a number in a few characters: `0.4`, `31`, `12.3k`."""
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.1f}" if 0 < value < 10 and value != int(value) else f"{value:.0f}"


def write_time(microseconds: float) -> str:
    """Write a time in a few characters: `850us`, `12.3ms`, `1.20s`."""
    if microseconds < 1000:
        return f"{microseconds:.0f}us"
    return f"{microseconds / 1000:.1f}ms" if microseconds < 1_000_000 else f"{microseconds / 1_000_000:.2f}s"


FIGURES: Final = (
    Figure("requests/s", "answered", True, write_number),
    Figure("median", "latency_p50_us", False, write_time),
    Figure("99th perc.", "latency_p99_us", False, write_time),
    Figure("in flight", "requests", False, write_number),
    Figure("connections", "connections", False, write_number),
    Figure("failed/s", "failed", True, write_number),
    Figure("loop lag", "loop_lag_us", False, write_time),
)

SORTS: Final = ("rate", "requests", "connections", "memory", "uptime", "pid")
"""What the workers can be sorted by."""


@dataclass(slots=True)
class History:
    """What the server has said so far.

    Attributes:
        reports: The last ones, with the time of each on a monotonic clock; None where it did not answer.
        number: How many there have been.
        failure: Why the last question was not answered; None where it was.
    """

    reports: "deque[tuple[float, Mapping[str, Any] | None]]" = field(default_factory=lambda: deque(maxlen=SPAN + 1))
    number: int = 0
    failure: str | None = None

    def add(self, at: float, report: Mapping[str, Any] | None, failure: str | None = None) -> None:
        """Take a report, or what went wrong."""
        self.reports.append((at, report))
        self.number += 1
        self.failure = failure

    @property
    def last(self) -> Mapping[str, Any]:
        """The last report that has come."""
        return next((report for _, report in reversed(self.reports) if report is not None), {})

    def values(self, figure: Figure) -> list[float | None]:
        """Each report's value of a figure; None where there is none."""
        if not figure.rate:
            return [None if report is None else _number(report.get(figure.name)) for _, report in self.reports]
        found: list[float | None] = []
        recent: deque[tuple[float, float]] = deque(maxlen=RATE_REPORTS + 1)
        for at, report in self.reports:
            count = None if report is None else _number(report.get(figure.name))
            if count is None or (recent and count < recent[-1][1]):
                recent.clear()  # a server that has been started anew begins again at nothing
            rate = None
            if count is not None:
                recent.append((at, count))
                rate = _find_rate(*recent[0], at, count)
            found.append(rate)
        return found

    def rates(self) -> dict[int, float | None]:
        """Requests a second of each worker, by process id."""
        recent = [one for one in list(self.reports)[-RATE_REPORTS - 1 :] if one[1] is not None]
        firsts: dict[int, tuple[float, float]] = {}
        for at, report in recent:
            for worker in (report or {}).get("workers", ()):
                firsts.setdefault(worker["pid"], (at, worker["answered"]))
        at = recent[-1][0] if recent else 0.0
        known = [worker for worker in self.last.get("workers", ()) if worker["pid"] in firsts]
        return {one["pid"]: _find_rate(*firsts[one["pid"]], at, one["answered"]) for one in known}


def _find_rate(begun: float, before: float, ended: float, after: float) -> float | None:
    return max(0.0, after - before) / (ended - begun) if ended > begun else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def draw_bars(values: Sequence[float | None], number: int, width: int, bars: str) -> str:
    """Draw the last `SPAN` values, several a character where they are more than fit; the newest is on the right.

    Args:
        values: Of the last reports.
        number: How many reports there have been, so that what falls together in a character stays together.
        width: In characters.
        bars: From nothing to all.
    """
    size = -(-SPAN // max(width, 1))
    groups: dict[int, list[float]] = {}
    for index, value in enumerate(values, number - len(values)):
        known = groups.setdefault(index // size, [])
        if value is not None:
            known.append(value)
    cells = [sum(group) / len(group) if group else None for group in groups.values()][-width:]
    top = max((cell for cell in cells if cell is not None), default=0.0)
    steps = len(bars) - 1

    def mark(cell: float | None) -> str:
        if cell is None:
            return " "
        return bars[min(steps, 1 + int(cell / top * (steps - 1) + 0.5))] if cell > 0 else bars[0]

    marks = map(mark, cells)
    return "".join(marks).rjust(width)


def render(history: History, width: int, height: int, sort: str, *, backwards: bool, bars: str) -> list[Line]:
    """Lay out a screen: at most `height` lines of at most `width` characters."""
    report = history.last
    lines: list[Line] = [(_headline(report), STRONG)]
    if history.failure is not None:
        lines.append((f"No answer, asking again: {history.failure}", BAD))
    elif report.get("ready") is False and report.get("state") == "serving":
        lines.append(("Drained by the operator: /readyz answers 503", BAD))
    else:
        lines.append(("", PLAIN))
    for figure in FIGURES:
        values = history.values(figure)
        known = [value for value in values if value is not None]
        if known:
            now = "-" if values[-1] is None else figure.write(values[-1])
            chart = draw_bars(values, history.number, max(width - 22, 1), bars)
            lines.append((f"{figure.label:<12}{now:>8}  {chart}", PLAIN))
    room = height - len(lines) - 2
    if report.get("workers") and room > 1:
        lines.append(("", PLAIN))
        lines += _workers(history, report["workers"], sort, backwards=backwards, room=room)
    lines = lines[: height - 1]
    lines += [("", PLAIN)] * (height - 1 - len(lines))
    keys = f"q quit   s sort by {sort}   r reverse" if report.get("workers") else "q quit"
    lines.append((f"{keys}   (charts: the last {SPAN // 60} minutes)", DIM))
    return [(text[:width], style) for text, style in lines[:height]]


def _headline(report: Mapping[str, Any]) -> str:
    up = timedelta(seconds=int(report.get("uptime", 0)))
    parts = [str(report.get("application", "")), str(report.get("state", ""))]
    if "workers" in report:
        serving = sum(worker["state"] == "serving" for worker in report["workers"])
        parts.append(f"{serving}/{report['workers_wanted']} workers  generation {report['generation']}")
    return "  ".join([*parts, f"up {up}"])


def _workers(
    history: History, workers: Sequence[Mapping[str, Any]], sort: str, *, backwards: bool, room: int
) -> Iterator[Line]:
    rates = history.rates()
    rows = [{**worker, "rate": rates.get(worker["pid"]) or 0.0} for worker in workers]
    rows.sort(key=lambda row: (row[sort], row["pid"]), reverse=(sort != "pid") is not backwards)
    yield "    PID  STATE     GEN    UPTIME  MEMORY   REQ/S  IN FLIGHT   CONN   FAILED", STRONG
    shown = rows if len(rows) < room else rows[: room - 2]
    for row in shown:
        up = str(timedelta(seconds=int(row["uptime"])))
        text = (
            f"{row['pid']:>7}  {row['state']:<8} {row['generation']:>4} {up:>9} {row['memory'] / 1024**2:>6.0f}M"
            f" {write_number(row['rate']):>7} {row['requests']:>10} {row['connections']:>6} {row['failed']:>8}"
        )
        yield text, PLAIN if row["state"] == "serving" else BAD
    if len(shown) < len(rows):
        yield f"and {len(rows) - len(shown)} more", DIM


# --- the terminal -----------------------------------------------------------------------------------------------------


def watch(own: Namespace) -> Exit:
    """Watch the figures of a running server on a terminal."""
    path = find_control(own)
    _find_terminal()
    history = History()
    history.add(time.monotonic(), get(path, "/status"))  # whoever has mistyped the path need not see an empty screen
    heard: SimpleQueue[tuple[float, Mapping[str, Any] | None, str | None]] = SimpleQueue()
    over = Event()
    Thread(target=_listen, args=(path, heard, over), name="status", daemon=True).start()
    try:
        curses.wrapper(_run, history, heard)
    except KeyboardInterrupt:
        pass  # as good as q
    finally:
        over.set()
    return Exit.OK


def _find_terminal() -> None:
    """See that there is a terminal which can be drawn on.

    Raises:
        UsageError: There is none.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top", None, "expected a terminal; for programs there is `appserverctl status --json`")
    locale.setlocale(locale.LC_ALL, "")
    try:
        curses.setupterm()
        able = curses.tigetstr("cup") is not None
    except curses.error:
        able = False
    if not able:
        name = os.environ.get("TERM", "")
        raise UsageError(
            "TERM", name, "expected a terminal whose cursor can be moved (`appserverctl status` needs none)"
        )


def _listen(path: str, heard: "SimpleQueue[tuple[float, Mapping[str, Any] | None, str | None]]", over: Event) -> None:
    while not over.wait(INTERVAL_SECONDS):
        try:
            report = get(path, "/status")
        except RemoteError as error:
            heard.put((time.monotonic(), None, str(error)))
        else:
            heard.put((time.monotonic(), report, None))


def _run(
    screen: "curses.window",
    history: History,
    heard: "SimpleQueue[tuple[float, Mapping[str, Any] | None, str | None]]",
) -> None:
    with suppress(curses.error):
        curses.curs_set(0)
    styles = {PLAIN: curses.A_NORMAL, STRONG: curses.A_BOLD, DIM: curses.A_DIM, BAD: curses.A_REVERSE}
    bars = BARS if locale.nl_langinfo(locale.CODESET) == "UTF-8" else BARS_ASCII
    screen.timeout(KEY_MILLISECONDS)
    sort, backwards = SORTS[0], False
    while True:
        with suppress(Empty):
            while True:
                history.add(*heard.get_nowait())
        # Asked each time: of two changes in a row ncurses may tell the first one alone. A serial console has no size
        # (0x0); there it stays what ncurses takes it for, 80x24 if terminfo(5) does not know better.
        width, height = os.get_terminal_size()
        if width and height and (height, width) != screen.getmaxyx():
            curses.resizeterm(height, width)
        height, width = screen.getmaxyx()
        screen.erase()
        for row, (text, style) in enumerate(render(history, width, height, sort, backwards=backwards, bars=bars)):
            with suppress(curses.error):  # the last cell of a screen: there is no place for the cursor behind it
                screen.addstr(row, 0, text, styles[style])
        screen.refresh()
        key = screen.getch()
        if key == ord("q"):
            return
        if key == ord("s"):
            sort = SORTS[(SORTS.index(sort) + 1) % len(SORTS)]
        elif key == ord("r"):
            backwards = not backwards
