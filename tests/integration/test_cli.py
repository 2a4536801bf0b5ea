"""The command line from outside: exit codes, one-line errors, precedence of what is set where."""

import errno
import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.integration.servers import APPS, PATIENCE, SCRIPTS, Starter, clean_environment, listening, run

# --- exit codes -------------------------------------------------------------------------------------------------------


def test_a_clean_stop_is_exit_code_0(serve: Starter) -> None:
    server = serve("behaviour:app")
    assert server.get("/") == (200, b"hello")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--prot", "80"], "appserver: --prot: unknown option; did you mean --port?"),
        (["--port", "http"], "appserver: --port: 'http': expected a port number from 0 to 65535"),
        (["--log-level", "inof"], "did you mean info?"),
        (["--bind", "unix"], "appserver: --bind: 'unix': expected "),
        (["one:app", "two:app"], "appserver: command line: 'two:app': expected one APP and no other argument"),
        (["--config", "/nowhere/appserver.toml"], "/nowhere/appserver.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_usage_error_is_one_line_with_the_nearest_name_and_exit_code_2(arguments: list[str], line: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert line in ended.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot = 80", "prot: unknown key; did you mean port?"),
        ("port = 'http'", "port: 'http': expected a port number from 0 to 65535"),
        ("port = ", "is not TOML: Invalid value (at line 1, column 8)"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_its_place_and_exit_code_2(text: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "appserver.toml"
    file.write_text(text)
    ended = run("--config", file)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"appserver: {file}: ")
    assert line in ended.stderr


@pytest.mark.parametrize("words", [("appserver",), ("appserver", "-w", "1"), ("appserverctl", "check")])
def test_a_variable_that_no_environment_can_hold_is_one_line_and_exit_code_2(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "shop.env"
    file.write_text("SHOP_COLOUR=r\0d\n")
    ended = run(*words[1:], "--env-file", file, program=words[0])
    assert ended.returncode == 2
    assert ended.stderr == f"{words[0]}: {file}: SHOP_COLOUR: expected a value without NUL\n"


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    ended = run(APPSERVER_LOG_LEVEL="loud")
    assert ended.returncode == 2
    assert ended.stderr.startswith("appserver: APPSERVER_LOG_LEVEL: 'loud': expected ")
    assert ended.stderr.count("\n") == 1


def test_the_port_that_kubernetes_injects_is_explained() -> None:
    ended = run(APPSERVER_PORT="tcp://10.0.0.1:8000")
    assert ended.returncode == 2
    assert "enableServiceLinks: false" in ended.stderr


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("behavior:app", "no module behavior in {apps} or on Python's path; did you mean behaviour?"),
        ("behaviour:ap", "behaviour has no ap; did you mean app?"),
        ("behaviour:BLOCK", "expected an ASGI 3 application"),
        ("./behavior.py", "no file {apps}/behavior.py; did you mean {apps}/behaviour.py?"),
    ],
)
def test_an_application_that_is_not_found_is_exit_code_3_and_one_record(app: str, message: str, serve: Starter) -> None:
    server = serve(app, ready=False, expected=3)
    assert server.wait() == 3
    [record] = server.records
    assert record["event"] == "application_failed"
    assert message.format(apps=APPS) in record["message"]
    assert "traceback" not in record
    server.told("EXIT_STATUS", "3")


def test_an_application_that_raises_at_import_is_exit_code_3_with_its_own_traceback(serve: Starter) -> None:
    server = serve("broken_import:app", ready=False, expected=3, tracebacks=True)
    assert server.wait() == 3
    [record] = server.records
    assert record["event"] == "application_failed"
    assert "RuntimeError: no database" in record["traceback"]
    assert "broken_import.py" in record["traceback"]
    assert "importlib" not in record["traceback"]


def test_a_port_that_is_taken_is_exit_code_3(serve: Starter) -> None:
    with listening() as listener:
        port = listener.getsockname()[1]
        server = serve("behaviour:app", "--port", str(port), bind=False, ready=False, expected=3)
        assert server.wait() == 3
    assert f"127.0.0.1:{port}: the address is in use" in server.record(event="listen_failed")["message"]


# --- what is said about the program -----------------------------------------------------------------------------------


def test_help_is_readable_at_80_columns() -> None:
    ended = run("--help", COLUMNS="80")
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert max(map(len, ended.stdout.splitlines())) <= 80
    for flag in ("--host", "--port", "--uds", "--fd", "--bind", "--root-path", "--env-file", "--config"):
        assert f" {flag} " in ended.stdout


def test_version_is_one_line_that_names_what_serves() -> None:
    ended = run("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("appserver ")
    assert ended.stdout.count("\n") == 1
    assert all(name in ended.stdout for name in ("Python 3.", "uvloop ", "h11 ", "systemd-python "))


# --- precedence -------------------------------------------------------------------------------------------------------


def test_a_flag_goes_before_the_environment_and_that_before_the_file(serve: Starter, tmp_path: Path) -> None:
    file = tmp_path / "appserver.toml"
    file.write_text('header = ["X-From: file"]\nroot_path = "/file"\nserver_header = false\n')
    variables = {
        "APPSERVER_CONFIG": str(file),
        "APPSERVER_ROOT_PATH": "/environment",
        "APPSERVER_HEADER": "X-From: environment",
    }
    server = serve("behaviour:app", "--header", "X-From: flag", variables=variables)
    with server.browser() as browser:
        response = browser.get("/scope")
    # Each of the three said its own word, and the last one that could be heard is it.
    assert response.headers["x-from"] == "flag"
    assert response.text == "no /environment/scope"
    assert "server" not in response.headers


def test_the_file_may_be_missing_after_a_hyphen(serve: Starter, tmp_path: Path) -> None:
    server = serve("behaviour:app", "--config", f"-{tmp_path}/none.toml")
    assert server.get("/") == (200, b"hello")


def test_the_file_names_application_and_sockets(serve: Starter, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    file = tmp_path / "appserver.toml"
    file.write_text(f'bind = ["127.0.0.1:0", "unix:{path}"]\naccess_log = false\n')
    server = serve("behaviour:app", "--config", file, bind=False)
    assert server.listeners[1] == f"unix:{path}"
    assert server.get("/") == (200, b"hello")
    server.stop()
    assert not any("http_target" in record for record in server.records)


def test_the_env_file_reaches_the_application_before_its_import(serve: Starter, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("SHOP_DATABASE=sqlite\nSHOP_REGION=file\nAPPSERVER_HEADER='X-From: env-file'\n")
    server = serve("behaviour:app", "--env-file", file, variables={"SHOP_REGION": "process"})
    with server.browser() as browser:
        response = browser.get("/scope")
    assert response.json()["environment"] == {"SHOP_DATABASE": "sqlite", "SHOP_REGION": "process"}
    assert response.headers["x-from"] == "env-file"


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(serve: Starter) -> None:
    server = serve("behaviour:app", variables={"APPSERVER_LOG_LEVLE": "debug"})
    record = server.record(level="warning")
    assert record["message"] == "environment APPSERVER_LOG_LEVLE: unknown, ignored; did you mean APPSERVER_LOG_LEVEL?"


def test_appserverctl_shows_where_each_value_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "appserver.toml"
    file.write_text('log_level = "debug"\nbacklog = 64\n')
    ended = run("config", "--json", "--config", file, "--backlog", "32", program="appserverctl", APPSERVER_LINGER="3")
    assert ended.returncode == 0
    settings = json.loads(ended.stdout)
    assert settings["log_level"] == {"value": "debug", "origin": f"file {file}"}
    assert settings["backlog"] == {"value": 32, "origin": "flag --backlog"}
    assert settings["linger"]["origin"] == "environment APPSERVER_LINGER"
    assert settings["port"]["origin"] == "default"


def test_appserverctl_check_tries_application_and_sockets() -> None:
    arguments: list[str | Path] = ["check", "behaviour:app", "--app-dir", APPS]
    well = run(*arguments, "--port", "0", program="appserverctl")
    assert (well.returncode, well.stderr) == (0, "")
    with listening() as listener:
        taken = run(*arguments, "--port", str(listener.getsockname()[1]), program="appserverctl")
    assert taken.returncode == 3
    assert "in use" in taken.stdout


@pytest.mark.parametrize(
    "leave",
    [
        "import os, signal\nif os.fork() == 0:\n    signal.pause()\n    os._exit(0)\n",
        "import multiprocessing\nmanager = multiprocessing.get_context('fork').Manager()\n",
        "import subprocess\nsubprocess.Popen(['sleep', '1000'])\n",
    ],
    ids=["fork", "manager", "program"],
)
def test_appserverctl_check_ends_and_leaves_nothing_behind_that_the_import_has_started(
    leave: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(f"{leave}async def app(scope, receive, send): ...\n")
    # Whoever is left holds stderr, whose end this waits for.
    ended = run("check", "shop:app", "--app-dir", tmp_path, "-b", "127.0.0.1:0", program="appserverctl")
    assert ended.returncode == 0, ended.stderr
    assert "application  ok       shop:app imported in " in ended.stdout


def test_an_import_that_hangs_ends_with_the_check_at_ctrl_c(tmp_path: Path) -> None:
    hangs = "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('hangs', flush=True)\nsignal.pause()\n"
    (tmp_path / "shop.py").write_text(hangs)
    process = subprocess.Popen(
        [SCRIPTS / "appserverctl", "check", "shop:app", "--app-dir", tmp_path, "-b", "127.0.0.1:0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"hangs\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE)[1] == b""
    assert process.returncode == -signal.SIGINT


# --- how an application is named --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "app", ["behaviour:app", "behaviour", "./behaviour.py", "./behaviour.py:app", "factory:make()"]
)
def test_an_application_can_be_named_in_several_ways(app: str, serve: Starter) -> None:
    assert serve(app).get("/") == (200, b"hello")


def test_a_factory_can_be_named_by_a_flag(serve: Starter) -> None:
    assert serve("factory:make", "--factory").get("/") == (200, b"hello")


def test_without_an_application_the_welcome_page_is_served(serve: Starter) -> None:
    with serve("appserver.asgi.welcome:app").browser() as browser:
        assert "appserver" in browser.get("/any/path").text


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_either_event_loop_serves(loop: str, serve: Starter) -> None:
    server = serve("behaviour:app", "--loop", loop)
    with server.browser() as browser:
        assert [browser.get("/").status_code for _ in range(3)] == [200] * 3


def test_a_free_port_is_bound_on_the_default_host(serve: Starter) -> None:
    server = serve("behaviour:app")
    host, port = server.address
    assert host == "127.0.0.1"
    server.stop()
    with socket.socket() as gone:
        assert gone.connect_ex((host, port)) == errno.ECONNREFUSED
