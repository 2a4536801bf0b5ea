"""Certificates from a real authority: issued over our plain listener, renewed while requests run, served in place.

What is run is what docs/tls.md tells an operator to run: certbot in webroot mode, with the hook of packaging/certbot.
"""

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Final, Self

import httpx
import pytest

from appserver.asgi.edge import CHALLENGES
from tests.integration.authority import Authority
from tests.integration.servers import PATIENCE, ROOT, Starter, listening

HOOK: Final = ROOT / "packaging" / "certbot" / "appserver"
LINEAGES: Final = {"shop.example": ("shop.example",), "blog.example": ("blog.example", "www.blog.example")}
NAMES: Final = tuple(name for names in LINEAGES.values() for name in names)
CLIENTS: Final = 4


class Client(http.client.HTTPSConnection):
    """A client that finds every name at one address, and trusts one authority alone."""

    def __init__(self, name: str, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(name, address[1], timeout=PATIENCE, context=context)
        self._address, self._context = address, context

    def connect(self) -> None:
        self.sock = self._context.wrap_socket(
            socket.create_connection(self._address, PATIENCE), server_hostname=self.host
        )

    @property
    def serial(self) -> str:
        """The serial number of the certificate that this connection was opened with."""
        certificate = self.sock.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])

    def ask(self) -> bytes:
        self.request("GET", "/")
        response = self.getresponse()
        assert response.status == 200
        return response.read()


class Load:
    """Clients that ask without a pause worth naming: half of them with a new connection each time."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self._address, self._context = address, context
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        self.answered = 0
        self.lost: Counter[str] = Counter()
        self.serials: defaultdict[str, set[str]] = defaultdict(set)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, number: int) -> None:
        kept: Client | None = None
        turn = number
        while not self._stop.wait(0.01):
            name = NAMES[turn % len(NAMES)]
            turn += 1
            client = kept or Client(name, self._address, self._context)
            try:
                assert client.ask() == b"hello"
                serial = client.serial
            except (OSError, http.client.HTTPException, AssertionError) as problem:
                client.close()
                kept = None
                with self._lock:
                    self.lost[repr(problem)] += 1
                continue
            if number % 2:
                kept = client
            else:
                client.close()
            with self._lock:
                self.answered += 1
                self.serials[client.host].add(serial)
        if kept is not None:
            kept.close()


@pytest.fixture
def webroot(tmp_path: Path) -> Path:
    folder = tmp_path / "webroot"
    folder.mkdir()
    return folder


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """The folder that the operator makes for the hook, with a group that may read it."""
    folder = tmp_path / "tls"
    folder.mkdir(mode=0o750)
    return folder


@pytest.fixture
def plain() -> Iterator[socket.socket]:
    with listening() as sock:
        yield sock


@pytest.fixture
def authority(tmp_path: Path, plain: socket.socket) -> Iterator[Authority]:
    folder = tmp_path / "authority"
    folder.mkdir()
    with Authority(folder, plain.getsockname()[1]) as authority:
        hooks = authority.certbot_folder / "renewal-hooks" / "deploy"
        hooks.mkdir(parents=True)
        shutil.copy(HOOK, hooks)
        yield authority


def read_serial(address: tuple[str, int], name: str, context: ssl.SSLContext) -> str:
    """What a new connection is shown, after its certificate has been verified for the name."""
    with closing(Client(name, address, context)) as client:
        client.connect()
        return client.serial


def issued_serial(folder: Path) -> str:
    """The serial number of the certificate in certbot's folder."""
    shown = subprocess.run(
        ["openssl", "x509", "-in", folder / "cert.pem", "-noout", "-serial"], check=True, capture_output=True, text=True
    ).stdout
    return shown.strip().removeprefix("serial=")


def test_certificates_are_issued_and_renewed_while_requests_run(
    serve: Starter, plain: socket.socket, authority: Authority, webroot: Path, certificates: Path, tmp_path: Path
) -> None:
    variables = {"APPSERVER_TLS_DIR": str(certificates)}
    fd = plain.fileno()

    # Before there is a certificate: plain HTTP, and the folder of the challenges.
    first = serve("behaviour:app", "-b", f"fd://{fd}", "--acme-dir", webroot, bind=False, pass_fds=[fd])
    for names in LINEAGES.values():
        authority.issue(names, webroot, "--deploy-hook", HOOK, **variables)
    assert first.stop() == 0

    # With it: everything but challenges is sent to HTTPS.
    server = serve(
        *("behaviour:app", "-b", "127.0.0.1:0", "--insecure-bind", f"fd://{fd}", "--tls-dir", certificates),
        *("--acme-dir", webroot, "--https-redirect", "--timeout-keep-alive", "60"),
        bind=False,
        pass_fds=[fd],
    )
    url = httpx.URL(next(url for url in server.listeners if url.startswith("https:")))
    assert url.port is not None
    address = url.host, url.port
    trust = tmp_path / "root.pem"
    trust.write_text(authority.root())
    context = ssl.create_default_context(cafile=trust)
    live = authority.certbot_folder / "live"
    before = {name: issued_serial(live / lineage) for lineage, names in LINEAGES.items() for name in names}
    assert {name: read_serial(address, name, context) for name in NAMES} == before
    assert len(set(before.values())) == len(LINEAGES)

    with Load(address, context) as load, closing(Client(NAMES[0], address, context)) as kept:
        assert kept.ask() == b"hello"
        renewal = authority.certbot("renew", "--force-renewal", "--no-random-sleep-on-renew", **variables)
        assert renewal.returncode == 0, renewal.stderr
        after = {name: issued_serial(live / lineage) for lineage, names in LINEAGES.items() for name in names}
        assert not set(after.values()) & set(before.values())
        end = monotonic() + PATIENCE
        while {name: read_serial(address, name, context) for name in NAMES} != after:
            assert monotonic() < end, "the new certificates are not served"
            sleep(0.1)
        # The connection from before goes on, with what it was opened with.
        assert kept.ask() == b"hello"
        assert kept.serial == before[NAMES[0]]
        load_until(load, after)
    assert not load.lost
    assert load.answered > 100
    assert load.serials == {name: {before[name], after[name]} for name in NAMES}

    asked = [record for record in server.records if str(record.get("http_target", "")).startswith(CHALLENGES)]
    assert len(asked) >= len(NAMES)  # pebble asks more than once, as if from several places
    assert {record["http_status"] for record in asked} == {200}
    assert not [record for record in server.records if record["level"] in ("warning", "error", "critical")]


def load_until(load: Load, serials: dict[str, str]) -> None:
    """Wait until new connections of the load have been shown these."""
    end = monotonic() + PATIENCE
    while any(serial not in load.serials[name] for name, serial in serials.items()):
        assert monotonic() < end, "the load does not get the new certificates"
        sleep(0.05)


def test_without_the_challenge_nothing_is_issued(
    serve: Starter, plain: socket.socket, authority: Authority, webroot: Path, tmp_path: Path
) -> None:
    fd = plain.fileno()
    server = serve("behaviour:app", "-b", f"fd://{fd}", "--acme-dir", webroot, bind=False, pass_fds=[fd])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    refused = authority.certbot(
        *("certonly", "--webroot", "--webroot-path", elsewhere, "--domain", "shop.example"),
        *("--agree-tos", "--register-unsafely-without-email"),
    )
    assert refused.returncode == 1
    assert "404" in refused.stdout + refused.stderr
    assert server.record(http_status=404)["http_target"].startswith(CHALLENGES)


# --- the hook ---------------------------------------------------------------------------------------------------------


def deploy(lineage: Path | None, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the hook as certbot does."""
    variables = {} if lineage is None else {"RENEWED_LINEAGE": str(lineage)}
    return subprocess.run(
        [HOOK],
        env={"PATH": os.environ["PATH"], "APPSERVER_TLS_DIR": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def lineage(tmp_path: Path) -> Path:
    folder = tmp_path / "live" / "shop.example"
    folder.mkdir(parents=True)
    for name in ("fullchain.pem", "privkey.pem"):
        (folder / name).write_text(f"first {name}")
        (folder / name).chmod(0o600)
    return folder


def test_the_hook_replaces_both_files_in_one_step_and_leaves_nothing_behind(lineage: Path, certificates: Path) -> None:
    assert deploy(lineage, certificates).returncode == 0
    first = (certificates / "shop.example").resolve()
    for name in ("fullchain.pem", "privkey.pem"):
        (lineage / name).write_text(f"second {name}")
    assert deploy(lineage, certificates).returncode == 0
    served = certificates / "shop.example"
    assert served.is_symlink()
    assert served.resolve() != first
    assert {path.name: path.read_text() for path in served.iterdir()} == {
        "fullchain.pem": "second fullchain.pem",
        "privkey.pem": "second privkey.pem",
    }
    assert sorted(path.name for path in certificates.iterdir()) == sorted(("shop.example", served.resolve().name))


def test_the_hook_lets_the_group_of_the_folder_read_and_nobody_else(lineage: Path, certificates: Path) -> None:
    if os.geteuid() == 0:
        os.chown(certificates, -1, 33)
    assert deploy(lineage, certificates).returncode == 0
    served = (certificates / "shop.example").resolve()
    group = certificates.stat().st_gid
    for path, mode in ((served, 0o750), (served / "fullchain.pem", 0o640), (served / "privkey.pem", 0o640)):
        assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (group, mode)


def test_a_hook_that_cannot_read_the_new_certificate_keeps_the_old_one(lineage: Path, certificates: Path) -> None:
    assert deploy(lineage, certificates).returncode == 0
    before = sorted(certificates.iterdir())
    (lineage / "privkey.pem").unlink()
    refused = deploy(lineage, certificates)
    assert refused.returncode != 0
    assert "privkey.pem" in refused.stderr
    assert sorted(certificates.iterdir()) == before
    assert (certificates / "shop.example" / "privkey.pem").read_text() == "first privkey.pem"


def test_the_hook_says_what_is_missing(lineage: Path, certificates: Path, tmp_path: Path) -> None:
    assert "RENEWED_LINEAGE" in deploy(None, certificates).stderr
    refused = deploy(lineage, tmp_path / "missing")
    assert (refused.returncode, "install -d" in refused.stderr) == (2, True)
    (certificates / "shop.example").mkdir()
    refused = deploy(lineage, certificates)
    assert (refused.returncode, "not made by this hook" in refused.stderr) == (2, True)


def test_the_hook_touches_no_link_that_it_has_not_made(lineage: Path, certificates: Path) -> None:
    link = certificates / "shop.example"
    link.symlink_to(lineage)
    refused = deploy(lineage, certificates)
    assert (refused.returncode, "not made by this hook" in refused.stderr) == (2, True)
    assert link.readlink() == lineage
    assert list(certificates.iterdir()) == [link]
