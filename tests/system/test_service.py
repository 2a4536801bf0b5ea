"""appserver.service: from the first request to the last, as systemd sees it."""

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
    memory_kib,
    override,
    records,
    serve_probe,
)

DOCS = Path(__file__).parents[2] / "docs"
OPERATIONS = DOCS / "operations.md"
GUIDE = DOCS / "systemd.md"


@every_debian
def test_a_request_starts_the_service(machine: Machine) -> None:
    machine.run("systemctl start appserver.socket")
    assert machine.property(SERVICE, "ActiveState") == "inactive"

    assert "appserver is running" in get(machine)  # the welcome application: there is no configuration
    assert machine.property(SERVICE, "ActiveState") == "active"
    assert machine.property(SERVICE, "StatusText").startswith("Serving: ")


@every_debian
def test_a_wsgi_application_is_served_in_the_sandbox(machine: Machine) -> None:
    configure(machine, 'app = "ledger:app"\ninterface = "wsgi"\nthreads = 2')
    machine.run("systemctl start appserver.socket")
    forwarded = ("--header", "X-Forwarded-For: 203.0.113.7", "--header", "X-Forwarded-Proto: https")
    assert re.fullmatch("203.0.113.7 https shop.example wsgi-[12]", get(machine, "/", SOCKET, *forwarded))
    (said,) = records(machine, "MESSAGE=one more entry")
    (answer,) = records(machine, "HTTP_STATUS=200")
    assert (said["PRIORITY"], said["REQUEST_ID"]) == ("3", answer["REQUEST_ID"])
    began = time.monotonic()
    machine.run("systemctl stop appserver.socket appserver.service")
    assert machine.property(SERVICE, "Result") == "success"
    assert time.monotonic() - began < 5  # what threads get that do not end


def test_installing_serves_nothing(machine: Machine) -> None:
    units = ("appserver.socket", "appserver.service")
    assert [machine.property(unit, "ActiveState") for unit in units] == ["inactive", "inactive"]
    assert machine.attempt("systemctl is-enabled appserver.socket").stdout.strip() == b"disabled"


@every_debian
def test_a_start_waits_for_the_lifespan(machine: Machine) -> None:
    serve_probe(machine)
    override(machine, "[Service]\nEnvironment=STARTUP_SECONDS=1.5\n")

    begun = time.monotonic()
    machine.run("systemctl start --no-block appserver.service")
    machine.await_that("the start-up is told in STATUS=", lambda: "startup" in machine.property(SERVICE, "StatusText"))
    assert machine.property(SERVICE, "ActiveState") == "activating"
    machine.run("systemctl start appserver.service")
    assert time.monotonic() - begun >= 1.5
    assert machine.property(SERVICE, "ActiveState") == "active"


def test_systemctl_status_shows_live_figures(machine: Machine) -> None:
    serve_probe(machine)
    for _ in range(3):
        get(machine)
    machine.await_that(
        "the answers are counted", lambda: "3 answered, 0 failed" in machine.run("systemctl status appserver.service")
    )
    (line,) = (line for line in machine.run("systemctl status appserver").splitlines() if "Status:" in line)
    assert line.strip() == 'Status: "Serving: 0 connections, 0 requests in flight, 3 answered, 0 failed"'


@every_debian
@pytest.mark.parametrize("workers", ["", "workers = 2"], ids=["single", "workers"])
def test_who_comes_after_an_idle_exit_waits_for_the_start_alone(
    machine: Machine, workers: str, tell: Callable[[str], None]
) -> None:
    serve_probe(machine, f'idle_exit = "1s"\n{workers}')
    override(machine, "[Unit]\nStartLimitIntervalSec=0\n")
    taken, pids = [], set()
    for _ in range(3):
        begun = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(host_path(machine))
            client.sendall(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            assert client.recv(1) == b"H"
            taken.append(time.perf_counter() - begun)
            # While somebody is there it does not end.
            pids.add(main_pid(machine))
            memory = memory_kib(machine)
        machine.await_that("it has ended", lambda: machine.property(SERVICE, "ActiveState") == "inactive")
        assert machine.property(SERVICE, "Result") == "success"
        assert "no connection for 1 s" in records(machine, "EVENT=stopping")[-1]["MESSAGE"]
    assert len(pids) == len(taken)
    tell(
        f"{machine.suite}, {workers or 'one process'}: connection on an idle socket unit to first byte: "
        f"{min(taken) * 1000:.0f} ms, best of {len(taken)}; its main process: {memory / 1024:.1f} MiB"
    )


def test_it_runs_as_nobody_with_a_folder_of_its_own(machine: Machine) -> None:
    serve_probe(machine)
    answer = get_json(machine)
    assert answer["uid"] >= 61184  # systemd's range for DynamicUser=
    assert answer["state_directory"] == "/var/lib/appserver/appserver"
    assert answer["server"] == ["/run/appserver/appserver.sock", None]


def test_the_socket_outlives_the_service(machine: Machine) -> None:
    serve_probe(machine)
    first = get_json(machine)["pid"]
    machine.run("systemctl stop appserver.service")
    assert get_json(machine)["pid"] != first


def test_the_control_socket_answers_appserverctl(machine: Machine) -> None:
    serve_probe(machine)
    get(machine)
    shown = machine.run(["appserverctl", "status", "--control", CONTROL])
    assert "serving" in shown
    assert get_json(machine, "/status", CONTROL)["answered"] == 1
    # The operator's alone: not of the web server.
    assert machine.attempt(["setpriv", "--reuid=33", "--clear-groups", "ls", CONTROL]).returncode != 0


def test_the_watchdog_replaces_a_blocked_process(machine: Machine) -> None:
    serve_probe(machine)
    override(machine, "[Service]\nWatchdogSec=4s\n")
    first = get_json(machine)["pid"]

    machine.attempt(["timeout", "1", "curl", "--silent", "--unix-socket", "/run/appserver/appserver.sock", "x/block"])
    machine.await_that("a new process", lambda: main_pid(machine) not in {0, first})
    assert get_json(machine)["pid"] != first
    assert int(machine.property(SERVICE, "NRestarts")) == 1
    assert any("Watchdog timeout" in record["MESSAGE"] for record in records(machine, "--unit=appserver.service"))


@every_debian
def test_sigterm_drains(machine: Machine) -> None:
    serve_probe(machine)
    get(machine)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(host_path(machine))
        client.sendall(b"GET /slow?5 HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        machine.await_that("the request runs", lambda: get_json(machine, "/status", CONTROL)["requests"] == 1)
        machine.run("systemctl stop --no-block appserver.service")
        machine.await_that("it drains", lambda: machine.property(SERVICE, "StatusText").startswith("Draining: "))
        client.settimeout(30)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()
    machine.await_that("it has stopped", lambda: machine.property(SERVICE, "ActiveState") == "inactive")
    assert machine.property(SERVICE, "ExecMainStatus") == "0"


def test_requests_cut_at_the_deadline_are_no_failure_of_the_unit(machine: Machine) -> None:
    serve_probe(machine, 'graceful_timeout = "200ms"')
    get(machine)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(host_path(machine))
        client.sendall(b"GET /slow?60 HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        machine.await_that("the request runs", lambda: get_json(machine, "/status", CONTROL)["requests"] == 1)
        machine.run("systemctl stop appserver.service")
    assert machine.property(SERVICE, "ExecMainStatus") == "4"
    assert machine.property(SERVICE, "ActiveState") == "inactive"  # not "failed"


@pytest.mark.parametrize(
    ("configuration", "environment", "code", "said"),
    [
        ('app = "missing:app"', "", 3, "missing"),
        ('app = "probe:app"', "STARTUP_FAILS=yes", 3, "the database is not there"),
        ('ap = "probe:app"', "", 2, "ap"),
    ],
    ids=["no such module", "lifespan failed", "no such key"],
)
def test_a_start_that_fails_says_why(
    machine: Machine, configuration: str, environment: str, code: int, said: str
) -> None:
    configure(machine, configuration)
    override(machine, f"[Unit]\nStartLimitBurst=2\n[Service]\nRestartSec=1s\nEnvironment={environment}\n")

    with pytest.raises(MachineError):
        machine.run("systemctl start appserver.service")
    machine.await_that("the unit gives up", lambda: machine.property(SERVICE, "ActiveState") == "failed")
    assert machine.property(SERVICE, "ExecMainStatus") == str(code)
    ours = [record for record in records(machine, "--unit=appserver.service") if record["_COMM"] != "systemd"]
    assert any(said in record["MESSAGE"] and int(record["PRIORITY"]) <= 6 for record in ours), ours
    assert said in machine.run("systemctl status appserver.service || true")


@every_debian
@pytest.mark.parametrize(
    ("key", "said"),
    [("app", "the database is not there"), ("ap", "unknown key")],
    ids=["a database that is away", "a configuration that is wrong"],
)
def test_what_is_wrong_with_a_start_is_waited_for_and_so_is_the_answer(machine: Machine, key: str, said: str) -> None:
    configure(machine, f'{key} = "probe:app"')
    machine.run("systemctl start appserver.socket")
    # Starts are as rare as shipped, and so many a minute are allowed: 20, or as here 2 in 6 s.
    override(
        machine,
        "[Unit]\nStartLimitIntervalSec=6s\nStartLimitBurst=2\n[Service]\nEnvironment=STARTUP_NEEDS=/srv/shop/database\n",
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(host_path(machine))
        client.sendall(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
        machine.await_that("it was tried often", lambda: int(machine.property(SERVICE, "NRestarts")) >= 3, 60)
        assert machine.property("appserver.socket", "ActiveState") == "active"

        machine.write("/srv/shop/database", "")
        configure(machine, 'app = "probe:app"')
        client.settimeout(30)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    ours = [record for record in records(machine, "--unit=appserver.service") if record["_COMM"] != "systemd"]
    assert len([record for record in ours if said in record["MESSAGE"]]) >= 3


@every_debian
def test_too_many_starts_close_the_socket_until_an_operator_opens_it(machine: Machine) -> None:
    configure(machine, 'ap = "probe:app"')
    machine.run("systemctl start appserver.socket")
    machine.attempt("for _ in $(seq 21); do systemctl restart appserver.service; done")
    units = (SERVICE, "appserver.socket")
    machine.await_that(
        "both have failed", lambda: {machine.property(unit, "ActiveState") for unit in units} == {"failed"}
    )
    assert "start-limit-hit" in machine.property("appserver.socket", "Result")
    with pytest.raises(MachineError):
        get(machine)

    configure(machine, 'app = "probe:app"')
    (way_out,) = re.findall(r"`(systemctl reset-failed [^`]+)`", OPERATIONS.read_text())
    machine.run(way_out)
    assert get_json(machine)["pid"] == main_pid(machine)


@every_debian
@pytest.mark.parametrize("name", ["appserver", "shop"])
def test_variables_that_only_root_may_read_reach_the_application(machine: Machine, name: str) -> None:
    configure(machine, 'app = "probe:app"', name=name)
    machine.write(f"/etc/appserver/{name}.env", "GREETING=only for you\n", mode="0600")
    unit = "appserver" if name == "appserver" else f"appserver@{name}"
    machine.run(f"systemctl start {unit}.socket")
    answer = get_json(machine, "/", f"/run/appserver/{name}.sock")
    assert answer["uid"] != 0
    assert answer["greeting"] == "only for you"


def test_a_check_as_a_user_without_rights_finds_what_root_does_not(machine: Machine) -> None:
    configure(machine, 'app = "probe:app"\nenv_file = "/etc/appserver/closed.env"')
    machine.write("/etc/appserver/closed.env", "GREETING=hello\n", mode="0600")
    machine.run("appserverctl check /etc/appserver/appserver.toml")
    (check,) = re.findall(r"^ +(systemd-run (?:.*\\\n)?.+)$", GUIDE.read_text(), re.MULTILINE)
    done = machine.attempt(check)
    assert done.returncode == 2
    assert b"closed.env" in done.stdout + done.stderr


def test_an_application_in_a_home_runs_as_its_owner(machine: Machine) -> None:
    machine.run("useradd --create-home ada && mv /srv/shop /home/ada/ && chmod 0700 /home/ada")
    (row,) = re.findall(r"^\| lies under /home.*\| (.*) \|$", GUIDE.read_text(), re.MULTILINE)
    settings = [one + ("ada" if one == "User=" else "") for one in re.findall(r"`([^`]+)`", row)]
    machine.write("/etc/appserver/appserver.toml", 'app_dir = "/home/ada/shop"\napp = "probe:app"\n')
    override(machine, "\n".join(["[Service]", *settings, ""]))
    machine.run("systemctl start appserver.socket")
    answer = get_json(machine)
    assert answer["uid"] == int(machine.run("id --user ada"))
    assert answer["state_directory"] == "/var/lib/appserver/appserver"


def test_an_instance_has_its_own_configuration_and_socket(machine: Machine) -> None:
    configure(machine, 'app = "probe:app"', name="shop")
    machine.run("systemctl start appserver@shop.socket appserver.socket")
    answer = get_json(machine, "/", "/run/appserver/shop.sock")
    assert answer["server"] == ["/run/appserver/shop.sock", None]
    assert answer["state_directory"] == "/var/lib/appserver/shop"
    assert get_json(machine, "/status", "/run/appserver/shop/control.sock")["application"] == "probe:app"
    # The other one is not disturbed, not even when this one goes away.
    assert "appserver is running" in get(machine)
    machine.run("systemctl stop appserver@shop.socket appserver@shop.service")
    assert "appserver is running" in get(machine)


def test_an_instance_without_configuration_fails(machine: Machine) -> None:
    with pytest.raises(MachineError):
        machine.run("systemctl start appserver@typo.service")
    assert machine.property("appserver@typo.service", "ExecMainStatus") == "2"
    assert "/etc/appserver/typo.toml" in machine.run("journalctl --unit=appserver@typo.service")
