"""Fixtures of the booted systems: the package, a machine with it installed, and the figures to be told at the end."""

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.machine import Machine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIGURE = "figure"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            # The first one downloads and unpacks a Debian.
            item.add_marker(pytest.mark.timeout(600))
    # The longest first: the others wait for most of their time, and run beside it.
    items.sort(key=lambda item: item.path.stem != "test_floors")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [one for group in terminalreporter.stats.values() for one in group if isinstance(one, pytest.TestReport)]
    lines = [text for one in reports if one.when == "call" for name, text in one.user_properties if name == FIGURE]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(str(line))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have a line in the summary of the run; it may come from another process (pytest-xdist)."""
    return lambda line: request.node.user_properties.append((FIGURE, line))


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .deb, as `make deb` builds it from this checkout: once in a run, by the first process that asks for it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the run's; each process has one of its own in it
    with (folder / "deb.lock").open("w") as lock:
        # It takes ten seconds of a CPU.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "deb").exists():
            subprocess.run([ROOT / "packaging/deb", folder / "building"], check=True, capture_output=True)
            (folder / "building").rename(folder / "deb")
    (deb,) = (folder / "deb").glob("appserver_*_all.deb")
    return deb


@pytest.fixture
def machine(request: pytest.FixtureRequest, package: Path) -> Iterator[Machine]:
    """A machine of its own for the test: Debian 13 unless parametrized, with the package and the applications in it.

    It takes half a second, and no test has to clean up after itself or can meet what another one left.
    """
    with Machine.boot(getattr(request, "param", "trixie")) as machine:
        machine.install(package)
        for application in (HERE / "apps").glob("*.py"):
            machine.write(f"/srv/shop/{application.name}", application.read_bytes())
        yield machine
