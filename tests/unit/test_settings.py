"""appserver.settings: the table, and values from flags, environment and files."""

import dataclasses
from pathlib import Path

import pytest

from appserver.arguments import Row
from appserver.binds import BIND_EXPECTED
from appserver.encryption import Password
from appserver.errors import UsageError
from appserver.settings import TABLE, FdBind, Loaded, Settings, TcpBind, UnixBind, load
from appserver.wire.engine import Limits


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def refuse(argv: list[str], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load(argv, environ or {})
    return str(caught.value)


# --- the table --------------------------------------------------------------------------------------------------------


def test_defaults_are_what_the_class_says() -> None:
    loaded = load([], {})
    assert loaded == Loaded(Settings(), {row.name: "default" for row in TABLE}, (), {})


def test_no_flag_stands_for_two_settings() -> None:
    flags = [flag for row in TABLE for flag in row.flags]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_setting_is_named_after_its_flag(row: Row) -> None:
    assert row.positional or row.flags[0] == f"--{row.name.replace('_', '-')}"
    assert row.variables[0] == f"APPSERVER_{row.name.upper()}"
    assert row.help
    assert not row.help.endswith(".")


@pytest.mark.parametrize("row", [row for row in TABLE if row.default], ids=lambda row: row.name)
def test_every_default_is_a_value_of_its_kind(row: Row) -> None:
    assert row.kind.parse(row.kind.show(row.default)) == row.default
    assert row.kind.read(row.kind.write(row.default)) == row.default


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_setting_can_be_set_from_all_three_places(row: Row, tmp_path: Path) -> None:
    samples = {
        "app": "main:app",
        "env_file": "-/none",
        "bind": "127.0.0.1:1",
        "host": "localhost",
        "header": "A: b",
        "hsts": "300; includeSubDomains",
        "insecure_bind": "127.0.0.1:1",
        "control": "unix:/c",
        "tls_key_password": "/x",
        "config": "-/none",
        "forwarded_allow_ips": "10.0.0.0/8",
        "ws_deflate_window_bits": "15",
        "ws_origin": "https://a.example",
        "statsd_host": "localhost:8125",
        "statsd_prefix": "shop",
    }
    text = samples.get(row.name)
    if text is None:
        text = {bool: "false", int: "300", float: "7", str: "/x"}.get(type(row.default), "7")
    if "|" in row.kind.metavar:
        text = row.kind.metavar.split("|")[1]
    if row.kind.switch:
        value: object = not row.default
        flags = [f"--{'no-' if row.default else ''}{row.flags[0].removeprefix('--')}"]
        text = str(value)
    else:
        value = row.kind.parse(text)
        flags = [text] if row.positional else [row.flags[0], text]
    assert value != row.default

    by_flag = load(flags, {})
    assert getattr(by_flag.settings, row.name) == value
    assert by_flag.origins[row.name] == f"flag {flags[0] if not row.positional else 'APP'}"

    by_variable = load([], {row.variables[0]: text})
    assert getattr(by_variable.settings, row.name) == value
    assert by_variable.origins[row.name] == f"environment {row.variables[0]}"

    if row.name == "config":
        return
    written = row.kind.write(value)
    toml = {True: "true", False: "false"}[written] if isinstance(written, bool) else repr(written).replace("'", '"')
    path = write(tmp_path / "a.toml", f"{row.name} = {toml}\n")
    by_file = load(["--config", path], {})
    assert getattr(by_file.settings, row.name) == value
    assert by_file.origins[row.name] == f"file {path}"


@pytest.mark.parametrize(
    ("alias", "text", "name", "value"),
    [
        ("-b", ":80", "bind", (":80",)),
        ("--keep-alive", "7", "timeout_keep_alive", 7.0),
        ("--timeout-graceful-shutdown", "7", "graceful_timeout", 7.0),
        ("--limit-request-field_size", "512", "limit_request_field_size", 512),
        ("--h11-max-incomplete-event-size", "16384", "limit_request_head", 16384),
        ("--ssl-certfile", "/a.pem", "tls_cert", ("/a.pem",)),
        ("--certfile", "/a.pem", "tls_cert", ("/a.pem",)),
        ("--ssl-keyfile", "/a.key", "tls_key", ("/a.key",)),
        ("--keyfile", "/a.key", "tls_key", ("/a.key",)),
        ("--ssl-keyfile-password", "/p", "tls_key_password", Password("/p")),
        ("--keyfile-password", "/p", "tls_key_password", Password("/p")),
        ("--ssl-ca-certs", "/ca", "tls_ca", "/ca"),
        ("--ca-certs", "/ca", "tls_ca", "/ca"),
        ("--ssl-cert-reqs", "2", "tls_client_cert", "required"),
        ("--cert-reqs", "1", "tls_client_cert", "optional"),
        ("--verify-mode", "CERT_REQUIRED", "tls_client_cert", "required"),
        ("--ssl-ciphers", "HIGH", "tls_ciphers", "HIGH"),
        ("--ciphers", "HIGH", "tls_ciphers", "HIGH"),
        ("--ssl-version", "17", "tls_min_version", "1.2"),
        ("--ssl-handshake-timeout", "60", "timeout_tls", 60.0),
        ("-c", "-/none", "config", "-/none"),
    ],
)
def test_the_flags_of_other_servers_are_taken(alias: str, text: str, name: str, value: object) -> None:
    loaded = load([alias, text], {})
    assert getattr(loaded.settings, name) == value
    assert loaded.origins[name] == f"flag {alias}"


# --- precedence -------------------------------------------------------------------------------------------------------


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", "port = 3\nbacklog = 3\nlinger = 3\n")
    environ = {"APPSERVER_PORT": "2", "APPSERVER_BACKLOG": "2", "APPSERVER_CONFIG": path}
    loaded = load(["--port", "1"], environ)
    assert (loaded.settings.port, loaded.settings.backlog, loaded.settings.linger) == (1, 2, 3.0)
    assert loaded.settings.graceful_timeout == 30
    assert loaded.origins["port"] == "flag --port"
    assert loaded.origins["backlog"] == "environment APPSERVER_BACKLOG"
    assert loaded.origins["linger"] == f"file {path}"


def test_a_value_that_does_not_win_is_not_looked_at() -> None:
    assert load(["--port", "1"], {"APPSERVER_PORT": "tcp://10.0.0.1:80"}).settings.port == 1


def test_the_last_of_two_flags_wins() -> None:
    assert load(["--port", "x", "--port", "2"], {}).settings.port == 2
    assert load(["--no-access-log", "--access-log"], {}).settings.access_log is True


def test_repeatable_flags_add_up_and_replace_what_is_below() -> None:
    loaded = load(["-b", ":1", "--bind", ":2", "--header", "A: 1", "--header=B: 2"], {"APPSERVER_BIND": ":3"})
    assert loaded.settings.bind == (":1", ":2")
    assert loaded.settings.header == (("A", "1"), ("B", "2"))


def test_headers_in_the_environment_are_lines() -> None:
    assert load([], {"APPSERVER_HEADER": "A: 1, 2\nB: 3\n"}).settings.header == (("A", "1, 2"), ("B", "3"))


@pytest.mark.parametrize(
    ("environ", "value"),
    [
        ({"FORWARDED_ALLOW_IPS": "10.0.0.1"}, ("10.0.0.1",)),
        ({"FORWARDED_ALLOW_IPS": "10.0.0.1", "APPSERVER_FORWARDED_ALLOW_IPS": "unix"}, ("unix",)),
        ({"FORWARDED_ALLOW_IPS": ""}, ()),
    ],
)
def test_forwarded_allow_ips_is_read_as_by_others(environ: dict[str, str], value: tuple[str, ...]) -> None:
    assert load([], environ).settings.forwarded_allow_ips == value


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["main:app", "--port", "1", "--factory"],
        ["--port", "1", "main:app", "--factory"],
        ["--port=1", "--factory", "main:app"],
        ["--factory", "--port", "1", "--", "main:app"],
    ],
)
def test_app_may_stand_anywhere(argv: list[str]) -> None:
    settings = load(argv, {}).settings
    assert (settings.app, settings.port, settings.factory) == ("main:app", 1, True)


@pytest.mark.parametrize("argv", [["--config", "-/none"], ["--config=-/none"], ["-c", "-/none"], ["-c-/none"]])
def test_a_value_may_begin_with_a_hyphen(argv: list[str]) -> None:
    assert load(argv, {}).settings.config == "-/none"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--prot", "80"], "--prot: unknown option; did you mean --port?"),
        (["--prot=80"], "--prot: unknown option; did you mean --port?"),
        (["--no-acces-log"], "--no-acces-log: unknown option; did you mean --no-access-log?"),
        (["--zzz"], "--zzz: unknown option"),
        (["-z"], "-z: unknown option"),
        (["--chdir", "/srv"], "--chdir: unknown option"),
        (["--worker-class", "x"], "--worker-class: unknown option"),
        (["--tls-crt", "x"], "--tls-crt: unknown option; did you mean --tls-cert?"),
        (["--por", "80"], "--por: unknown option; did you mean --port?"),
        (["--port", "http"], "--port: 'http': expected a port number from 0 to 65535"),
        (["--port"], "--port: expected one argument"),
        (["--port", "--host", "x"], "--port: expected one argument"),
        (["--loop", "uvlop"], "--loop: 'uvlop': expected one of auto, uvloop, asyncio; did you mean uvloop?"),
        (["--fd", "-1"], "--fd: '-1': expected a file descriptor's number"),
        (["-b/x"], f"-b: '/x': {BIND_EXPECTED}; did you mean unix:/x?"),
        (["--keep-alive", "soon"], "--keep-alive: 'soon': expected a time of 0 or more: 5, 1.5, 500ms, 10min, 2h"),
        (["a:b", "c:d"], "command line: 'c:d': expected one APP and no other argument"),
        ([""], "APP: '': expected module:attribute, module:factory() or a file's path"),
    ],
)
def test_one_line_says_what_is_wrong(argv: list[str], line: str) -> None:
    assert refuse(argv) == line


def test_a_switch_takes_no_value() -> None:
    assert refuse(["--factory=yes"]).startswith("--factory")


def test_help_is_grouped_and_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        load(["--help"], {})
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert max(map(len, out.splitlines())) <= 80
    for row in TABLE:
        assert f"\n{row.group}:\n" in out
        assert row.flags[0] in out
    assert "--limit-request-field_size" not in out


# --- the environment --------------------------------------------------------------------------------------------------


def test_an_unusable_variable_is_an_error() -> None:
    assert refuse([], {"APPSERVER_ACCESS_LOG": "si"}) == "APPSERVER_ACCESS_LOG: 'si': expected true or false"
    assert refuse([], {"APPSERVER_PORT": ""}) == "APPSERVER_PORT: '': expected a port number from 0 to 65535"


def test_an_unknown_variable_is_a_warning() -> None:
    environ = {"APPSERVER_PROT": "1", "APPSERVER_ZZZ": "2", "APP": "3", "appserver_port": "4"}
    assert load([], environ).warnings == (
        "environment APPSERVER_PROT: unknown, ignored; did you mean APPSERVER_PORT?",
        "environment APPSERVER_ZZZ: unknown, ignored",
    )


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over() -> None:
    environ = {
        "APPSERVER_SERVICE_HOST": "10.0.0.1",
        "APPSERVER_SERVICE_PORT": "80",
        "APPSERVER_SERVICE_PORT_HTTP": "80",
        "APPSERVER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "APPSERVER_PORT_80_TCP_PROTO": "tcp",
        "APPSERVER_PORT_80_TCP_PORT": "80",
        "APPSERVER_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load([], environ).warnings == ()


def test_the_port_that_kubernetes_sets_is_explained() -> None:
    line = refuse([], {"APPSERVER_PORT": "tcp://10.0.0.1:80"})
    assert line.startswith("APPSERVER_PORT: 'tcp://10.0.0.1:80': expected a port number")
    assert "enableServiceLinks: false" in line
    assert "enableServiceLinks" not in refuse(["--port", "tcp://10.0.0.1:80"])


# --- the TOML file ----------------------------------------------------------------------------------------------------


def test_a_file_has_native_values(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.toml",
        """
        app = "main:app"
        bind = ["127.0.0.1:80", "unix:/x"]
        access_log = false
        limit_request_body = "10M"
        timeout_body = 1.5
        uds_mode = "0600"
        header = ["A: b"]
        """,
    )
    assert load(["-c", path], {}).settings == Settings(
        app="main:app",
        bind=("127.0.0.1:80", "unix:/x"),
        access_log=False,
        limit_request_body=10 * 2**20,
        timeout_body=1.5,
        uds_mode=0o600,
        header=(("A", "b"),),
        config=path,
    )


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("prot = 80", ": prot: unknown key; did you mean port?"),
        ("log-level = 'info'", ": log-level: unknown key; did you mean log_level?"),
        ("zzz = 80", ": zzz: unknown key"),
        ("config = 'b.toml'", ": config: unknown key"),
        ("port = '80'", ": port: '80': expected a port number from 0 to 65535"),
        ("port = true", ": port: True: expected a port number from 0 to 65535"),
        ("access_log = 'no'", ": access_log: 'no': expected true or false"),
        ("uds_mode = 660", ': uds_mode: 660: expected octal permission bits such as "0660"'),
        ("port = ", ": is not TOML: Invalid value (at line 1, column 8)"),
        ("port = " + "9" * 5000, ": cannot be read: Exceeds the limit (4300 digits) for integer string conversion"),
        ("bind = " + "[" * 100_000, ": "),
        ("[server]\nport = 80", ": [server]: unknown table: expected keys alone, before any table"),
        ("WORKERS = 2", ": WORKERS: unknown key; did you mean workers?"),
        (
            "limit_request_body = '100MX'",
            ": limit_request_body: '100MX': expected a size, 0 for no limit: 8192, 64K, 1M",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line(text: str, rest: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", text)
    line = refuse(["-c", path])
    assert line.startswith(f"{path}{rest}")
    assert "\n" not in line


def test_an_unknown_key_is_an_error_whatever_the_flags_say(tmp_path: Path) -> None:
    assert "unknown key" in refuse(["-c", write(tmp_path / "a.toml", "prot = 80"), "--port", "1"])


def test_a_file_that_is_not_utf_8_is_located(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"port = 80\napp = '\xff'\n")
    assert refuse(["-c", str(path)]) == f"{path}: is not UTF-8 (at line 2, column 8)"


def test_a_missing_file_is_an_error_unless_a_hyphen_says_otherwise(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    assert refuse(["-c", missing]) == f"{missing}: cannot be read: No such file or directory"
    assert load(["-c", f"-{missing}"], {}).settings == Settings(config=f"-{missing}")


def test_an_optional_file_that_is_there_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", "port = 80")
    loaded = load(["-c", f"-{path}"], {})
    assert loaded.settings.port == 80
    assert loaded.origins["port"] == f"file {path}"
    assert refuse(["-c", f"-{tmp_path}"]) == f"{tmp_path}: cannot be read: Is a directory"


# --- the file of variables --------------------------------------------------------------------------------------------


def test_a_file_of_variables_adds_to_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path / ".env", "SECRET='a b'\nexport HOME=/nowhere\nAPPSERVER_PORT=81\nEMPTY=\nNOTHING\n")
    environ = {"HOME": "/root"}
    loaded = load(["--env-file", path], environ)
    assert loaded.variables == {"SECRET": "a b", "APPSERVER_PORT": "81", "EMPTY": ""}
    assert environ == {"HOME": "/root"}
    assert loaded.settings.port == 81
    assert loaded.origins["port"] == f"environment APPSERVER_PORT ({path})"


def test_variables_that_exist_win_and_those_of_the_file_win_over_the_toml_file(tmp_path: Path) -> None:
    variables = write(tmp_path / ".env", "APPSERVER_PORT=81\nAPPSERVER_BACKLOG=81\n")
    toml = write(tmp_path / "a.toml", f"port = 82\nbacklog = 82\nenv_file = '{variables}'\n")
    loaded = load(["-c", toml], {"APPSERVER_PORT": "80"})
    assert (loaded.settings.port, loaded.settings.backlog) == (80, 81)
    assert loaded.settings.env_file == variables


def test_a_mistake_in_a_file_of_variables_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / ".env", "APPSERVER_PORT=http\n")
    assert refuse(["--env-file", path]).startswith(f"{path}: APPSERVER_PORT: 'http': expected a port number")


def test_a_file_of_variables_cannot_name_other_files(tmp_path: Path) -> None:
    other = write(tmp_path / "b.toml", "port = 1")
    path = write(tmp_path / ".env", f"APPSERVER_CONFIG={other}\nAPPSERVER_ENV_FILE=/none\n")
    settings = load(["--env-file", path], {}).settings
    assert (settings.config, settings.env_file, settings.port) == (None, path, None)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("GOOD=1\nSECRET=a\0b\n", ": SECRET: expected a value without NUL"),
        ("A=a\0b\nA=1\nB='${A}\0'\n", ": B: expected a value without NUL"),
        ("A\0B=1\n", ": 'A\\x00B': expected a name without = and without NUL"),
        ("'A=B'=1\n", ": 'A=B': expected a name without = and without NUL"),
    ],
)
def test_what_no_environment_can_hold_is_refused_by_its_name(text: str, rest: str, tmp_path: Path) -> None:
    path = write(tmp_path / ".env", text)
    assert refuse(["--env-file", path]) == f"{path}{rest}"


@pytest.mark.parametrize("line", ["A B=1", "PASSWORD: secret", "A='1", "1 2 3"])
def test_a_line_that_is_no_variable_is_an_error_that_keeps_secrets(
    line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / ".env", f"# a comment\nB=2\n\n{line}\nC=3\n")
    assert refuse(["--env-file", path]) == f"{path}: line 4: expected NAME=value"
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_of_variables_is_an_error() -> None:
    assert refuse(["--env-file", "/none/.env"]) == "/none/.env: cannot be read: No such file or directory"


# --- what to listen on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "binds"),
    [
        ([], ()),
        (["--port", "80"], (TcpBind("127.0.0.1", 80),)),
        (["--port", "0"], (TcpBind("127.0.0.1", 0),)),
        (["--host", "::"], (TcpBind("::", 8000),)),
        (["--uds", "/x"], (UnixBind("/x"),)),
        (["--fd", "0"], (FdBind(0, None),)),
        (
            ["-b", "[::1]:1", "-b", "fd://http", "--uds", "@x", "--port", "2"],
            (TcpBind("::1", 1), FdBind(None, "http"), TcpBind("127.0.0.1", 2), UnixBind("@x")),
        ),
    ],
)
def test_binds_are_all_that_was_said(argv: list[str], binds: tuple[object, ...]) -> None:
    assert load(argv, {}).settings.binds == binds


def test_insecure_binds_are_a_list_of_their_own() -> None:
    settings = load(["--insecure-bind", ":80", "-b", ":443"], {}).settings
    assert settings.binds == (TcpBind("", 443),)
    assert settings.insecure_binds == (TcpBind("", 80, tls=False),)


def test_a_certificate_or_a_folder_of_them_means_tls() -> None:
    assert not load([], {}).settings.encrypted
    assert load(["--tls-cert", "/a.pem"], {}).settings.encrypted
    assert load(["--tls-dir", "/a"], {}).settings.encrypted


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_an_engine_without_a_settings_table_has_the_same_limits() -> None:
    limits, settings = Limits(), Settings()
    assert (limits.request_line, limits.field, limits.fields, limits.head, limits.body) == (
        settings.limit_request_line,
        settings.limit_request_field_size,
        settings.limit_request_fields,
        settings.limit_request_head,
        settings.limit_request_body,
    )


def test_an_error_about_a_password_does_not_show_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", "tls_key_password = 31.337\n")
    with pytest.raises(UsageError) as caught:
        load(["--config", path], {})
    assert str(caught.value) == (f"{path}: tls_key_password: expected a path, credential:NAME or the password itself")
    number = write(tmp_path / "b.toml", "tls_key_password = 31337\n")
    assert load(["--config", number], {}).settings.tls_key_password == Password("31337")


def test_files_that_are_looked_at_again_get_absolute_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/srv")
    words = ["--tls-cert", "a.pem", "--tls-key", "credential:key", "--tls-key-password", "./word", "--tls-dir", "more"]
    settings = load([*words, "--tls-ca", "ca.pem", "--acme-dir", "acme"], {}).settings.anchored()
    assert (settings.tls_cert, settings.tls_key) == (("/srv/a.pem",), ("credential:key",))
    assert settings.tls_key_password == Password("/srv/word")
    assert (settings.tls_dir, settings.tls_ca, settings.acme_dir) == ("/srv/more", "/srv/ca.pem", "/srv/acme")
    assert Settings(tls_key_password=Password("hunter2")).anchored().tls_key_password == Password("hunter2")
    assert Settings().anchored() == Settings()
