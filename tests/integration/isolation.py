"""Mount and network namespaces of a test's own, in which a packaged configuration finds its own paths and ports.

The files of packaging/ name port 80, /run/appserver and /srv/shop. Here they get them, and nothing of the host is
touched: what is mounted and bound inside is gone when the test is over.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import pytest

from tests.integration.servers import APPS, PATIENCE, ROOT, SCRIPTS, clean_environment

CLIENTS: Final = ("203.0.113.7/32", "2001:db8::7/128")
"""Addresses of clients from elsewhere (RFC 5737, RFC 3849): peers on loopback are trusted to be proxies."""

FORGED: Final = {
    "Forwarded": "for=198.51.100.1;host=evil.example",
    "X-Forwarded-For": "198.51.100.1",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "8443",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "198.51.100.1",
    "X-Request-ID": "mine",
}
"""What such a client may say of itself, as if it were a proxy; none of it may arrive as it stands here."""

# What users without rights must be able to read, though it may lie in a home folder that only its owner may enter.
_SHARED: Final = tuple(dict.fromkeys((Path(sys.base_prefix).resolve(), ROOT)))

_LOAD: Final = Path(__file__).with_name("load.py")

requires_root: Final = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and other users need root")


class Isolation:
    """The namespaces, held open by a process that waits for the end of its input.

    Args:
        empty: Folders of the host that are empty inside.
        folders: Folders made in these.
        applications: Which of the folders gets the applications of the tests; `main` is one more name of `behaviour`.
    """

    def __init__(self, *empty: str, folders: Sequence[str] = (), applications: str | None = None) -> None:
        # circusd joins a multicast group, for which a host has its default route.
        lines = ["set -eu", "ip link set lo up multicast on", "ip route add 224.0.0.0/4 dev lo"]
        # nodad: an IPv6 address can be used at once, instead of after a second.
        lines += [f"ip addr add {address} dev lo{' nodad' if ':' in address else ''}" for address in CLIENTS]
        lines += _open_ways(_SHARED)
        lines += [f"mount -t tmpfs -o mode=755 tmpfs {folder}" for folder in empty]
        lines += [f"mkdir {folder}" for folder in folders]
        if applications:
            lines.append(f"cp {shlex.quote(str(APPS))}/*.py {applications}")
            lines.append(f"echo 'from behaviour import app' >{applications}/main.py")
        lines += ["echo ready", "exec cat"]
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", "\n".join(lines)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = self._find_processes()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._holder.communicate(timeout=PATIENCE)
        # What a supervisor did not end is ended here, and is a failure unless something else has failed already.
        assert error is not None or not left, f"still running at the end: {left}"

    def _find_processes(self) -> list[int]:
        """The processes inside, without the holder: those that the test started, and theirs."""
        own = Path(f"/proc/{self._holder.pid}/ns/net").readlink()
        found = []
        for entry in Path("/proc").glob("[0-9]*/ns/net"):
            pid = int(entry.parts[2])
            # It may have ended meanwhile.
            with suppress(OSError):
                if pid != self._holder.pid and entry.readlink() == own:
                    found.append(pid)
        return found

    @contextmanager
    def running(self, *words: str | Path, stop: signal.Signals = signal.SIGTERM, output: Path) -> Iterator[None]:
        """Run a daemon inside, which must stop on a signal and end with 0; what it says goes into a file."""
        with output.open("wb") as file:
            process = self.start(*words, stdout=file, stderr=file)
        try:
            yield
            process.send_signal(stop)
            assert process.wait(PATIENCE) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(PATIENCE)

    @property
    def command(self) -> list[str]:
        """In front of a command, it runs that inside; the process stays the same."""
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--net", "--"]

    @property
    def root(self) -> Path:
        """The file system inside, as it is reached from outside."""
        return Path(f"/proc/{self._holder.pid}/root")

    def start(
        self,
        *words: str | Path,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program inside."""
        return subprocess.Popen(
            [*self.command, *map(str, words)], stdin=stdin, stdout=stdout, stderr=stderr, env=environment()
        )

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program inside to its end."""
        return subprocess.run(
            [*self.command, *map(str, words)],
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
            env=environment(),
            stdin=subprocess.DEVNULL,
        )

    def curl(self, *words: str | Path) -> str:
        """What curl writes; an HTTP error is one of curl's, too."""
        return self.run(*curl(*words)).stdout


class Load:
    """The clients of load.py, from before something is done to the server until after it."""

    def __init__(self, inside: Isolation, url: str) -> None:
        self._process = inside.start(sys.executable, _LOAD, "until-eof", url, stdin=subprocess.PIPE)
        self.answered = 0
        self.lost: dict[str, int] = {}

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"running\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        output, _ = self._process.communicate(timeout=PATIENCE * 2)
        told = json.loads(output)
        self.answered, self.lost = told["answered"], told["lost"]


def wait_until_served(inside: Isolation, url: str) -> None:
    """Ask until somebody answers."""
    assert find_processes(inside, 1, url)[0]


def find_processes(inside: Isolation, count: int, url: str) -> tuple[set[int], set[int]]:
    """Ask until that many processes have answered: their pids, and the users that they run as."""
    told = json.loads(inside.run(sys.executable, _LOAD, "pids", str(count), url).stdout)
    return set(told["pids"]), set(told["users"])


def curl(*words: str | Path) -> Sequence[str]:
    """A curl command that says nothing but the answer, and that no proxy of the host is asked for."""
    return ["curl", "--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*", *map(str, words)]


def forge() -> list[str]:
    """Options of curl that send the FORGED fields."""
    return [word for name, value in FORGED.items() for word in ("--header", f"{name}: {value}")]


def arrived(scope: Mapping[str, Any]) -> set[str]:
    """Which of the FORGED fields a request has, with whatever value."""
    return {name for name in FORGED if name.lower() in scope["headers"]}


def environment() -> Mapping[str, str]:
    """For programs inside: the package's scripts are on PATH, and files that they may not write are not named."""
    variables = clean_environment(PATH=f"{SCRIPTS}:/usr/sbin:/usr/bin:/sbin:/bin")
    return {name: value for name, value in variables.items() if not name.startswith("COVERAGE")}


def _open_ways(paths: Sequence[Path]) -> list[str]:
    """Commands that make the paths reachable for every user.

    A folder on the way that others may not enter is covered by an empty one, in which the path is mounted again.
    """
    closed = {path: next((way for way in reversed(path.parents) if not way.stat().st_mode & 1), None) for path in paths}
    covered = dict.fromkeys(way for way in closed.values() if way is not None)
    lines: list[str] = []
    stages: list[tuple[str, str]] = []
    for number, (path, way) in enumerate(closed.items()):
        if way is not None:
            stages.append((f"/run/stage{number}", shlex.quote(str(path))))
    if stages:
        lines.append("mount -t tmpfs tmpfs /run")
    for stage, path_text in stages:
        lines += [f"mkdir {stage}", f"mount --bind {path_text} {stage}"]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(way))}" for way in covered]
    for stage, path_text in stages:
        lines += [f"mkdir -p {path_text}", f"mount --move {stage} {path_text}"]
    return lines
