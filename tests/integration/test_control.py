"""The control socket and `appserverctl`, of a single process and of a master with workers."""

import http.client
import json
import os
import pty
import select
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.certificates import Issuer
from tests.integration.devtools import looking
from tests.integration.servers import PATIENCE, SCRIPTS, Starter, UnixConnection, clean_environment, listening, run
from tests.integration.terminal import running
from tests.integration.test_sockets import handed
from tests.integration.workers import Crew, eventually

KINDS: Final = {"single": (), "workers": ("--workers", "2")}
NOBODY: Final = "65534"

CROWD: Final = """
import socket, sys
crowd = [socket.socket(socket.AF_UNIX) for _ in range(150)]
for one in crowd:
    one.connect(sys.argv[1])
left = 0
for one in crowd:
    try:
        one.sendall(b"GET /livez HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        left += one.recv(4096) != b""
    except OSError:
        pass
print(left, "of 150")
"""

Begin = Callable[..., Crew]
Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def begin(serve: Starter, tmp_path: Path) -> Begin:
    """Starts a server with a control socket."""
    control = tmp_path / "control.sock"

    def start(app: str, *arguments: str | Path, **options: Any) -> Crew:
        return Crew(serve(app, "--control", f"unix:{control}", *arguments, **options), control)

    return start


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """One of each kind, for tests that leave it as it was."""
    folder = tmp_path_factory.mktemp(request.param)
    starter, control = Starter(folder), folder / "control.sock"
    try:
        words = ("--control", f"unix:{control}", *KINDS[request.param])
        yield Crew(starter("behaviour:app", *words, tracebacks=True), control)  # the application logs some
    finally:
        starter.finish()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def ctl(crew: Crew, *words: str) -> Ended:
    return run(*words, "--control", crew.control, program="appserverctl")


def curl(path: str | Path, target: str, *words: str, user: str | None = None) -> tuple[int, Any]:
    """What curl is answered: the status and the JSON, or the text."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    command = [*become, "curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(path), *words]
    done = subprocess.run(
        [*command, f"http://localhost{target}"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body) if body.startswith("{") else body


def order(crew: Crew, target: str, **words: Any) -> tuple[int, Any]:
    return curl(crew.control, target, "--json", json.dumps(words))


# --- what there is ----------------------------------------------------------------------------------------------------


def test_curl_finds_all_that_there_is(server: Crew) -> None:
    status, told = curl(server.control, "/")
    assert (status, told["server"]) == (200, "appserver")
    routes = {(route["method"], route["path"]) for route in told["paths"]}
    assert {("GET", "/status"), ("GET", "/connections"), ("POST", "/drain")} <= routes
    for method, path in routes:
        if method == "GET":
            assert curl(server.control, path)[0] == 200
    assert curl(server.control, "/nothing")[0] == 404


def test_head_has_the_fields_and_no_body(server: Crew) -> None:
    with closing(UnixConnection(server.control)) as connection:
        connection.request("HEAD", "/status")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
        assert int(response.headers["Content-Length"]) > 100


# --- drain and resume -------------------------------------------------------------------------------------------------


def test_a_drained_server_answers_requests_and_says_that_others_should(server: Crew) -> None:
    assert ctl(server, "drain").returncode == 0
    status, told = curl(server.control, "/readyz")
    assert (status, told) == (503, {"ready": False, "state": "serving", "drained": True})
    assert curl(server.control, "/livez")[0] == 200
    assert server.server.get("/") == (200, b"hello")
    assert server.report()["ready"] is False
    server.server.status("Drained by the operator. Serving: ")
    assert ctl(server, "drain").returncode == 0  # once more is no fault, and no second event
    assert ctl(server, "resume").stdout == "resumed: /readyz answers 200\n"
    assert curl(server.control, "/readyz") == (200, {"ready": True, "state": "serving", "drained": False})
    server.server.record(event="resumed")
    drained = [record for record in server.server.records if record.get("event") == "drained"]
    assert len(drained) == 1


# --- the log level ----------------------------------------------------------------------------------------------------


def said(crew: Crew, word: str) -> bool:
    """Whether a record of level info is written for a request; one of level error, behind it, always is."""

    def count() -> int:
        return sum(record["message"].startswith("caught") for record in crew.server.records)

    before = count()
    assert crew.server.get(f"/log?{word}")[0] == 200
    crew.server.until(lambda: count() > before or None, "the request's last record")
    return any(record["message"] == f"said {word}" for record in crew.server.records)


def test_the_log_level_changes_without_a_restart(server: Crew) -> None:
    assert ctl(server, "log-level").stdout == "info\n"
    assert said(server, "before")
    assert ctl(server, "log-level", "warning").stdout == "warning\n"
    for number in range(6):
        assert not said(server, f"quiet{number}")
    assert ctl(server, "log-level").stdout == "warning\n"
    assert ctl(server, "log-level", "info").returncode == 0
    for number in range(6):
        assert said(server, f"loud{number}")


@pytest.mark.parametrize("arguments", [(), ("-w", "1")], ids=KINDS)
def test_access_records_follow_the_level_too(arguments: tuple[str, ...], begin: Begin) -> None:
    crew = begin("behaviour:app", *arguments, tracebacks=True)
    crew.server.get("/?first")
    crew.server.access("/?first")
    assert ctl(crew, "log-level", "warning").returncode == 0
    crew.server.get("/?quiet")
    crew.server.get("/fail")
    crew.server.record(http_target="/fail", level="warning")  # written in their order: the one before it never will be
    assert ctl(crew, "log-level", "info").returncode == 0
    crew.server.get("/?loud")
    crew.server.access("/?loud")
    assert not [record for record in crew.server.records if record.get("http_target") == "/?quiet"]


def test_a_worker_that_comes_later_has_the_level_too_until_a_reload(begin: Begin) -> None:
    crew = begin("behaviour:app", "-w", "1", tracebacks=True)
    [first] = crew.settle(1)
    assert ctl(crew, "log-level", "warning").returncode == 0
    os.kill(first, signal.SIGKILL)
    crew.settle(1, without=first)
    assert not said(crew, "quiet")
    assert ctl(crew, "drain").returncode == 0
    assert ctl(crew, "reload").returncode == 0
    assert curl(crew.control, "/readyz")[0] == 503  # which is not for a reload to end
    crew.settle(1)
    assert said(crew, "loud")
    assert ctl(crew, "log-level").stdout == "info\n"


def test_a_worker_that_is_starting_gets_the_level_when_it_serves(begin: Begin) -> None:
    crew = begin("startup:slow", "-w", "1", "--log-level", "warning", variables={"STARTUP_SECONDS": "1"})
    [first] = crew.settle(1)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: crew.pids("starting"), "a worker that starts")
    assert ctl(crew, "log-level", "debug").returncode == 0
    crew.settle(1, without=first)
    crew.server.stop()
    crew.server.record(event="stopped", level="debug")  # its own, which its master says louder


def test_an_unknown_level_is_refused_with_the_nearest(server: Crew) -> None:
    ended = ctl(server, "log-level", "debgu")
    assert ended.returncode == 3
    expected = "level: 'debgu': expected one of trace, debug, info, warning, error, critical; did you mean debug?"
    assert ended.stderr == f"appserverctl: {server.control}: {expected}\n"


@pytest.mark.parametrize("level", [["info"], {}, 1])
def test_a_level_that_is_no_word_is_refused(level: Any, server: Crew) -> None:
    status, refused = curl(server.control, "/log-level", "--json", json.dumps({"level": level}))
    assert status == 400
    assert refused["error"].startswith(f"level: {level!r}: expected one of trace,")


# --- connections ------------------------------------------------------------------------------------------------------


def show(crew: Crew) -> dict[str, Any]:
    ended = ctl(crew, "connections", "--json")
    assert ended.returncode == 0
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def test_each_connection_is_shown_with_what_it_does(begin: Begin, tmp_path: Path, kind: str) -> None:
    pair = Issuer().issue(tmp_path / "a.pem", "localhost")
    crew = begin("behaviour:app", "--graceful-timeout", "1", *KINDS[kind], *pair.arguments)
    host, port = crew.server.address
    context = ssl._create_unverified_context()
    with ExitStack() as stack:

        def connect(sent: bytes, *protocols: str) -> None:
            context.set_alpn_protocols(list(protocols))
            sock = stack.enter_context(socket.create_connection((host, port), PATIENCE))
            secure = stack.enter_context(context.wrap_socket(sock))
            secure.sendall(sent)

        head = b"Host: a\r\nContent-Length: 5\r\n\r\n"
        connect(b"GET /wait?seconds=60&token=hunter2 HTTP/1.1\r\nHost: a\r\n\r\n")
        connect(b"POST /upload HTTP/1.1\r\n" + head + b"ab")
        connect(b"POST /upload HTTP/1.1\r\n")
        connect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4\0\0\0\0\0", "h2")

        def find() -> list[dict[str, Any]] | None:
            found: list[dict[str, Any]] = show(crew)["connections"]
            states = sorted(one["state"] for one in found)
            return found if states == ["in application", "opening", "reading body", "reading head"] else None

        found = eventually(find, "four connections")
        assert [one["age"] for one in found] == sorted((one["age"] for one in found), reverse=True)
        by_state = {one["state"]: one for one in found}
        waiting = by_state["in application"]
        assert (waiting["protocol"], waiting["tls"], waiting["in_flight"]) == ("http/1.1", "TLSv1.3", 1)
        assert (waiting["requests"][0]["method"], waiting["requests"][0]["path"]) == ("GET", "/wait")
        assert by_state["opening"]["protocol"] == "h2"
        assert ("pid" in waiting) is (kind == "workers")
        table = ctl(crew, "connections").stdout
        assert "hunter2" not in table + json.dumps(found)
        assert [line for line in table.splitlines() if line.endswith("GET /wait")]


def test_of_many_connections_the_oldest_are_shown_and_the_others_counted(server: Crew) -> None:
    with ExitStack() as stack:
        for _ in range(250):
            stack.enter_context(socket.create_connection(server.server.address, PATIENCE))
        told = eventually(
            lambda: told if len((told := show(server))["connections"]) + told["left_out"] == 250 else None,
            "all of them",
        )
        assert 150 <= len(told["connections"]) <= 200
        assert told["silent"] == []
        ports = {one["peer"].rpartition(":")[2] for one in told["connections"]}
        assert len(ports) == len(told["connections"])
        assert curl(server.control, "/connections?limit=3")[1]["left_out"] == 247
        for limit in ("0", "201", "x", "-1", "²", "1" * 5000):
            status, refused = curl(server.control, "/connections", "-G", "--data-urlencode", f"limit={limit}")
            assert status == 400
            assert refused["error"] == f"limit: {limit!r}: expected a number from 1 to 200"
        assert ctl(server, "connections").stdout.endswith(f"and {told['left_out']} younger ones\n")


def test_a_worker_that_hangs_is_named_and_nobody_waits_for_it(begin: Begin) -> None:
    crew = begin("behaviour:app", "-w", "2")
    pids = crew.settle(2)
    hung = min(pids)
    os.kill(hung, signal.SIGSTOP)
    try:
        ended = ctl(crew, "connections")
        assert (ended.returncode, ended.stdout) == (3, "no connections\n")
        assert ended.stderr == f"appserverctl: not all of it: no answer in time of worker {hung}\n"
        assert crew.report()["state"] == "serving"
    finally:
        os.kill(hung, signal.SIGCONT)
    assert eventually(lambda: show(crew)["silent"] == [], "answers of both")


# --- restart-worker ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["exec", "preload"])
def test_a_worker_leaves_when_its_successor_serves(preload: tuple[str, ...], begin: Begin) -> None:
    crew = begin("behaviour:app", "-w", "2", *preload)
    old = sorted(crew.settle(2))
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(crew.server.connect())) for _ in range(8)]
        for connection in connections:
            connection.request("GET", "/wait?seconds=1")
        ended = ctl(crew, "restart-worker", *map(str, old))
        assert ended.returncode == 0
        assert [connection.getresponse().read() for connection in connections] == [b"waited"] * 8
    new = crew.settle(2)
    told = [line.split() for line in ended.stdout.splitlines()]
    assert [int(words[1]) for words in told] == old
    assert {int(words[4]) for words in told} == new
    assert not new & set(old)
    assert crew.report()["workers_lost"] == 0
    # What becomes of a new one later has nothing to do with this order.
    second = min(new)
    os.kill(second, signal.SIGKILL)
    assert "request_id" not in crew.server.record(event="worker_lost", worker_pid=second)
    crew.settle(2, without=second)


def test_a_worker_whose_successor_does_not_start_goes_on(begin: Begin, tmp_path: Path) -> None:
    good = "async def app(scope, receive, send):\n    raise NotImplementedError\n"
    (tmp_path / "shop.py").write_text(good)
    crew = begin("shop:app", "-w", "1", "--app-dir", tmp_path, tracebacks=True)
    [first] = crew.settle(1)
    (tmp_path / "shop.py").write_text("import nothing_at_all")
    ended = ctl(crew, "restart-worker", str(first))
    assert ended.returncode == 3
    assert f"worker {first} goes on: its successor did not start; it is tried again" in ended.stderr
    assert first in crew.pids()
    assert order(crew, "/restart-worker", pid=first)[0] == 409
    (tmp_path / "shop.py").write_text(good)
    crew.settle(1, without=first)  # as it was said


def test_only_a_worker_can_be_restarted_and_only_a_master_can_reload(server: Crew) -> None:
    workers = server.report().get("workers")
    ended = ctl(server, "restart-worker", str(server.pid))
    assert ended.returncode == 3
    if workers is None:
        assert "a single process has no workers: run it with --workers" in ended.stderr
        ended = ctl(server, "reload")
        assert ended.returncode == 3
        assert "there is no reload: a single process has no workers: run it with --workers, or restart" in ended.stderr
        return
    assert f"pid: {server.pid}: no worker has that process id; there are: " in ended.stderr
    for pid in (None, "7", True, 1.5, [7]):
        status, told = order(server, "/restart-worker", pid=pid)
        assert (status, told["error"]) == (400, f"pid: {pid!r}: expected the process id of a worker")


# --- who may order ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_whom_the_sockets_mode_lets_in_can_ask_and_only_root_and_the_same_user_can_order(
    serve: Starter, tmp_path: Path, kind: str
) -> None:
    # In /tmp itself: pytest's folders are closed to others.
    path = Path(f"/tmp/appserver-{os.getpid()}.sock")
    try:
        with listening(socket.AF_UNIX, str(path)) as control, listening() as web:
            path.chmod(0o666)
            server = serve("behaviour:app", *KINDS[kind], **handed("http:control", web, control))
            assert curl(path, "/status", user=NOBODY)[0] == 200
            status, told = curl(path, "/drain", "--json", "{}", user=NOBODY)
            assert (status, told["error"]) == (
                403,
                f"orders are taken from root and the server's user (0), not from uid {NOBODY}",
            )
            refused = server.record(level="warning", peer_uid=int(NOBODY))
            assert refused["message"].startswith("Refused POST /drain at the control socket: ")
            assert curl(path, "/readyz", user=NOBODY)[0] == 200
            # Nor may they take all of the server's descriptors.
            become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            crowd = [*become, "/usr/bin/python3", "-c", CROWD, str(path)]
            assert subprocess.check_output(crowd, timeout=PATIENCE, text=True) == "100 of 150\n"
            with ExitStack() as stack:
                for _ in range(150):
                    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
                assert curl(path, "/readyz")[0] == 200
            assert curl(path, "/drain", "--json", "{}")[0] == 200
            assert server.record(message="POST /drain at the control socket")["peer_uid"] == 0
    finally:
        path.unlink()


def test_over_tcp_everybody_can_ask_and_nobody_order(serve: Starter) -> None:
    with listening() as control, listening() as web:
        server = serve("behaviour:app", **handed("http:control", web, control))
        host, port = control.getsockname()
        warning = server.record(level="warning")["message"]
        assert warning.startswith(f"The control socket http://{host}:{port} is no UNIX socket: ")

        def ask(method: str, target: str, **fields: str) -> tuple[int, Any]:
            with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE)) as connection:
                connection.request(method, target, "{}" if method == "POST" else None, fields)
                response = connection.getresponse()
                return response.status, json.loads(response.read())

        kind = {"Content-Type": "application/json"}
        assert ask("GET", "/status")[0] == 200
        assert ask("POST", "/drain", **kind)[0] == 403
        # A page of the web whose name leads here, once as itself and once by a form.
        assert ask("GET", "/status", Host=f"evil.example:{port}")[0] == 421
        assert ask("GET", "/readyz", Host=f"evil.example:{port}")[0] == 200


def test_what_a_page_of_the_web_can_send_is_no_order(server: Crew) -> None:
    for words in (("-d", "{}"), ("-X", "POST"), ("-H", "Content-Type: text/plain", "-d", "{}")):
        status, told = curl(server.control, "/drain", *words)
        assert status == 415
        assert "Content-Type: application/json" in told["error"]
    assert curl(server.control, "/drain", "--json", "{}", "-H", "Host: evil.example")[0] == 421
    assert curl(server.control, "/drain", "-X", "OPTIONS")[0] == 405
    assert curl(server.control, "/readyz")[0] == 200


# --- top --------------------------------------------------------------------------------------------------------------


def test_top_shows_a_server_that_goes_away_and_comes_back(serve: Starter, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    words = ("behaviour:app", "-w", "2", "--control", f"unix:{control}")
    server = serve(*words)
    pids = Crew(server, control).settle(2)
    command = [str(SCRIPTS / "appserverctl"), "top", "--control", str(control)]
    with running(tmp_path, command) as terminal:
        for pid in pids:
            screen = terminal.shows(f"{pid}  serving")
        assert screen[0].startswith("behaviour:app  serving  2/2 workers  generation 1  up ")
        for _ in range(20):
            server.get("/")
        terminal.until(lambda screen: any(line.startswith("requests/s") and "█" in line for line in screen), "a bar")
        terminal.press("s")
        terminal.shows("sort by requests")
        terminal.press("r")
        terminal.resize(60, 12)
        screen = terminal.until(lambda screen: len(screen) == 12 and "sort by" in screen[-1], "the smaller screen")
        assert max(map(len, screen)) <= 60
        terminal.resize(100, 30)
        terminal.until(lambda screen: len(screen) == 30 and "sort by" in screen[-1], "the larger screen")
        with closing(server.connect()) as connection:
            connection.request("GET", "/wait?seconds=2")
            server.record(message="begun")
            server.send_signal(signal.SIGTERM)
            terminal.shows("behaviour:app  draining")  # and it is told while it lasts
        server.wait()
        terminal.shows("No answer, asking again: ")
        serve(*words)
        terminal.until(lambda screen: not any("No answer" in line for line in screen), "the server is back")
        terminal.press("q")
        screen = terminal.shows("ended with 0")
        assert "Traceback" not in "\n".join(screen)


def test_top_needs_a_terminal_and_a_server(tmp_path: Path, begin: Begin) -> None:
    crew = begin("behaviour:app")
    ended = ctl(crew, "top")
    assert ended.returncode == 2
    assert ended.stderr.startswith("appserverctl: top: expected a terminal; for programs there is ")
    command = [str(SCRIPTS / "appserverctl"), "top", "--control", str(crew.control)]
    with running(tmp_path, command, TERM="dumb") as terminal:
        screen = "".join(terminal.shows("ended with 2"))
        assert "TERM: 'dumb': expected a terminal whose cursor can be moved" in screen
    with running(tmp_path, [*command[:-1], str(tmp_path / "none")]) as terminal:
        assert "No such file or directory" in "".join(terminal.shows("ended with 3"))


def test_top_draws_on_a_terminal_that_has_no_size(begin: Begin) -> None:
    crew = begin("behaviour:app")
    screen, program = pty.openpty()  # 0x0, as serial consoles are
    with open(screen, "r+b", buffering=0) as screen_file, open(program, "r+b", buffering=0) as program_file:  # noqa: PTH123
        process = subprocess.Popen(
            [SCRIPTS / "appserverctl", "top", "--control", str(crew.control)],
            stdin=program_file,
            stdout=program_file,
            stderr=subprocess.PIPE,
            env=clean_environment(TERM="vt220"),
            start_new_session=True,
        )
        shown = b""
        while b"q quit" not in shown and select.select([screen_file], [], [], PATIENCE)[0]:
            shown += screen_file.read(65536)
        screen_file.write(b"q")
        _, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints) == (0, b"")
    assert b"behaviour:app  serving" in shown


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("status",), ("reload",), ("upgrade",), ("restart-worker", "1"), ("log-level", "info")]
)
def test_a_command_that_waits_ends_at_ctrl_c_by_its_signal_and_says_nothing(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    with listening(socket.AF_UNIX, str(path)) as listener:
        listener.settimeout(PATIENCE)
        command = [str(SCRIPTS / "appserverctl"), *words, "--control", str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(4096)  # it waits for the answer from now on
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == -signal.SIGINT


# --- the page ---------------------------------------------------------------------------------------------------------


@contextmanager
def forwarding(path: Path) -> Iterator[int]:
    """What `ssh -L PORT:PATH` does; the port."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve() -> None:
        while True:
            try:
                client = stack.enter_context(listener.accept()[0])
                server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            except OSError:
                return
            try:
                server.connect(str(path))
            except OSError:
                client.close()
                continue
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(one, other), daemon=True).start()

    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


TEXT: Final = "(document.querySelector('main')?.innerText ?? '')"
WIDE: Final = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def test_the_page_draws_the_figures_of_a_running_server(begin: Begin, tmp_path: Path) -> None:
    crew = begin("behaviour:app", "-w", "2")
    pids = crew.settle(2)
    with forwarding(crew.control) as port, looking(f"http://localhost:{port}/", tmp_path) as page:
        page.until(f"{TEXT}.includes('serving')")
        for pid in pids:
            page.until(f"{TEXT}.includes('{pid}')")
        for _ in range(30):
            crew.server.get("/")
        page.until(
            "[...document.querySelectorAll('figure')][0].querySelector('.line').getAttribute('d')?.includes('L')"
        )
        assert page.evaluate("document.title") == "behaviour:app \u2013 appserver"
        # What is read aloud: each chart and each table has a name, and a cell a heading.
        charts = [name for name in page.names("image") if name]
        assert [name.partition(":")[0] for name in charts][:1] == ["Requests per second"]
        assert all("now " in name and "at most " in name for name in charts)
        assert page.names("table") == ["Workers"]
        assert set(page.names("rowheader")) == {str(pid) for pid in pids}
        # Light and dark, on a desk and on a telephone.
        colours = set()
        for scheme in ("light", "dark"):
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2
        page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=3, mobile=True)
        assert page.evaluate(WIDE) is False
        # It says that the server is drained, that it is gone, and goes on when it is back.
        order(crew, "/drain")
        page.until(f"{TEXT}.includes('drained by the operator')")
        crew.server.stop()
        page.until(f"{TEXT}.includes('no answer, asking again')")
        begin("behaviour:app", "-w", "1")
        page.until(f"!{TEXT}.includes('no answer')")
        # Nothing has been asked of anybody else, nor refused by the page's own policy.
        asked = page.evaluate("performance.getEntriesByType('resource').map((one) => one.name)")
        assert set(asked) == {f"http://localhost:{port}/status"}
        told = [event["params"]["entry"]["text"] for event in page.events if event["method"] == "Log.entryAdded"]
        assert not [text for text in told if "Content Security Policy" in text]
        assert not [event for event in page.events if event["method"] == "Runtime.exceptionThrown"]


def test_a_page_of_the_web_cannot_order_by_way_of_the_browser(begin: Begin, tmp_path: Path) -> None:
    crew = begin("behaviour:app")
    # The server's own port stands for a foreign page's: another origin.
    with forwarding(crew.control) as port, looking(crew.server.url + "/", tmp_path) as page:
        page.until("document.readyState === 'complete'")
        send = f"fetch('http://localhost:{port}/drain', {{method: 'POST', body: '{{}}', mode: MODE, headers: KIND}})"
        for mode, kind in (
            ("no-cors", "{'Content-Type': 'text/plain'}"),
            ("cors", "{'Content-Type': 'application/json'}"),
        ):
            page.evaluate(send.replace("MODE", f"'{mode}'").replace("KIND", kind) + ".then(() => 1, () => 2)")
        page.evaluate(f"fetch('http://localhost:{port}/status').then(() => 1, () => 2)")
        assert curl(crew.control, "/readyz")[0] == 200
        refused = [record["message"] for record in crew.server.records if "Refused POST" in record["message"]]
        assert len(refused) == 1  # the other one never came: its preflight was refused
