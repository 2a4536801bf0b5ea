"""`systemctl reload` with workers: new code without a lost request, and a broken deploy that is no outage."""

import asyncio
from collections.abc import Callable

import pytest

from tests.system.load import CLIENTS, Load
from tests.system.machine import Machine, MachineError
from tests.system.service import (
    CONTROL,
    SERVICE,
    SOCKET,
    configure,
    every_debian,
    get,
    get_json,
    host_path,
    main_pid,
    records,
)

RELOADS = 3

VERSION = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"{length}")]}})
    await send({{"type": "http.response.body", "body": b"{text}"}})
"""


def deploy(machine: Machine, text: str) -> None:
    machine.write("/srv/shop/shop.py", VERSION.format(text=text, length=len(text)))


def begin(machine: Machine) -> None:
    deploy(machine, "one")
    configure(machine, 'app = "shop:app"\nworkers = 2\naccess_log = false')
    machine.run("systemctl start appserver.socket")
    assert get(machine) == "one"
    # The first worker that is ready answers. What the others import must not be deployed over before they have.
    machine.await_that("all workers serve", lambda: machine.property(SERVICE, "ActiveState") == "active")


@every_debian
def test_a_reload_loses_no_request(machine: Machine, tell: Callable[[str], None]) -> None:
    begin(machine)
    master = main_pid(machine)

    async def scenario() -> Load:
        load = Load(host_path(machine))
        running = asyncio.create_task(load.run())
        for _ in range(RELOADS):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(machine.run, "systemctl reload appserver.service")
        await asyncio.sleep(0.5)
        load.stop = True
        await running
        return load

    load = asyncio.run(scenario())
    tell(
        f"{machine.suite}: {RELOADS} reloads under {CLIENTS} keep-alive clients: "
        f"{load.answered.total()} answered, {len(load.lost)} lost"
    )
    assert not load.lost
    assert set(load.answered) == {b"200"}
    # Every client was served by every generation, or the test has shown nothing.
    assert load.connections >= CLIENTS * (RELOADS + 1)
    assert main_pid(machine) == master
    assert get_json(machine, "/status", CONTROL)["generation"] == RELOADS + 1
    assert machine.property(SERVICE, "NRestarts") == "0"


@every_debian
def test_a_broken_deploy_fails_the_reload_and_changes_nothing(machine: Machine) -> None:
    begin(machine)
    machine.write("/srv/shop/shop.py", "raise RuntimeError('no such table')")
    with pytest.raises(MachineError):
        machine.run("systemctl reload appserver.service")
    assert get(machine) == "one"
    assert machine.property(SERVICE, "ActiveState") == "active"
    assert records(machine, "EVENT=reload_failed")
    deploy(machine, "two")
    machine.run("systemctl reload appserver.service")
    assert get(machine) == "two"


@every_debian
def test_a_hung_worker_is_explained_in_the_journal(machine: Machine) -> None:
    hang = "    if scope['path'] == '/hang':\n        time.sleep(60)\n"
    machine.write("/srv/shop/shop.py", "import time\n" + VERSION.format(text="ok", length=2) + hang)
    configure(machine, 'app = "shop:app"\nworkers = 2\ntimeout_worker = 2')
    machine.run("systemctl start appserver.socket")
    get(machine)
    machine.attempt(["curl", "--silent", "--max-time", "1", "--unix-socket", SOCKET, "http://shop.example/hang"])
    machine.run("sleep 5")
    (hung,) = records(machine, "EVENT=worker_hung")
    assert "/srv/shop/shop.py:" in hung["MESSAGE"]
    assert "in app" in hung["MESSAGE"]
    assert "most recent call first" in hung["STACKS"]
    assert get(machine) == "ok"
    assert get_json(machine, "/status", CONTROL)["workers_lost"] == 1


@every_debian
def test_preloaded_workers_are_replaced_and_reloaded_in_the_sandbox(machine: Machine) -> None:
    deploy(machine, "one")
    configure(machine, 'app = "shop:app"\nworkers = 2\npreload = true')
    machine.run("systemctl start appserver.socket")
    assert get(machine) == "one"
    before = get_json(machine, "/status", CONTROL)
    (preloader,) = before["preloaders"]
    assert len(before["workers"]) == 2
    # What they are to be called must get past the sandbox, too.
    names = machine.run(["cat", *(f"/proc/{worker['pid']}/comm" for worker in before["workers"])])
    assert sorted(names.splitlines()) == ["appserver 1.1", "appserver 1.2"]
    victim = before["workers"][0]["pid"]
    machine.run(f"kill -KILL {victim}")
    (lost,) = records(machine, "EVENT=worker_lost")
    assert f"Worker {victim} was killed by SIGKILL" in lost["MESSAGE"]
    deploy(machine, "two")
    machine.run("systemctl reload appserver.service")
    assert get(machine) == "two"
    after = get_json(machine, "/status", CONTROL)
    assert [one["pid"] for one in after["preloaders"]] != [preloader["pid"]]
    machine.run("systemctl stop appserver.socket appserver.service")
    assert machine.property(SERVICE, "Result") == "success"
    # systemd tells all of them to end at once: that is no loss of a preloader.
    assert machine.run("journalctl --quiet EVENT=preloader_lost") == ""
