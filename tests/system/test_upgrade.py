"""SIGUSR2 under the real systemd: another version as the same main process, and the unit is none the wiser."""

import asyncio
from collections.abc import Callable

from tests.system.load import CLIENTS, Load
from tests.system.machine import Machine
from tests.system.service import CONTROL, SERVICE, every_debian, get, get_json, host_path, main_pid, records
from tests.system.test_reload import begin

UPGRADES = 3
PACKAGE = "/usr/lib/python3/dist-packages/appserver"


def install(machine: Machine, version: str) -> None:
    """Replace the installed version, as a package manager does."""
    line = f'__version__ = "{version}"'
    machine.run(f"sed -i 's/^__version__ = .*/{line}/' {PACKAGE}/__init__.py")


def running(machine: Machine) -> str:
    version: str = get_json(machine, "/status", CONTROL)["version"]
    return version


@every_debian
def test_an_upgrade_is_the_same_main_process(machine: Machine, tell: Callable[[str], None]) -> None:
    begin(machine)
    master = main_pid(machine)

    async def scenario() -> Load:
        load = Load(host_path(machine))
        clients = asyncio.create_task(load.run())
        for number in range(1, UPGRADES + 1):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(upgrade, number)
        await asyncio.sleep(0.5)
        load.stop = True
        await clients
        return load

    def upgrade(number: int) -> None:
        install(machine, f"9.{number}")
        machine.run("systemctl kill --signal=USR2 --kill-whom=main appserver.service")
        machine.await_that("upgraded", lambda: len(records(machine, "EVENT=upgraded", patience=2)) == number, 60)

    load = asyncio.run(scenario())
    tell(
        f"{machine.suite}: {UPGRADES} upgrades in place under {CLIENTS} keep-alive clients: "
        f"{load.answered.total()} answered, {len(load.lost)} lost"
    )
    assert not load.lost
    assert load.connections >= CLIENTS * (UPGRADES + 1)
    assert running(machine) == f"9.{UPGRADES}"
    assert main_pid(machine) == master
    assert machine.property(SERVICE, "ActiveState") == "active"
    assert machine.property(SERVICE, "SubState") == "running"
    assert machine.property(SERVICE, "NRestarts") == "0"
    # Its log goes to the journal still, and its status to systemd.
    assert machine.property(SERVICE, "StatusText").startswith("Serving: 2 of 2 workers")

    # What is broken changes nothing.
    machine.run(f"cp {PACKAGE}/cli.py /root/cli.py && echo 'import (' >> {PACKAGE}/cli.py")
    machine.run("systemctl kill --signal=USR2 --kill-whom=main appserver.service")
    machine.await_that("refused", lambda: bool(records(machine, "EVENT=upgrade_failed", patience=2)))
    assert "SyntaxError" in machine.property(SERVICE, "StatusText")
    assert (main_pid(machine), get(machine)) == (master, "one")
    machine.run(f"cp /root/cli.py {PACKAGE}/cli.py")

    # And all else is as it was: reload, restart, stop.
    machine.run("systemctl reload appserver.service")
    assert main_pid(machine) == master
    machine.run("systemctl restart appserver.service")
    assert main_pid(machine) != master
    assert get(machine) == "one"
    machine.run("systemctl kill --signal=USR2 --kill-whom=main appserver.service")
    machine.await_that("upgraded", lambda: len(records(machine, "EVENT=upgraded", patience=2)) == UPGRADES + 1, 60)
    machine.run("systemctl stop appserver.service")
    assert machine.property(SERVICE, "ActiveState") == "inactive"
    assert machine.property(SERVICE, "Result") == "success"
