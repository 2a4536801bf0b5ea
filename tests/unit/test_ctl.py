"""appserver.ctl: check, config and status, the last against a running server."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appserver import __version__
from appserver.ctl import COMMANDS, main
from appserver.errors import Exit
from appserver.settings import TABLE
from appserver.wire.select import build
from tests.certificates import Issuer, Pair

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("APPSERVER_"):
            monkeypatch.delenv(name)


# --- the program ------------------------------------------------------------------------------------------------------


def test_help_names_the_commands(capsys: Capture) -> None:
    assert main(["--help"]) == Exit.OK
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert max(map(len, out.splitlines())) <= 80


def test_without_a_command_the_help_is_an_error(capsys: Capture) -> None:
    assert main([]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "COMMAND" in err


def test_an_unknown_command_is_answered_with_the_nearest(capsys: Capture) -> None:
    assert main(["chekc"]) == Exit.USAGE
    assert capsys.readouterr().err == "appserverctl: chekc: unknown command; did you mean check?\n"


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == Exit.OK
    assert capsys.readouterr().out.startswith(f"appserverctl {__version__} ({build()}, Python ")


# --- check ------------------------------------------------------------------------------------------------------------


def lines(capsys: Capture) -> list[list[str]]:
    """The checks: what, verdict, text."""
    return [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]


def test_check_passes_with_a_line_for_each_part(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import os, threading\nprint('chatty')\nassert os.environ['SECRET'] == '1'\n"
        "threading.Thread(target=threading.Event().wait).start()\nasync def app(scope, receive, send): ...\n"
    )
    (tmp_path / ".env").write_text("SECRET=1\n")
    path = tmp_path / "app.sock"
    argv = ["check", "main:app", "--app-dir", str(tmp_path), "--env-file", str(tmp_path / ".env")]
    assert main([*argv, "-b", "127.0.0.1:0", "--uds", str(path), "--fd", "3"]) == Exit.OK
    assert [line[:2] for line in lines(capsys)] == [
        ["settings", "ok"],
        ["env", "file"],
        ["application", "ok"],
        ["socket", "ok"],
        ["socket", "ok"],
        ["socket", "ok"],
    ]
    assert not path.exists()


def test_check_takes_a_file_of_settings_in_the_place_of_the_application(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("async def app(scope, receive, send): ...\n")
    path = tmp_path / "shop.toml"
    path.write_text(f'app = "main:app"\napp_dir = "{tmp_path}"\nbind = ["127.0.0.1:0"]\n')
    assert main(["check", str(path)]) == Exit.OK
    assert "application  ok       main:app imported in " in capsys.readouterr().out
    path.write_text("prot = 1\n")
    assert main(["check", str(path)]) == Exit.USAGE
    assert f"appserverctl: {path}: prot: " in capsys.readouterr().err


def test_check_reports_every_failure_at_once(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("raise RuntimeError('no database')\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        argv = ["check", "main:app", "--app-dir", str(tmp_path), "-b", address, "--control", "unix:/none/c.sock"]
        assert main(argv) == Exit.STARTUP
    out = capsys.readouterr().out
    assert "application  FAILED   main:app: importing it raised RuntimeError: no database" in out
    assert f'File "{tmp_path}/main.py", line 1' in out
    assert f"socket       FAILED   {address}: " in out
    assert "socket       FAILED   unix:/none/c.sock: " in out


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("import os\nos._exit(0)", "exit code 0"),
        ("import os\nos._exit(7)", "exit code 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
    ],
)
def test_check_survives_an_application_that_ends_its_process(
    text: str, how: str, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(text)
    assert main(["check", "main:app", "--app-dir", str(tmp_path), "--fd", "0"]) == Exit.STARTUP
    assert f"FAILED   main:app: importing it ended the process with {how}\n" in capsys.readouterr().out


def test_check_tells_of_each_certificate(capsys: Capture, tmp_path: Path) -> None:
    issuer = Issuer()
    good = issuer.issue(tmp_path / "good.pem", "a.example", "*.a.example")
    good.key.chmod(0o600)
    soon = issuer.issue(tmp_path / "soon.pem", "b.example", days=3)
    soon.key.chmod(0o644)
    over = issuer.issue(tmp_path / "over.pem", "c.example", days=-1)
    over.key.chmod(0o600)
    bad = Pair(issuer.issue(tmp_path / "bad.pem", "d.example").certificate, good.key)
    words = [word for pair in (good, soon, over, bad) for word in pair.arguments]
    assert main(["check", *words, "-b", "127.0.0.1:0?tls=on"]) == Exit.STARTUP
    told = [text for what, verdict, text in lines(capsys) if what == "certificate" for text in [f"{verdict} {text}"]]
    assert told[0].startswith(f"ok {good.certificate}: a.example, *.a.example, good until 2")
    assert told[1].startswith(f"warning {soon.certificate}: b.example, good until 2")
    assert told[1].endswith(f"; it expires soon; every user can read the key {soon.key} (mode 0644)")
    assert told[2].endswith("; it has expired")
    assert told[3] == f"FAILED {good.key}: is not the key of {bad.certificate}"


def test_check_tells_of_a_folder_without_certificates_and_goes_on(capsys: Capture, tmp_path: Path) -> None:
    assert main(["check", "--tls-dir", str(tmp_path), "-b", "127.0.0.1:0"]) == Exit.STARTUP
    out = capsys.readouterr().out
    assert f"certificate  FAILED   {tmp_path}: no certificate there" in out
    assert "socket       ok" in out


def test_check_with_tls_settings_that_contradict_each_other_is_a_usage_error(capsys: Capture) -> None:
    assert main(["check", "--tls-key", "/a.key"]) == Exit.USAGE
    assert capsys.readouterr().err.startswith("appserverctl: --tls-key: '/a.key': expected a --tls-cert")


def test_check_takes_addresses_for_names(capsys: Capture, tmp_path: Path) -> None:
    pair = Issuer().issue(tmp_path / "a.pem", "127.0.0.1")
    pair.key.chmod(0o600)
    assert main(["check", *pair.arguments, "-b", "127.0.0.1:0"]) == Exit.OK
    assert f"certificate  ok       {pair.certificate}: 127.0.0.1, good until" in capsys.readouterr().out


def test_check_tells_what_has_no_effect(capsys: Capture, tmp_path: Path) -> None:
    words = ["--hsts", "1d", "--tls-min-version", "1.3", "--tls-ciphers", "HIGH", "--https-redirect"]
    none = tmp_path / "none"
    assert main(["check", *words, "--acme-dir", str(none), "-b", "127.0.0.1:0"]) == Exit.OK
    told = [text for what, verdict, text in lines(capsys) if verdict == "warning"]
    assert told[:3] == [
        f"{flag} has no effect: no listener speaks TLS" for flag in ("--hsts", "--tls-min-version", "--tls-ciphers")
    ]
    assert told[3].startswith("--https-redirect: no listener speaks TLS. Port 443 has to be served by a proxy")
    assert told[4] == f"--acme-dir: {none} is no folder; until it is, challenges are answered with 404"
    pair = Issuer().issue(tmp_path / "a.pem", "a.example")
    pair.key.chmod(0o600)
    assert main(["check", *pair.arguments, *words, "--acme-dir", str(tmp_path), "-b", "127.0.0.1:0"]) == Exit.OK
    assert "warning" not in capsys.readouterr().out


def test_config_hides_a_password(capsys: Capture) -> None:
    for words in (["--json"], []):
        assert main(["config", *words, "--tls-key-password", "hunter2"]) == Exit.OK
        out, err = capsys.readouterr()
        assert "hunter2" not in out + err
        assert "(hidden)" in out


def test_check_does_not_fail_over_the_default_address(capsys: Capture) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # another program has it: as good
        assert main(["check"]) == Exit.OK
    assert "socket       warning  127.0.0.1:8000: " in capsys.readouterr().out


def test_check_with_a_wrong_setting_is_a_usage_error(capsys: Capture) -> None:
    assert main(["check", "--port", "x"]) == Exit.USAGE
    assert capsys.readouterr().err == "appserverctl: --port: 'x': expected a port number from 0 to 65535\n"


def test_check_knows_whether_the_engine_is_there(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gunicorn_h1c", None)
    monkeypatch.delitem(sys.modules, "appserver.wire.http1_h1c", raising=False)
    assert main(["check", "--http", "h1c"]) == Exit.USAGE
    assert "appserverctl: --http: 'h1c': " in capsys.readouterr().err


def test_check_shows_warnings(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPSERVER_PROT", "1")
    main(["check", "--fd", "0"])
    assert [
        "settings",
        "warning",
        "environment APPSERVER_PROT: unknown, ignored; did you mean APPSERVER_PORT?",
    ] in lines(capsys)


# --- config -----------------------------------------------------------------------------------------------------------


def test_config_shows_every_value_and_its_origin(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.toml"
    path.write_text('uds_mode = "0600"\n')
    monkeypatch.setenv("APPSERVER_LINGER", "500ms")
    assert main(["config", "main:app", "-c", str(path), "--header", "A: b", "--header", "C: d"]) == Exit.OK
    shown = {
        name: rest.rsplit("  ", 1)
        for name, rest in (line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    }
    assert list(shown) == [row.name for row in TABLE]
    cells = {name: [cell.strip() for cell in rest] for name, rest in shown.items()}
    assert cells["app"] == ["main:app", "flag APP"]
    assert cells["uds_mode"] == ["0600", f"file {path}"]
    assert cells["linger"] == ["0.5", "environment APPSERVER_LINGER"]
    assert cells["header"] == ["A: b, C: d", "flag --header"]
    assert cells["limit_request_line"] == ["8K", "default"]
    assert cells["port"] == ["-", "default"]


def test_config_as_json_has_values_that_a_file_could_have(capsys: Capture) -> None:
    assert main(["config", "--json", "--port", "1", "--header", "A: b"]) == Exit.OK
    table = json.loads(capsys.readouterr().out)
    assert table["port"] == {"value": 1, "origin": "flag --port"}
    assert table["header"]["value"] == ["A: b"]
    assert table["uds_mode"]["value"] == "0660"
    assert table["access_log"]["value"] is True
    assert table["control"]["value"] is None
    for row in TABLE:
        value = table[row.name]["value"]
        assert value is None or row.kind.write(row.kind.read(value)) == value


# --- status -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The control socket of a server that runs."""
    path = tmp_path_factory.mktemp("run") / "control.sock"
    command = [sys.executable, "-m", "appserver", "--port", "0", "--control", f"unix:{path}", "--log-level", "error"]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 20
        while main(["status", "--json", "--control", str(path)]) != Exit.OK:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield str(path)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("prefix", ["", "unix:"])
def test_status_is_a_table(prefix: str, control: str, capsys: Capture) -> None:
    assert main(["status", "--control", prefix + control]) == Exit.OK
    table = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["state", "serving"] in table
    assert ["version", __version__] in table
    assert ["requests", "0"] in table
    assert next(cells[1] for cells in table if cells[0] == "uptime").startswith("0:00:")


def test_status_as_json_and_the_path_from_the_environment(
    control: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPSERVER_CONTROL", f"unix:{control}")
    assert main(["status", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["state"] == "serving"


def test_a_probe_is_told_by_the_exit_code(control: str, capsys: Capture) -> None:
    assert main(["ready", "--control", control]) == Exit.OK
    assert main(["drain", "--control", control]) == Exit.OK
    assert main(["ready", "--control", control]) == Exit.STARTUP
    assert "not ready: serving, drained by the operator" in capsys.readouterr().err
    assert main(["resume", "--control", control]) == Exit.OK
    assert main(["ready", "--control", control]) == Exit.OK


def test_an_address_that_is_named_twice_fails_the_check(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    assert main(["check", "--bind", f"unix:{path}", "--uds", str(path)]) == Exit.STARTUP
    assert f"unix:{path}: it is named twice" in capsys.readouterr().out


def test_a_command_without_an_application_says_so(capsys: Capture) -> None:
    assert main(["status", "/run/x.sock"]) == Exit.USAGE
    assert capsys.readouterr().err == "appserverctl: command line: '/run/x.sock': expected no other argument\n"


def test_status_of_a_server_that_does_not_run(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    assert main(["status", "--control", str(path)]) == Exit.STARTUP
    message = f"appserverctl: {path}: No such file or directory; is a server running with `--control unix:{path}`?\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_status_of_something_else(answer: bytes, capsys: Capture, tmp_path: Path) -> None:
    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert main(["status", "--control", path]) == Exit.STARTUP
        thread.join()
    assert capsys.readouterr().err == f"appserverctl: {path}: what answers there is no control socket of appserver\n"


def test_status_takes_no_settings(capsys: Capture) -> None:
    assert main(["status", "--port", "80"]) == Exit.USAGE
    assert "--port: unknown option" in capsys.readouterr().err
