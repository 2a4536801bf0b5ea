"""systemd's word that memory is short reaches the service through its sandbox (MemoryPressureWatch=)."""

import pytest

from tests.system.machine import Machine
from tests.system.service import CONTROL, SERVICE, get, get_json, main_pid, override, records, serve_probe

FILE = f"/system.slice/{SERVICE}/memory.pressure"


def open_files(machine: Machine, pid: int) -> str:
    return machine.run(f"ls -l /proc/{pid}/fd")


def test_a_single_process_watches_the_kernels_file(machine: Machine) -> None:
    serve_probe(machine)
    get(machine)
    assert FILE in open_files(machine, main_pid(machine))
    assert get_json(machine, "/status", CONTROL)["memory_pressure"] == 0
    assert not records(machine, "EVENT=memory_pressure", patience=2)


def test_with_workers_it_is_their_master_that_does(machine: Machine) -> None:
    serve_probe(machine, "workers = 2")
    get(machine)
    master = main_pid(machine)
    assert FILE in open_files(machine, master)
    workers = [worker["pid"] for worker in get_json(machine, "/status", CONTROL)["workers"]]
    assert len(workers) == 2
    for worker in workers:
        assert FILE not in open_files(machine, worker)
        assert "MEMORY_PRESSURE" not in machine.run(f"tr '\\0' '\\n' </proc/{worker}/environ")


@pytest.mark.parametrize("setting", ["off", "skip"])
def test_switched_off_in_the_unit_nothing_is_watched_and_nothing_said(machine: Machine, setting: str) -> None:
    override(machine, f"[Service]\nMemoryPressureWatch={setting}\n")
    serve_probe(machine)
    get(machine)
    assert FILE not in open_files(machine, main_pid(machine))
    assert not records(machine, "EVENT=memory_pressure", patience=2)
