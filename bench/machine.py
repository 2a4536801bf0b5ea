"""What the figures were measured with and on. No name of a host, a user or a folder is in it."""

import os
import platform
import re
import resource
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_PACKAGES: Final = (
    *("appserverd", "granian", "gunicorn", "gunicorn_h1c", "uvicorn", "httptools", "hypercorn", "h11", "uvloop"),
    *("h2", "ngh2", "zttp", "websockets", "wsproto"),
    *("fastapi", "starlette", "pydantic", "systemd-python"),
)
_PROGRAMS: Final = (("nginx", "-v"), ("wrk", "-v"), ("h2load", "--version"), ("openssl", "version"))
_NUMBER: Final = re.compile(r"\d+\.\d+(\.\d+)*")
_FILES: Final = 65_536
"""Descriptors that 10,000 connections and all else need, with room; servers inherit the limit."""


def describe() -> dict[str, object]:
    """Python, kernel and processor, the load before the run, and the versions of all contenders that are here."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": _find_cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": _find_versions(),
    }


def choose_cpus() -> tuple[int, int]:
    """The processor for the servers and the one for the load: the first and the last that may be used.

    Siblings of one core are seldom these two.

    Raises:
        RuntimeError: There is only one.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise RuntimeError("the benchmark needs two processors: one for the servers, one for the load")
    return cpus[0], cpus[-1]


def raise_file_limit() -> None:
    """Allow as many descriptors as the workloads need, or as many as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _find_cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _find_versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    for program, option in _PROGRAMS:
        with suppress(FileNotFoundError):
            # wrk tells its version on standard output and ends with 1, nginx on standard error.
            told = subprocess.run([program, option], capture_output=True, text=True, check=False)
            number = _NUMBER.search(told.stdout + told.stderr)
            found[program] = number.group() if number else "unknown"
    return found
