"""Bad days of a booted system: processes are killed and stopped, memory, disk and journal go, deploys are broken.

After each of them the service is to be as it was, by itself and soon, and only what a killed worker had is lost.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.workers import Process, count_fds, find_children
from tests.system.machine import Machine, MachineError
from tests.system.service import CONTROL, SERVICE, SOCKET, configure, get, get_json, host_path, main_pid, override
from tests.system.witness import Loss, Witness

FULL = bool(os.environ.get("FULL"))
SECONDS = 600
WORKERS = 2
RECOVERY = 20.0
"""Seconds after which all is as before, whatever has happened: hung workers are given 5, a dead master a restart."""
SLOW = 1.0 if FULL else 10.0
"""Seconds that an answer may take where nobody is killed; short where the machine is quiet."""
GROWN = 64 * 1024 * 1024
LIMITS = Path("/sys/fs/cgroup/memory")
"""The host's memory controller (cgroup v1): it is not handed to containers, and limits their processes all the same."""
JOURNALD = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service"

SHOP = f"""
import os

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/grow":
        os.grown = b"x" * {4 * GROWN}
    text = b"%d" % os.getpid()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}})
    await send({{"type": "http.response.body", "body": text}})
"""
BROKEN = ("import nothing_at_all", "def app(:", "import os; os._exit(1)", "app = 1", "raise SystemExit(0)")


class Chaos:
    """The service, what may happen to it, and what has to hold afterwards.

    Each happening gives the workers that were killed, as the machine numbers them.
    """

    def __init__(self, machine: Machine, witness: Witness, chance: random.Random) -> None:
        self._machine, self._witness, self._chance = machine, witness, chance
        self._settle()
        self._fds = count_fds(self._on_host(main_pid(machine)))

    # What happens

    def worker_is_killed(self) -> set[int]:
        victim = self._pick()
        os.kill(self._on_host(victim), signal.SIGKILL)
        return {victim}

    def all_workers_are_killed(self) -> set[int]:
        victims = self._workers()
        for victim in victims:
            os.kill(self._on_host(victim), signal.SIGKILL)
        return victims

    def master_is_killed(self) -> set[int]:
        """Nothing may be lost: its workers answer what they have, and the socket unit keeps who comes."""
        restarts = int(self._machine.property(SERVICE, "NRestarts"))
        os.kill(self._on_host(main_pid(self._machine)), signal.SIGKILL)
        self._await("restarted", lambda: int(self._machine.property(SERVICE, "NRestarts")) > restarts)
        return set()

    def worker_hangs(self) -> set[int]:
        victim = self._pick()
        os.kill(self._on_host(victim), signal.SIGSTOP)
        self._await("it is replaced", lambda: victim not in self._workers())
        return {victim}

    def worker_is_over_its_memory(self) -> set[int]:
        """The kernel's own OOM kill, by the limit of a control group.

        systemd in a container does not see it, and so does not do what OOMPolicy= says: by default, stop the unit.
        """
        assert self._machine.property(SERVICE, "OOMPolicy") == "continue"
        group = LIMITS / f"appserver-chaos-{os.getpid()}"
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(GROWN))
            victim = self._pick()
            (group / "cgroup.procs").write_text(str(self._on_host(victim)))
            self._await("it is asked to grow", lambda: self._grow(victim))
            killed = (group / "memory.oom_control").read_text().split()
            assert killed[killed.index("oom_kill") + 1] == "1", killed
        finally:
            self._await("nobody is in the group", lambda: not (group / "cgroup.procs").read_text())
            group.rmdir()
        return {victim}

    def reload(self) -> set[int]:
        self._reload()
        return set()

    def run_is_full(self) -> set[int]:
        """What journald keeps is in there too."""
        with full(self._machine, "/run"):
            self._reload()
        return set()

    def journal_goes(self) -> set[int]:
        """What is not written is counted, and told once there is a journal again."""
        told = self._told_of_losses()
        self._machine.run(f"systemctl stop {JOURNALD}")
        try:
            time.sleep(1)
            self._reload()
            # Workers that end meanwhile leave their losses to the master's figures; the others tell of theirs.
            time.sleep(1)
            assert get_json(self._machine, "/status", CONTROL)["log_dropped"] > 0
        finally:
            self._machine.run(f"systemctl start {JOURNALD}")
        self._await("it is told what was lost", lambda: self._told_of_losses() > told)
        return set()

    def deploy_is_broken(self) -> set[int]:
        master, workers = main_pid(self._machine), self._workers()
        self._machine.write("/srv/shop/shop.py", self._chance.choice(BROKEN))
        try:
            with pytest.raises(MachineError):
                self._reload()
            self._await("none of what was begun is left", lambda: self._workers() == workers)
            assert main_pid(self._machine) == master
            assert self._machine.property(SERVICE, "StatusText").startswith("Reload failed")
        finally:
            self._machine.write("/srv/shop/shop.py", SHOP)
        self._reload()
        return set()

    def reloads_storm(self) -> set[int]:
        master = main_pid(self._machine)
        before = get_json(self._machine, "/status", CONTROL)
        self._machine.run(f"for i in $(seq 50); do kill -HUP {master}; sleep 0.01; done")
        # Behind all of them.
        self._reload()
        after = get_json(self._machine, "/status", CONTROL)
        assert main_pid(self._machine) == master
        assert after["reloads"] > before["reloads"]
        assert after["reloads_failed"] == before["reloads_failed"]
        return set()

    # What has to hold

    def try_out(self, happening: Callable[[], set[int]]) -> float:
        """Have it happen, and check.

        Returns:
            Seconds: from the happening until all is as before, where processes were killed; else the slowest answer.
        """
        self._witness.slowest, began = 0.0, time.monotonic()
        killed = happening()
        self._settle()
        recovered = time.monotonic() - began
        # Also those that were with whoever was killed; and what they have lost, they have told by then.
        before = list(self._witness.answered)
        self._await(
            "all clients are answered",
            lambda: all(now > then + 1 for now, then in zip(self._witness.answered, before, strict=True)),
        )
        lost = [loss for loss in self._witness.lost if not _is_excused(loss, killed)]
        assert not lost, f"{happening.__name__}: {lost}\n{self._tell_events()}"
        self._witness.lost.clear()
        if killed or happening == self.master_is_killed:
            return recovered
        assert self._witness.slowest < SLOW, f"{happening.__name__}: an answer took {self._witness.slowest:.2f} s"
        return self._witness.slowest

    def _settle(self) -> None:
        """Wait until the service is whole: it answers, is active, has its workers, and no process or fd too many."""
        faults: list[str] = []

        def is_whole() -> bool:
            faults[:] = self._find_faults()
            return not faults

        try:
            self._await("the service is as before", is_whole)
        except MachineError as error:
            raise MachineError(f"{faults}\n{error}") from None

    def _find_faults(self) -> list[str]:
        """What is not as it should be."""
        machine = self._machine
        faults = []
        if machine.property(SERVICE, "ActiveState") != "active":
            return ["not active"]
        try:
            report = get_json(machine, "/status", CONTROL)
            get(machine, "/", SOCKET, "--max-time", "5")
        except MachineError as error:
            return [str(error)]
        if [worker["state"] for worker in report["workers"]] != ["serving"] * WORKERS:
            faults.append(f"workers: {report['workers']}")
        master = main_pid(machine)
        expected = {master, *(one["pid"] for one in report["workers"])}
        if (found := set(self._processes())) != expected:
            faults.append(f"processes: {found}, not {expected}")
        with suppress(KeyError, OSError):
            children: list[Process] = find_children(self._on_host(master))
            if zombies := [child.pid for child in children if child.state == "Z"]:
                faults.append(f"zombies: {zombies}")
            if (fds := count_fds(self._on_host(master))) > getattr(self, "_fds", fds):
                faults.append(f"descriptors: {fds}, not {self._fds}")
        return faults

    # Means

    def _await(self, what: str, check: Callable[[], bool]) -> None:
        self._machine.await_that(what, check, RECOVERY)

    def _processes(self) -> dict[int, int]:
        """The processes of the unit's control group: as the machine numbers them, and as the host does."""
        group = self._machine.path(f"/sys/fs/cgroup/system.slice/{SERVICE}/cgroup.procs")
        found = {}
        for pid in group.read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                (numbers,) = (line.split() for line in lines if line.startswith("NSpid:"))
                found[int(numbers[-1])] = int(pid)
        return found

    def _on_host(self, pid: int) -> int:
        return self._processes()[pid]

    def _workers(self) -> set[int]:
        return {worker["pid"] for worker in get_json(self._machine, "/status", CONTROL)["workers"]}

    def _pick(self) -> int:
        """A worker, one that has clients if there is one."""
        workers = self._workers()
        return self._chance.choice(sorted(workers.intersection(self._witness.workers) or workers))

    def _reload(self) -> None:
        self._machine.run("systemctl reload appserver.service")

    def _grow(self, worker: int) -> bool:
        """Have whoever takes the connection take more memory; whether that was this worker."""
        self._machine.attempt(["curl", "--silent", "--unix-socket", SOCKET, "http://shop.example/grow"])
        return worker not in self._processes()

    def _tell_events(self) -> str:
        """What the service has said of late, but for its access records."""
        lines = self._machine.attempt(f"journalctl --quiet --unit={SERVICE} | grep -v ' GET /' | tail -60").stdout
        return lines.decode(errors="replace")

    def _told_of_losses(self) -> int:
        lines = self._machine.attempt("journalctl --quiet --output=cat EVENT=log_dropped").stdout
        return lines.count(b"records were dropped")


def _is_excused(loss: Loss, killed: set[int]) -> bool:
    # Of a connection without an answer yet, nobody knows whether it was with a killed worker.
    return bool(killed) and (loss.worker is None or loss.worker in killed)


@contextmanager
def full(machine: Machine, folder: str) -> Iterator[None]:
    """A tmpfs with not a byte left."""
    size = machine.run(f"findmnt --noheadings --bytes --output size {folder}").strip()
    used = int(machine.run(f"df --output=used -k {folder} | tail -1"))
    machine.run(f"mount -o remount,size={used + 64}k {folder}")
    try:
        machine.run(f"dd if=/dev/zero of={folder}/filler bs=1k 2>/dev/null; ! echo x >>{folder}/filler")
        yield
    finally:
        machine.run(f"rm {folder}/filler && mount -o remount,size={size} {folder}")


@pytest.fixture
def shop(machine: Machine) -> Machine:
    """The shipped units with workers, access records and an application that tells who it is."""
    machine.write("/srv/shop/shop.py", SHOP)
    configure(machine, f'app = "shop:app"\nworkers = {WORKERS}\ntimeout_worker = 4')
    # A day's worth of restarts comes in a minute here.
    override(machine, "[Unit]\nStartLimitIntervalSec=0\n")
    machine.run("systemctl start appserver.socket appserver.service")
    return machine


@pytest.mark.timeout(SECONDS + 600)
def test_the_service_recovers_from_whatever_happens(shop: Machine, tell: Callable[[str], None]) -> None:
    seed = int(os.environ.get("SEED", time.time_ns()))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    witness = Witness(host_path(shop))
    with witness.watching():
        chaos = Chaos(shop, witness, chance)
        happenings = [chaos.worker_is_killed, chaos.all_workers_are_killed, chaos.master_is_killed, chaos.worker_hangs]
        happenings += [chaos.run_is_full, chaos.journal_goes, chaos.deploy_is_broken, chaos.reloads_storm]
        if os.access(LIMITS, os.W_OK):
            happenings.append(chaos.worker_is_over_its_memory)
        seen = Counter[str]()
        slowest: dict[str, float] = {}
        plan = list(happenings)
        end = time.monotonic() + (SECONDS if FULL else 0)
        while plan or time.monotonic() < end:
            happening = plan.pop(0) if plan else chance.choice(happenings)
            took = chaos.try_out(happening)
            name = happening.__name__
            print(f"{name}: {took:.2f} s")
            seen[name] += 1
            slowest[name] = max(slowest.get(name, 0.0), took)
    figures = ", ".join(f"{name} {slowest[name]:.2f} s ({count})" for name, count in seen.items())
    tell(f"{shop.suite}: slowest recovery or, where nobody is killed, slowest answer (times): {figures}")
    tell(f"{shop.suite}: {sum(witness.answered)} answered meanwhile")


def test_a_log_file_on_a_full_disk_costs_records_only(machine: Machine) -> None:
    machine.run("mkdir /srv/log && mount -t tmpfs -o size=1m tmpfs /srv/log")
    machine.write("/srv/shop/shop.py", SHOP)
    configure(machine, f'app = "shop:app"\nworkers = {WORKERS}')
    override(machine, "[Service]\nStandardError=append:/srv/log/appserver.log\n")
    machine.run("systemctl start appserver.socket appserver.service")
    witness = Witness(host_path(machine))

    def told() -> str:
        return machine.run("cat /srv/log/appserver.log")

    with witness.watching():
        chaos = Chaos(machine, witness, random.Random(0))
        with full(machine, "/srv/log"):
            for happening in (chaos.worker_is_killed, chaos.reload, chaos.master_is_killed, chaos.deploy_is_broken):
                chaos.try_out(happening)
            # Who tells of losses is who had them, and stays.
            time.sleep(1)
        machine.await_that("the losses are told", lambda: "access records were dropped" in told())
    assert not witness.lost
