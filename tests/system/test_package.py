"""The package over its life: what an upgrade and a removal do to what runs."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.links import broken_links
from tests.system.machine import Machine, MachineError
from tests.system.service import SERVICE, SOCKET, configure, every_debian, get, get_json, main_pid, serve_probe

DOCUMENTATION = "usr/share/doc/appserver"


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


def test_every_link_of_the_documentation_leads_somewhere_in_the_package_too(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    pages = list((tmp_path / DOCUMENTATION).rglob("*.md"))
    assert {"README.md", "tls.md", "0020-tls-by-ssl.md"} <= {page.name for page in pages}
    assert {str(page): broken for page in pages if (broken := broken_links(page))} == {}
    # Nor do the paths that units, the configuration and the pages give in full.
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in {".gz", ".pyc"}]
    named = {name for path in files for name in re.findall(rf"/{DOCUMENTATION}/[\w@./-]*\w", path.read_text())}
    assert f"/{DOCUMENTATION}/docs/operations.md" in named
    assert {name for name in named if not (tmp_path / name.lstrip("/")).exists()} == set()


def test_the_manual_pages_are_where_man_and_the_units_look(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    units = "".join(
        unit.read_text() for unit in tmp_path.rglob("appserver*.s*") if unit.suffix in (".service", ".socket")
    )
    named = set(re.findall(r"man:([\w.]+)\((\d)\)", units))
    assert named == {("appserver", "1"), ("appserver.toml", "5")}
    manuals = tmp_path / "usr/share/man"
    for name, number in (*named, ("appserverctl", "1")):
        found = subprocess.run(
            ["man", "--manpath", manuals, "--where", number, name], capture_output=True, text=True, check=True
        )
        assert found.stdout == f"{manuals}/man{number}/{name}.{number}.gz\n"


def test_the_completions_are_where_shells_look(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    source = Path(__file__).parents[2] / "packaging" / "completions"
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    assert len(files) == 6
    assert all((tmp_path / "usr/share" / file).read_text() == (source / file).read_text() for file in files)


def test_the_example_applications_run_from_where_they_are_installed(machine: Machine) -> None:
    for name in ("hello", "chat"):
        machine.run(f"appserverctl check {name}:app --app-dir /{DOCUMENTATION}/examples")


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
