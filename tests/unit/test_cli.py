"""appserver.cli: the program as it is started, up to its exit code."""

import json
import os
import platform
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from appserver import __version__
from appserver.cli import main
from appserver.errors import Exit
from appserver.wire.select import build, engines, http2_engines

BROKEN = "raise RuntimeError('no database')\n"


@contextmanager
def running(*argv: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the server and wait until it says that it is ready; yields the process and its first URL."""
    command = [sys.executable, "-m", "appserver", "--port", "0", "--log-format", "json", *argv]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables})
    assert process.stderr is not None
    try:
        yield process, _wait(process)["listeners"].split(", ")[0]
    finally:
        process.kill()
        process.communicate()


def _wait(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        record: dict[str, Any] = json.loads(line)
        if record.get("event") == "ready":
            return record
    raise AssertionError("never ready:\n" + "".join(lines))


def run(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "appserver", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, **variables},
    )


# --- without serving --------------------------------------------------------------------------------------------------


def test_version_names_what_serves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == Exit.OK
    found = ", ".join(f"{name} {number}" for name, number in {**engines(), **http2_engines()}.items())
    assert capsys.readouterr().out == (
        f"appserver {__version__} ({build()}, Python {platform.python_version()}, uvloop {version('uvloop')}, "
        f"{found}, systemd-python {version('systemd-python')})\n"
    )


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--prot", "80"], "appserver: --prot: unknown option; did you mean --port?"),
        (["--port", "80000"], "appserver: --port: '80000': expected a port number from 0 to 65535"),
        (["-c", "/none.toml"], "appserver: /none.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == Exit.USAGE
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{line}\n")


def test_help_loads_nothing_that_serves() -> None:
    code = """
import sys
from appserver.cli import main
try:
    main(["--help"])
except SystemExit as error:
    assert error.code == 0
heavy = {"uvloop", "h11", "structlog", "systemd", "appserver.process", "appserver.wire"} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--version" in done.stdout


@pytest.mark.parametrize("program", ["worker", "child", "supervise"])
def test_what_serves_loads_nothing_of_tls_before_it_is_wanted(program: str) -> None:
    code = f"""
import sys
import appserver.process.{program}
heavy = {{f"appserver.net.{{name}}" for name in ("certificates", "handshake", "renewal", "tls")}} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- serving ----------------------------------------------------------------------------------------------------------


def test_it_serves_until_sigterm_and_exits_0() -> None:
    with running("--header", "X-Made-By: tests", "--no-server-header") as (process, url):
        with urllib.request.urlopen(url, timeout=5) as response:
            assert response.status == 200
            assert b"appserver is running" in response.read()
            assert response.headers["X-Made-By"] == "tests"
            assert response.headers["Server"] is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == Exit.OK


def test_a_file_a_variable_and_an_application_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        """
import os

GREETING = os.environ["GREETING"].encode()


async def serve(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["root_path"].encode() + GREETING})
"""
    )
    (tmp_path / ".env").write_text("GREETING=hello\nAPPSERVER_ROOT_PATH=/shop\n")
    config = tmp_path / "shop.toml"
    config.write_text(f'app = "shop:serve"\napp_dir = "{tmp_path}"\nenv_file = "{tmp_path}/.env"\n')
    with (
        running("--config", f"-{config}", APPSERVER_ACCESS_LOG="no") as (_, url),
        urllib.request.urlopen(url, timeout=5) as response,
    ):
        assert response.read() == b"/shophello"


def test_an_application_that_cannot_be_imported_is_exit_code_3_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    done = run("broken:app", "--app-dir", str(tmp_path), "--port", "0", "--log-format", "json")
    assert done.returncode == Exit.STARTUP
    assert "importing it raised RuntimeError: no database" in done.stderr
    assert str(tmp_path / "broken.py") in done.stderr
    assert "loader.py" not in done.stderr


def test_an_application_that_is_not_there_is_exit_code_3_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "mainly.py").write_text(BROKEN)
    done = run("mianly:app", "--app-dir", str(tmp_path), "--port", "0", "--log-format", "json")
    assert done.returncode == Exit.STARTUP
    assert "did you mean mainly?" in done.stderr
    assert "Traceback" not in done.stderr


def test_warnings_about_the_settings_are_in_the_log() -> None:
    done = run("nothing.here", "--port", "0", "--log-format", "json", APPSERVER_PROT="1")
    first = json.loads(done.stderr.splitlines()[0])
    assert first["level"] == "warning"
    assert first["message"] == "environment APPSERVER_PROT: unknown, ignored; did you mean APPSERVER_PORT?"
