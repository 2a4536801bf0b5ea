"""A Debian with a booted systemd, in a container, for one test session.

A tree is made once by mmdebstrap and kept in the cache folder under a name that holds a hash of what is in it. Every
boot is an overlay over that tree which goes away at the end, so no run sees another one and the tree stays as made.
The container has a network of its own with loopback only.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

BASE: Final = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "curl",
    "nginx-light",
    "python3",
    "python3-dotenv",
    "python3-fastapi",
    "python3-h11",
    "python3-h2",
    "python3-structlog",
    "python3-systemd",
    "python3-uvloop",
    "python3-websockets",
)
"""What appserver depends on, what its tests need, and a system to boot."""

SUITES: Final = {
    "trixie": BASE,
    # The oldest versions that appserver supports: its unit tests run on them too.
    "bookworm": (
        *BASE,
        *(
            "openssl",
            "python3-cryptography",
            "python3-httpx",
            "python3-hypothesis",
            "python3-prometheus-client",
            "python3-pytest",
            "python3-pytest-timeout",
            "python3-pytest-xdist",
        ),
    ),
}

BOOT_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 60.0


class MachineError(Exception):
    """A tree could not be made, a container did not boot, or a command in it failed."""


def cache_folder() -> Path:
    """Where trees are kept: $XDG_CACHE_HOME/appserver-tests, else /var/cache/appserver-tests."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "appserver-tests"


def prepare_tree(suite: str) -> Path:
    """Make the tree of a Debian release, or find the one made before.

    Args:
        suite: A key of SUITES.

    Returns:
        The folder of its root file system, to be booted as an overlay only.

    Raises:
        MachineError: mmdebstrap failed.
    """
    packages = ",".join(sorted(SUITES[suite]))
    key = hashlib.sha256(f"{suite} {packages}".encode()).hexdigest()[:12]
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    tree = cache / f"{suite}-{key}"
    with (cache / f"{suite}.lock").open("w") as lock:
        # Two sessions on a host make it once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            for stale in cache.glob(f"{suite}-*"):
                shutil.rmtree(stale)
            partial = cache / f"{suite}-{key}.partial"
            made = subprocess.run(
                ["mmdebstrap", "--variant=minbase", "--format=directory", f"--include={packages}"]
                + [f"--aptopt={option}" for option in _host_apt_options()]
                + [suite, partial],
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                shutil.rmtree(partial, ignore_errors=True)
                raise MachineError(f"mmdebstrap {suite}:\n{made.stderr[-4000:]}")
            partial.rename(tree)
    return tree


def _host_apt_options() -> list[str]:
    """How the host reaches its mirror: proxies, certificates, and whether dates are checked."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    return [line for line in dump.splitlines() if line.startswith(wanted) and not line.endswith('"";')]


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted container.

    Attributes:
        suite: The Debian release in it.
        leader: Process id of its systemd, as the host sees it.
    """

    suite: str
    leader: int

    def run(self, command: str | Sequence[str | Path], *, stdin: bytes = b"", timeout: float = 60.0) -> str:
        """Run a command as root in the machine.

        Args:
            command: For the shell, or a list of words.
            stdin: What it reads.
            timeout: Seconds.

        Returns:
            Its standard output.

        Raises:
            MachineError: It ended with another exit code than 0; the text has both its outputs.
        """
        done = self.attempt(command, stdin=stdin, timeout=timeout)
        if done.returncode:
            text = (done.stdout + done.stderr)[-6000:].decode(errors="replace")
            raise MachineError(f"{command!r} in {self.suite}: exit code {done.returncode}\n{text}")
        return done.stdout.decode()

    def attempt(
        self, command: str | Sequence[str | Path], *, stdin: bytes = b"", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """As `run()`, for a command that may fail."""
        return subprocess.run(self.enter(command), input=stdin, capture_output=True, timeout=timeout, check=False)

    def enter(self, command: str | Sequence[str | Path]) -> list[str | Path]:
        """The words that run a command in the machine from the host."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        spaces = shlex.split("nsenter --target LEADER --mount --uts --ipc --net --pid --root --wd")
        spaces[2] = str(self.leader)
        # Nothing of the host's environment: NOTIFY_SOCKET, PYTHONPATH, proxies.
        clean = [
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            "SYSTEMD_COLORS=0",
            "SYSTEMD_PAGER=",
        ]
        return [*spaces, *clean, *words]

    def path(self, inside: str) -> Path:
        """A path in the machine as the host can open it: its UNIX sockets can be connected to there.

        Of no use for paths with absolute symbolic links in them, which would lead into the host's tree.
        """
        return Path(f"/proc/{self.leader}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str | bytes, mode: str = "0644") -> None:
        """Write a file in the machine, making its folders (which are open to all, whatever our umask)."""
        content = text.encode() if isinstance(text, str) else text
        place = shlex.quote(inside)
        self.run(f"umask 022 && mkdir -p $(dirname {place}) && cat >{place} && chmod {mode} {place}", stdin=content)

    def property(self, unit: str, name: str) -> str:
        """A property of a unit: `systemctl show`."""
        return self.run(["systemctl", "show", "--value", f"--property={name}", unit]).strip()

    def await_that(self, what: str, check: Callable[[], bool], timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until something holds.

        Raises:
            MachineError: It does not within the time; the text ends with the journal of the machine.
        """
        deadline = time.monotonic() + timeout
        while not check():
            if time.monotonic() > deadline:
                journal = self.attempt("journalctl --no-pager --lines=60").stdout.decode(errors="replace")
                raise MachineError(f"not within {timeout} s in {self.suite}: {what}\n{journal}")
            time.sleep(0.05)

    def install(self, package: Path) -> None:
        """Install a .deb whose dependencies are in the tree."""
        inside = f"/root/{package.name}"
        self.write(inside, package.read_bytes())
        self.run(["dpkg", "--install", inside])

    @classmethod
    @contextmanager
    def boot(cls, suite: str) -> Iterator[Self]:
        """Boot a machine, for the time of a with statement.

        Raises:
            MachineError: It did not come up; the text has what it said.
        """
        tree = prepare_tree(suite)
        name = f"appserver-{suite}-{os.getpid()}"
        # setpriv: with the test run killed, the container goes too.
        words = f"""
            setpriv --pdeathsig KILL
            systemd-nspawn --quiet --boot --directory={tree} --volatile=overlay --private-network
            --register=no --keep-unit --machine={name} --console=pipe
        """
        # Control groups as Debian boots with them, whatever the host's are.
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        enter = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"']
        with (
            _own_group(name) as group,
            subprocess.Popen(
                [*enter, group, *words.split()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
            ) as nspawn,
        ):
            leader = None
            try:
                leader = _find_leader(nspawn)
                machine = cls(suite, leader)
                machine.await_that("booted", machine._is_up, BOOT_SECONDS)
                # The installer of Debian writes one; mmdebstrap does not.
                machine.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
                yield machine
            finally:
                # PID 1 of a namespace takes everything in it along; there is nothing in there to be shut down nicely.
                os.kill(leader or nspawn.pid, signal.SIGKILL)
                nspawn.communicate()

    def _is_up(self) -> bool:
        state = self.attempt(["systemctl", "is-system-running"]).stdout.decode().strip()
        return state in {"running", "degraded"}


@contextmanager
def _own_group(name: str) -> Iterator[Path]:
    """A control group for one machine.

    systemd-nspawn puts a machine below the group that it is in itself: two in one group would be one to systemd, and
    each would end the services of the other.
    """
    with TemporaryDirectory() as folder:
        # Where the host boots with cgroup v1, nothing else shows the groups that a machine has.
        subprocess.run(["mount", "-t", "cgroup2", "none", folder], check=True)
        group = Path(folder) / name
        try:
            group.mkdir(exist_ok=True)
            yield group
        finally:
            for one in (*sorted(group.glob("**/"), reverse=True), group):
                with suppress(OSError):  # what has been killed may not have ended
                    one.rmdir()
            subprocess.run(["umount", "--lazy", folder], check=True)


def _find_leader(nspawn: subprocess.Popen[bytes]) -> int:
    """The process that became PID 1 of the container."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        if nspawn.poll() is not None:
            said = nspawn.stdout.read().decode(errors="replace") if nspawn.stdout else ""
            raise MachineError(f"systemd-nspawn ended with exit code {nspawn.returncode}:\n{said}")
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
        for child in children:
            # Helpers called (sd-…) come and go before it, and it has such a name until it is in its namespaces.
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        time.sleep(0.02)
    raise MachineError("systemd-nspawn started no systemd")
