"""What other clients notice of one that misuses the server, and what that costs the server in memory.

The others keep the server busy as in the benchmark: 16 connections of h2load with 16 streams each. Their p99 is taken
in short rounds, some of them quiet and some during the misuse, and the medians are compared. On a busy machine a few
rounds may say little: where they are too far apart more are taken, up to `ROUNDS_MAX`.

A bound on times fails with the mood of the machine, so it holds only where FULL is set: `make test-all`. Otherwise one
round is taken, and its figures are printed.
"""

import os
import subprocess
from pathlib import Path
from statistics import median
from typing import Final

from tests.integration.http2 import Site, take_peak
from tests.integration.servers import PATIENCE

MIB: Final = 1024 * 1024
MEMORY: Final = 8 * MIB
"""By which the server may be larger at its worst than it is at its worst in quiet."""

FULL: Final = bool(os.environ.get("FULL"))
ROUNDS: Final = 3 if FULL else 1
ROUNDS_MAX: Final = 15
ROUND: Final = 0.5
"""Seconds."""
CLIENTS: Final = 16
STREAMS: Final = 16


class Neighbours:
    """The others, and what they notice.

    Args:
        site: What they ask.
        folder: For h2load's file.
    """

    def __init__(self, site: Site, folder: Path) -> None:
        self._site, self._log = site, folder / "h2load.log"
        self.quiet: list[float] = []
        self.loud: list[float] = []
        self._peak_quiet = self._peak_loud = 0
        self._ask()  # what comes first is slower

    def ask_in_quiet(self) -> None:
        """One round."""
        self.quiet.append(self._ask())
        self._peak_quiet = max(self._peak_quiet, take_peak(self._site.server))

    def ask_meanwhile(self) -> None:
        """One round, while the server is misused."""
        self.loud.append(self._ask())
        self._peak_loud = max(self._peak_loud, take_peak(self._site.server))

    def _ask(self) -> float:
        words = [f"--duration={int(ROUND * 1000)}ms", f"--clients={CLIENTS}", f"--max-concurrent-streams={STREAMS}"]
        words += [f"--log-file={self._log}", f"{self._site.url}/"]
        rows: list[list[str]] = []
        while not rows:  # on a busy machine a round may be over before the first answer
            self._log.unlink(missing_ok=True)
            subprocess.run(["h2load", *words], check=True, capture_output=True, timeout=PATIENCE)
            rows = [line.split() for line in self._log.read_text().splitlines()]
        assert {row[1] for row in rows} == {"200"}
        return sorted(int(row[2]) / 1e6 for row in rows)[int(len(rows) * 0.99)]

    @property
    def settled(self) -> bool:
        """There is no need for more rounds."""
        count = min(len(self.quiet), len(self.loud))
        return count >= ROUNDS and (not FULL or self.served or count >= ROUNDS_MAX)

    @property
    def served(self) -> bool:
        """The misuse has not doubled their p99."""
        return median(self.loud) < 2 * median(self.quiet)

    def check(self, what: str) -> None:
        """Print the figures, and hold them to their bounds."""
        quiet, loud = median(self.quiet), median(self.loud)
        growth = max(self._peak_loud - self._peak_quiet, 0)
        others = f"others' p99 {loud * 1e3:.2f} ms, in quiet {quiet * 1e3:.2f} ms"
        print(f"{what} ({self._site.way}): {others}; memory +{growth / MIB:.1f} MiB")
        assert growth < MEMORY
        assert self.served or not FULL
