"""python -m bench: see docs/benchmark.md."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

from bench.chart import draw
from bench.machine import choose_cpus, describe, raise_file_limit
from bench.processes import ROOT
from bench.report import build_document, write_table
from bench.rounds import Plan, Result, estimate, measure
from bench.servers import CONTENDERS, Contender
from bench.workloads import WORKLOADS, Workload

T = TypeVar("T")

_QUIET: Final = 0.5
"""The load average over which something else runs."""


def main() -> int:
    """Run what the options ask for.

    Returns:
        0; 1 if the first contender has no figures in a workload, or something else than a contender ended one. That a
        peer is left out is told, and no failure.
    """
    options = _parse()
    workloads: Sequence[Workload] = options.workloads
    chosen: Sequence[Contender] = options.servers
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    try:
        server_cpu, load_cpu = choose_cpus()
    except RuntimeError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    machine = describe()
    load = os.getloadavg()[0]
    if load > _QUIET:
        sys.stderr.write(f"The load average is {load:.1f}: the machine is busy, and the figures will be disturbed.\n")
    raise_file_limit()
    # For the load generators, which inherit it.
    os.sched_setaffinity(0, {load_cpu})
    # An exception, so that servers are ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    plan = Plan(options.rounds, options.seconds, options.starts, server_cpu, options.json.parent)
    expected = sum(estimate(workload, chosen, plan) for workload in workloads)
    sys.stderr.write(f"{len(workloads)} workloads, about {expected / 60:.0f} min {expected % 60:.0f} s\n")
    begin = monotonic()
    results: list[Result] = []
    for workload in workloads:
        result = measure(workload, chosen, plan)
        results.append(result)
        sys.stdout.write(write_table(result, chosen[0].name) + "\n")
        sys.stdout.flush()
        # Now, and not at the end: half an hour of figures is not to be lost with a terminal.
        told = {"rounds": plan.rounds, "seconds": plan.seconds, "starts": plan.starts, "took_s": monotonic() - begin}
        document = json.dumps(build_document(machine, told, results), indent=1) + "\n"
        _replace(options.json, document)
        _replace(options.svg, draw(results, chosen[0].name))
    sys.stderr.write(f"{options.json}\n{options.svg}\n")
    return int(any(result.error or chosen[0].name in result.left_out for result in results))


def _replace(path: Path, text: str) -> None:
    """Write a file anew; whoever ends this meanwhile leaves the old one."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description="appserver and its peers, side by side.")
    usual = [contender.name for contender in CONTENDERS.values() if contender.chosen]
    folder = ROOT / "build" / "bench"
    parser.add_argument(
        "--workloads",
        metavar="A,B",
        type=lambda text: _pick(WORKLOADS, text),
        default=list(WORKLOADS.values()),
        help=f"of {', '.join(WORKLOADS)} (default: all)",
    )
    parser.add_argument(
        "--servers",
        metavar="X,Y",
        type=lambda text: _pick(CONTENDERS, text),
        default=_pick(CONTENDERS, ",".join(usual)),
        help=f"of {', '.join(CONTENDERS)}; the others are compared with the first (default: {','.join(usual)})",
    )
    parser.add_argument("--rounds", type=int, help="measurements of each server (default: 5)")
    parser.add_argument("--seconds", type=int, help="length of each (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one round of a second, two starts: does it run?")
    parser.add_argument("--json", type=Path, default=folder / "results.json", help="file for all figures")
    parser.add_argument("--svg", type=Path, default=folder / "results.svg", help="file for the chart")
    options = parser.parse_args()
    usually = (1, 1, 2) if options.quick else (5, 2, 10)
    rounds, seconds, options.starts = usually
    options.rounds = rounds if options.rounds is None else options.rounds
    options.seconds = seconds if options.seconds is None else options.seconds
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    return options


def _pick(table: Mapping[str, T], text: str) -> list[T]:
    unknown = [name for name in text.split(",") if name not in table]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(table)}")
    return [table[name] for name in text.split(",")]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
