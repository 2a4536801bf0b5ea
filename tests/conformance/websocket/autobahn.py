"""Autobahn's cases for WebSocket servers, driven by kosoku."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.integration.servers import SCRIPTS, clean_environment

KOSOKU: Final = SCRIPTS / "kosoku"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a case.

    Attributes:
        case: Its number.
        messages: How the exchange of messages is judged.
        end: How the closing is.
        why: In words.
    """

    case: str
    messages: str
    end: str
    why: str


def run_cases(port: int, folder: Path, *patterns: str, timeout: float) -> list[Verdict]:
    """Run the cases against a server on loopback.

    Args:
        port: The server.
        folder: For the report.
        patterns: Numbers of cases; `*` stands for any part of one.
        timeout: Seconds for all of them.
    """
    if not KOSOKU.exists():
        pytest.skip("kosoku is not installed")
    words = [word for pattern in patterns for word in ("--include", pattern)]
    done = subprocess.run(
        [KOSOKU, "--mode", "fuzzingclient", *words, "--outdir", folder, f"127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        check=False,  # 1 where a case has failed
        timeout=timeout,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
    )
    index = folder / "index.json"
    assert index.exists(), done.stderr
    verdicts = []
    for agent in json.loads(index.read_text()).values():
        for case, told in agent.items():
            report = json.loads((folder / told["reportfile"]).read_text())
            why = f"{report['result']} {report['resultClose']}"
            verdicts.append(Verdict(case, told["behavior"], told["behaviorClose"], why))
    return verdicts
