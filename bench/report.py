"""The figures as tables for a terminal and as JSON for whoever wants to reckon."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.rounds import Result, Round
from bench.workloads import Kind


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of the table: its heading, its name in a round, what it is divided by, and its decimals."""

    heading: str
    figure: str
    divisor: float = 1
    decimals: int = 0

    def show(self, value: float) -> str:
        """The number as it stands in the table."""
        return f"{value / self.divisor:,.{self.decimals}f}"


_MEMORY: Final = Column("RSS MiB", "rss_kib", 1024, 1)

_PACE: Final = (
    Column("p50 ms", "p50_us", 1000, 2),
    Column("p99 ms", "p99_us", 1000, 2),
    Column("p99.9 ms", "p999_us", 1000, 2),
    _MEMORY,
    Column("busy %", "busy", 0.01),
)

COLUMNS: Final[Mapping[Kind, tuple[Column, ...]]] = {
    Kind.LOAD: (
        Column("CPU us/req", "cpu_us", decimals=1),
        Column("user", "cpu_user_us", decimals=1),
        Column("system", "cpu_system_us", decimals=1),
        Column("req/s", "requests_per_s"),
        *_PACE,
    ),
    Kind.IDLE: (
        Column("KiB/connection", "connection_kib", decimals=2),
        Column("idle CPU ms/s", "idle_cpu_ms_per_s", decimals=1),
        _MEMORY,
    ),
    Kind.START: (Column("start ms", "start_ms"), Column("CPU ms", "start_cpu_ms"), _MEMORY),
    Kind.CONNECT: (
        Column("CPU us/connection", "cpu_us"),
        Column("user", "cpu_user_us"),
        Column("system", "cpu_system_us"),
        Column("conn/CPU s", "requests_per_cpu_s"),
        Column("conn/s", "requests_per_s"),
        _MEMORY,
        Column("busy %", "busy", 0.01),
    ),
    Kind.RESET: (
        Column("p99 ratio", "p99_ratio", decimals=2),
        Column("quiet p50 ms", "quiet_p50_us", 1000, 2),
        Column("quiet p99 ms", "quiet_p99_us", 1000, 2),
        Column("p50 ms", "p50_us", 1000, 2),
        Column("p99 ms", "p99_us", 1000, 2),
        Column("resets/s", "resets_per_s"),
        Column("attack conns", "attack_connections"),
        Column("growth MiB", "growth_kib", 1024, 1),
        _MEMORY,
    ),
    Kind.ECHO: (
        Column("CPU us/message", "cpu_us", decimals=1),
        Column("user", "cpu_user_us", decimals=1),
        Column("system", "cpu_system_us", decimals=1),
        Column("messages/s", "requests_per_s"),
        Column("bytes back", "answer_bytes"),
        *_PACE,
    ),
    Kind.ROOM: (
        Column("CPU us/delivery", "cpu_us", decimals=1),
        Column("user", "cpu_user_us", decimals=1),
        Column("system", "cpu_system_us", decimals=1),
        Column("deliveries/s", "requests_per_s"),
        *_PACE,
    ),
}
"""The columns of each kind of workload. The first is what contenders are ranked by; its spread is shown, too."""


def rank(result: Result) -> list[tuple[str, float]]:
    """The contenders with the median of the first column, the least first."""
    figure = COLUMNS[result.workload.kind][0].figure
    medians = [(label, median(round_[figure] for round_ in rounds)) for label, rounds in result.rounds.items()]
    return sorted(medians, key=lambda pair: pair[1])


def write_table(result: Result, baseline: str) -> str:
    """One workload as text.

    Args:
        result: Its figures.
        baseline: The label of the contender whose first column is 1.00 in the column of ratios.
    """
    first, *others = COLUMNS[result.workload.kind]
    lines = [["", first.heading, "(least-most)", "ratio", *(column.heading for column in others)]]
    ranked = rank(result)
    base = dict(ranked).get(baseline)
    for label, value in ranked:
        rounds = result.rounds[label]
        figures = [round_[first.figure] for round_ in rounds]
        spread = f"({first.show(min(figures))}-{first.show(max(figures))})"
        # There is no ratio to a baseline that has failed, nor to memory that did not grow.
        ratio = f"{value / base:.2f}" if base is not None and base > 0 else "-"
        rest = [column.show(_take_median(rounds, column.figure)) for column in others]
        lines.append([label, first.show(value), spread, ratio, *rest])
    body = [f"{result.workload.name}: {result.workload.title}", *_align(lines)]
    body += [f"  {label}: {count} access records lost" for label, count in result.lost.items() if count]
    body += [f"  {label}: left out: {reason}" for label, reason in result.left_out.items()]
    body += [f"  ended early: {result.error}"] if result.error else []
    return "\n".join(body) + "\n"


def build_document(
    machine: Mapping[str, object], options: Mapping[str, object], results: Sequence[Result]
) -> dict[str, object]:
    """All of it, for json.dump()."""
    return {
        "machine": machine,
        "options": options,
        "workloads": [
            {
                "name": result.workload.name,
                "title": result.workload.title,
                "kind": result.workload.kind.value,
                "connections": result.workload.connections,
                "left_out": result.left_out,
                "error": result.error,
                "access_records_lost": result.lost,
                "servers": {
                    label: {"median": _take_medians(rounds), "rounds": rounds}
                    for label, rounds in result.rounds.items()
                },
            }
            for result in results
        ],
    }


def _take_median(rounds: Sequence[Round], figure: str) -> float:
    return median(round_[figure] for round_ in rounds)


def _take_medians(rounds: Sequence[Round]) -> Round:
    return {figure: _take_median(rounds, figure) for figure in rounds[0]}


def _align(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for label, *cells in lines:
        justify: Callable[[str, int], str] = str.rjust
        yield "  ".join(["", label.ljust(widths[0]), *map(justify, cells, widths[1:])])
