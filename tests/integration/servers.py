"""A real appserver process for a test: started, waited for, listened to, and ended by its own id.

Nothing here sleeps: what a test waits for is a datagram on NOTIFY_SOCKET, a record on stderr, or the process's end,
and each of them wakes whoever waits.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Any, Final, TypeVar

import httpx

ROOT: Final = Path(__file__).parents[2]
APPS: Final = ROOT / "tests" / "apps"
PATIENCE: Final = 20.0
"""Seconds that anything may take which takes a fraction of one on a quiet machine."""

START: Final = 60.0
"""Seconds that a program may take which has to be started: imports are most of what a busy machine is slow with."""

SCRIPTS: Final = Path(sys.executable).parent
COMMAND: Final = (sys.executable, "-m", "appserver")
# What a developer's shell or the service manager that runs the tests has set would change what is tested.
_FOREIGN: Final = ("APPSERVER_", "LISTEN_", "WATCHDOG_", "NOTIFY_", "JOURNAL_", "FORWARDED_", "NO_COLOR", "PYTHONWARN")

T = TypeVar("T")


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without what speaks to servers, and with the given variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    # Python takes a module of the same size and second for the one that it has compiled: "one" was served for "two".
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | variables


@dataclass(frozen=True, slots=True)
class Told:
    """One sd_notify(3) message, and when it came."""

    at: float
    fields: Mapping[str, str]


class Notified:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str, changed: threading.Condition) -> None:
        self.address, self._changed = address, changed
        self.messages: list[Told] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._name)
        self._thread = threading.Thread(target=self._read, name="notified")
        self._thread.start()

    @property
    def _name(self) -> str:
        return "\0" + self.address[1:] if self.address.startswith("@") else self.address

    def _read(self) -> None:
        while data := self._socket.recv(4096):
            fields = dict(line.partition("=")[::2] for line in data.decode().split("\n"))
            with self._changed:
                self.messages.append(Told(monotonic(), fields))
                self._changed.notify_all()

    def close(self) -> None:
        """As when the service manager goes away: the socket is closed and its path removed."""
        if self._thread.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"", self._name)
            self._thread.join()
            self._socket.close()
            if not self.address.startswith("@"):
                Path(self.address).unlink()


@dataclass
class Server:
    """One process. `expected` is the exit code that it must end with; `tracebacks` may stand in its log if so said."""

    process: subprocess.Popen[bytes]
    notified: Notified
    changed: threading.Condition
    expected: int = 0
    tracebacks: bool = False
    ended: bool = False
    lines: list[str] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        readers = [self._reap]
        if self.process.stderr is not None:
            readers.append(self._read)
        self._threads = [threading.Thread(target=reader, name=reader.__name__) for reader in readers]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self.changed:
                    self.lines.append(line.decode().rstrip("\n"))
                    self.changed.notify_all()

    def _reap(self) -> None:
        self.process.wait()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    # Waiting

    def until(self, find: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
        """Wait until `find` finds something; looked at again whenever the process told something."""
        found: T | None = None

        def look() -> bool:
            nonlocal found
            found = find()
            return found is not None or self.ended

        with self.changed:
            self.changed.wait_for(look, timeout)
        if found is None and self.ended:
            self.join()  # its last lines
            found = find()
        if found is None:
            why = f"it ended with {self.process.returncode}" if self.ended else f"not in {timeout} s"
            raise AssertionError(f"waited for {what}: {why}\n{self.stderr}")
        return found

    def told(self, name: str, value: str | None = None, after: float = 0.0, timeout: float = PATIENCE) -> Told:
        """The first message to the service manager with this variable, and this value if one is given."""

        def find() -> Told | None:
            for message in self.notified.messages:
                if message.at > after and name in message.fields and value in (None, message.fields[name]):
                    return message
            return None

        return self.until(find, f"{name}={value or '…'}", timeout)

    def status(self, part: str, after: float = 0.0) -> str:
        """The first STATUS= line that contains `part`."""

        def find() -> str | None:
            for message in self.notified.messages:
                text = message.fields.get("STATUS", "")
                if message.at > after and part in text:
                    return text
            return None

        return self.until(find, f"STATUS= with {part!r}")

    def record(self, timeout: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """The first JSON record on stderr that has all these fields."""

        def find() -> dict[str, Any] | None:
            return next((record for record in self.records if fields.items() <= record.items()), None)

        return self.until(find, f"a record with {fields}", timeout)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every JSON record so far."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def access(self, target: str) -> dict[str, Any]:
        """The access record of the first request for `target`."""
        return self.record(http_target=target, outcome="complete")

    @property
    def stderr(self) -> str:
        """All lines so far."""
        return "\n".join(self.lines)

    # Reaching it

    @property
    def listeners(self) -> list[str]:
        """What it listens on: URLs, and `unix:PATH`."""
        listeners: str = self.record(event="ready")["listeners"]
        return listeners.split(", ")

    @property
    def url(self) -> str:
        """The first TCP listener."""
        return next(url for url in self.listeners if url.startswith("http"))

    @property
    def address(self) -> tuple[str, int]:
        """The first TCP listener, for `socket.create_connection`."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own to the first TCP listener."""
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        connection.connect()
        return connection

    def get(self, target: str, **headers: str) -> tuple[int, bytes]:
        """Status and body of one GET on a connection of its own."""
        return get(self.connect(), target, **headers)

    def browser(self) -> httpx.Client:
        """An httpx client of the first TCP listener."""
        # A proxy that the environment names has nothing to do with loopback.
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)

    # Ending it

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code, once it has ended by itself."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.ended, timeout), f"still running\n{self.stderr}"
        self.join()
        return self.process.returncode

    def stop(self, number: int = signal.SIGTERM, timeout: float = PATIENCE) -> int:
        """Send a signal and wait for the end."""
        self.send_signal(number)
        return self.wait(timeout)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)

    def finish(self) -> None:
        """End it if it still runs, and see that it was well."""
        try:
            code = self.wait(0) if self.ended else self.stop()
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.join()
            self.notified.close()
        assert code == self.expected, f"exit code {code}, and not {self.expected}\n{self.stderr}"
        assert self.tracebacks or "Traceback" not in self.stderr, self.stderr


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket; `@` begins an abstract name."""

    def __init__(self, path: str | Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect("\0" + self._path[1:] if self._path.startswith("@") else self._path)


def receive(sock: socket.socket, end: Callable[[bytes], bool] = lambda _: False) -> bytes:
    """All that comes until `end` says that this is it, or until the peer closes."""
    data = b""
    while not end(data) and (more := sock.recv(65536)):
        data += more
    return data


def get(connection: http.client.HTTPConnection, target: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of one GET; the connection is closed. Underscores in the names stand for hyphens."""
    with ExitStack() as stack:
        stack.callback(connection.close)
        connection.request("GET", target, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()


def ask(connection: http.client.HTTPConnection, target: str) -> Any:
    """What an application answers in JSON, with the connection left open."""
    connection.request("GET", target)
    response = connection.getresponse()
    assert response.status == 200
    return json.loads(response.read())


class Starter:
    """Starts servers, and ends them all when the test is over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[Server] = []

    def __call__(
        self,
        app: str,
        *arguments: str | Path,
        bind: bool = True,
        ready: bool = True,
        expected: int = 0,
        tracebacks: bool = False,
        command: Sequence[str] = COMMAND,
        pass_fds: Sequence[int] = (),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.PIPE,
        notify: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Server:
        """Start one.

        Args:
            app: The application, in tests/apps.
            arguments: Of `appserver`.
            bind: On a free port of 127.0.0.1; False where the arguments or the environment say on what.
            ready: Return when it has said READY=1.
            expected: The exit code that it must end with.
            tracebacks: They may stand in its log.
            command: What to run instead of `python -m appserver`, up to the arguments.
            pass_fds: Descriptors that it inherits.
            stdin: Its descriptor 0.
            stderr: Its descriptor 2; read by `Server` if it is a pipe.
            notify: The address of NOTIFY_SOCKET; a path in the test's folder by default.
            variables: More environment.
        """
        changed = threading.Condition()
        notified = Notified(notify or str(self._folder / f"notify{len(self._servers)}"), changed)
        words = [*command, app, "--app-dir", str(APPS), *map(str, arguments), *(("--port", "0") if bind else ())]
        try:
            process = subprocess.Popen(
                words,
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=pass_fds,
                env=clean_environment(NOTIFY_SOCKET=notified.address, **(variables or {})),
            )
        except BaseException:
            notified.close()
            raise
        server = Server(process, notified, changed, expected, tracebacks)
        self._servers.append(server)
        if ready:
            server.told("READY", "1", timeout=START)
        return server

    def finish(self) -> None:
        """End all, the last one first; each is ended whatever becomes of the others."""
        with ExitStack() as stack:
            for server in self._servers:
                stack.callback(server.finish)


def run(
    *arguments: str | Path, program: str = "appserver", timeout: float = START, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of the package that ends by itself."""
    return subprocess.run(
        [SCRIPTS / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def listening(
    family: socket.AddressFamily = socket.AF_INET, address: Any = ("127.0.0.1", 0)
) -> Iterator[socket.socket]:
    """A listening socket, as a service manager makes one."""
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(64)
        yield listener
