"""The package over its life: what an upgrade and a removal do to what runs."""

from pathlib import Path

import pytest

from tests.system.machine import Machine, MachineError
from tests.system.service import SERVICE, SOCKET, configure, every_debian, get, get_json, main_pid, serve_probe


@every_debian
def test_an_upgrade_restarts_what_runs_and_keeps_its_sockets(machine: Machine, package: Path) -> None:
    serve_probe(machine)
    configure(machine, 'app = "probe:app"', name="shop")
    machine.run("systemctl start appserver@shop.socket appserver@idle.socket")
    before = get_json(machine)["pid"], get_json(machine, "/", "/run/appserver/shop.sock")["pid"]
    inode = machine.run(["stat", "--format=%i", SOCKET])

    # Over itself: for dpkg an upgrade like any other, with the operator's configuration in the way of the package's.
    machine.run(["dpkg", "--install", "--force-confold", f"/root/{package.name}"])
    after = main_pid(machine), main_pid(machine, "appserver@shop.service")
    assert 0 not in after
    assert not set(after) & set(before)
    assert machine.run(["stat", "--format=%i", SOCKET]) == inode
    assert machine.property("appserver@idle.service", "ActiveState") == "inactive"
    assert get_json(machine)["pid"] == after[0]  # still the operator's application


def test_the_documentation_and_the_examples_are_installed(machine: Machine) -> None:
    examples = (
        "certbot/appserver circus/appserver.ini haproxy/appserver.cfg nginx/appserver.conf supervisor/appserver.conf"
    )
    for name in (*(f"examples/{name}" for name in examples.split()), "tls.md", "adr/0020-tls-by-ssl.md"):
        machine.run(["test", "-f", f"/usr/share/doc/appserver/{name}"])


def test_a_removal_stops_everything(machine: Machine) -> None:
    machine.run("systemctl start appserver.socket")
    get(machine)
    machine.run(["dpkg", "--remove", "appserver"])
    assert machine.property(SERVICE, "ActiveState") == "inactive"
    with pytest.raises(MachineError):
        get(machine)
    assert machine.run("systemctl --failed --legend=no") == ""
    machine.run("test -e /etc/appserver/appserver.toml")
    machine.run(["dpkg", "--purge", "appserver"])
    machine.run("test ! -e /etc/appserver")
