"""The compiled build is the same server: the same tests, and what compiling alone could break."""

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)  # the first one compiles

HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES: list[str] = HOOK["custom"]["modules"]

FOREIGN = [
    # They derive a class from a native one, which has to be native too.
    "tests/unit/wire/test_http2_gate.py",
    # They replace a constant or a name in a module, which native code does not look up.
    "tests/unit/net/test_turn.py::test_answers_do_not_wait_for_applications_that_take_long",
    "tests/unit/telemetry/test_access.py::test_losses_are_told_when_writing_works_again",
    "tests/unit/wire/test_http2_head.py::test_names_are_remembered_and_no_more_of_them_than_is_bounded",
    # They import a module for a second time, which a native one is not.
    "tests/unit/test_ctl.py::test_check_knows_whether_the_engine_is_there",
    "tests/unit/wire/test_select.py::test_without_the_native_library_auto_is_the_next_and_the_native_one_an_error",
    "tests/unit/wire/test_select.py::test_without_the_native_http2_library_auto_is_h2_and_the_native_one_an_error",
    "tests/unit/wire/test_select.py::test_a_native_http2_library_that_cannot_be_loaded_gives_way_and_is_told",
]
"""Tests that only source can pass."""

WITHOUT_H1C = """
import sys
sys.modules["gunicorn_h1c"] = None
from appserver.wire import select
from appserver.wire.engine import Limits
print(select.pick()(Limits()).name)
"""

WAITING = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        task = asyncio.create_task(receive())
        try:
            await asyncio.wait_for(asyncio.shield(task), 0.01)
        except TimeoutError:
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            print("cancelled", flush=True)
        await asyncio.sleep(60)
"""


def python(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def test_no_coroutine_is_compiled() -> None:
    for module in MODULES:
        tree = ast.parse((ROOT / "daemon" / module).read_text())
        found = [node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
        assert not found, f"{module}: {found}"


def test_all_engines_are_on_the_list() -> None:
    """A compiled class has no base that is not."""
    wire = {f"appserver/wire/{path.name}" for path in (ROOT / "daemon/appserver/wire").glob("*.py")}
    # The two derive from classes of the library websockets.
    kept = {"__init__.py", "select.py", "websocket.py", "websocket_handshake.py"}
    assert wire - set(MODULES) == {f"appserver/wire/{name}" for name in kept}


def test_every_module_of_the_list_is_native(compiled: dict[str, str], site: Path) -> None:
    names = [module.removesuffix(".py").replace("/", ".") for module in MODULES]
    program = f"from importlib import import_module as i; print(*(i(n).__file__ for n in {names}), sep='\\n')"
    for module, file in zip(MODULES, python(compiled, "-c", program).split(), strict=True):
        assert Path(file).parent == (site / module).parent
        assert file.endswith(".so")
        assert (site / module).read_bytes() == (ROOT / "daemon" / module).read_bytes()


def test_unit_and_contract_tests(compiled: dict[str, str]) -> None:
    deselected = [f"--deselect={test}" for test in FOREIGN]
    # The unit tests take a minute more: `make test-all`.
    suites = ["tests/contract", "tests/unit"] if os.environ.get("FULL") else ["tests/contract", "tests/unit/wire"]
    told = python(compiled, "-m", "pytest", "-q", "--durations=0", *suites, *deselected)
    assert " passed" in told


def test_without_a_native_parser_there_is_the_plain_one(compiled: dict[str, str]) -> None:
    assert python(compiled, "-c", WITHOUT_H1C) == "plain\n"


def test_it_says_what_it_is_and_cancels_without_a_warning(compiled: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        options = ["--fd", str(listener.fileno()), "--log-format=json", "--app-dir", str(tmp_path)]
        server = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "appserver", *options, "waiting:app"],
            env=compiled,
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        address = listener.getsockname()
    assert server.stdout is not None
    assert server.stderr is not None
    with server:
        try:
            records = []
            for line in server.stderr:
                records.append(json.loads(line))
                if records[-1]["event"] == "ready":
                    break
            assert records[-1]["build"] == "compiled"
            with socket.create_connection(address, timeout=10) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert server.stdout.readline() == "cancelled\n"
                server.send_signal(signal.SIGTERM)
                assert json.loads(server.stderr.readline())["event"] == "stopping"
                server.send_signal(signal.SIGTERM)
                assert client.recv(4096).startswith(b"HTTP/1.1 503 ")
            records = [json.loads(line) for line in server.stderr]
            assert {record["level"] for record in records} <= {"info", "warning"}, records
            assert not [record for record in records if "traceback" in record], records
            server.wait(10)
        finally:
            server.kill()  # it is over, unless something above has failed
    assert server.returncode == 4
