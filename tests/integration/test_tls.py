"""TLS of a real process, with OpenSSL's own client and Python's."""

import http.client
import json
import socket
import ssl
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Self

import pytest

from tests.apps.behaviour import BLOCK
from tests.certificates import Issuer, Pair
from tests.integration.servers import COMMAND, PATIENCE, Server, Starter, clean_environment, listening, receive, run
from tests.integration.test_sockets import handed


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def pair(issuer: Issuer, tmp_path: Path) -> Pair:
    return issuer.issue(tmp_path / "a.pem", "a.example", "127.0.0.1")


def call(
    address: Any, context: ssl.SSLContext, name: str = "a.example", session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """A connection whose handshake is done."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(address)
        return context.wrap_socket(sock, server_hostname=name, session=session)
    except BaseException:
        sock.close()
        raise


def ask(connection: ssl.SSLSocket, target: str = "/") -> Any:
    """What the application answers to one more request, in JSON if it is that."""
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
    response = http.client.HTTPResponse(connection)
    response.begin()
    body = response.read()
    assert response.status == 200
    return json.loads(body) if body.startswith(b"{") else body


def serial(connection: ssl.SSLSocket) -> int:
    """Of the certificate that the server has shown."""
    told: Any = connection.getpeercert()
    return int(told["serialNumber"], 16)


def shown(server: Server, context: ssl.SSLContext, name: str = "a.example") -> set[str]:
    """The names in the certificate that the server shows for a name."""
    with call(server.address, context, name) as connection:
        told: Any = connection.getpeercert()
        return {value for _, value in told["subjectAltName"]}


def s_client(server: Server, *words: str) -> str:
    """What openssl s_client says of a handshake."""
    host, port = server.address
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        env=clean_environment(),
    )
    return (done.stdout + done.stderr).decode(errors="replace")  # what comes over HTTP/2 is no text


def failures(server: Server) -> list[str]:
    """Why handshakes have failed so far."""
    messages = [record["message"] for record in server.records if record.get("event") == "handshake_failed"]
    return [message.removeprefix("A TLS handshake failed: ") for message in messages]


# --- what is spoken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_requests_over_tls_are_answered_and_the_scope_tells_of_it(
    loop: str, serve: Starter, issuer: Issuer, pair: Pair
) -> None:
    server = serve("behaviour:app", *pair.arguments, "--loop", loop)
    assert server.url.startswith("https://127.0.0.1:")
    with call(server.address, issuer.client()) as connection:
        assert ask(connection) == b"hello"
        scope = ask(connection, "/scope")
        assert scope["scheme"] == "https"
        told = scope["extensions"]["tls"]
        assert ssl.PEM_cert_to_DER_cert(told["server_cert"].strip()) == connection.getpeercert(binary_form=True)
        assert told["tls_version"] == 0x0304
        assert told["cipher_suite"] in (0x1301, 0x1302, 0x1303)
        assert told["client_cert_chain"] == []
    assert server.access("/scope")["client_addr"] == "127.0.0.1"


def test_what_openssl_says_of_the_defaults(serve: Starter, pair: Pair) -> None:
    server = serve("behaviour:app", *pair.arguments)
    assert "TLSv1.3, Cipher is TLS_" in s_client(server, "-tls1_3")
    told = s_client(server, "-tls1_2")
    assert "Cipher is ECDHE-ECDSA-" in told
    assert "Compression: NONE" in told
    assert "TLS session ticket:" in told
    assert "ALPN protocol: h2" in s_client(server, "-alpn", "h2,http/1.1")
    assert "ALPN protocol: http/1.1" in s_client(server, "-alpn", "http/1.1")
    for words, alert in (
        (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "alert protocol version"),
        (("-tls1", "-cipher", "ALL:@SECLEVEL=0"), "alert protocol version"),
        (("-tls1_2", "-cipher", "AES128-SHA"), "alert handshake failure"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"), "alert handshake failure"),
    ):
        told = s_client(server, *words)
        assert "Cipher is (NONE)" in told
        assert alert in told
    causes = server.until(lambda: found if len(found := failures(server)) == 4 else None, "four records")
    assert causes == ["unsupported protocol"] * 2 + ["no shared cipher"] * 2


def test_sessions_are_resumed_by_tickets(serve: Starter, pair: Pair, tmp_path: Path) -> None:
    server = serve("behaviour:app", *pair.arguments)
    kept = str(tmp_path / "session")
    assert "New, TLSv1.2" in s_client(server, "-tls1_2", "-sess_out", kept)
    assert "Reused, TLSv1.2" in s_client(server, "-tls1_2", "-sess_in", kept)


def test_sessions_of_tls_1_3_are_resumed_by_tickets(serve: Starter, issuer: Issuer, pair: Pair) -> None:
    server, client = serve("behaviour:app", *pair.arguments), issuer.client()
    with call(server.address, client) as connection:
        ask(connection)  # the tickets come before the answer (RFC 8446 section 4.6.1)
        assert (connection.version(), connection.session_reused) == ("TLSv1.3", False)
        kept = connection.session
    with call(server.address, client, session=kept) as connection:
        assert connection.session_reused
        ask(connection)


def test_http2_is_not_offered_where_it_is_off(serve: Starter, pair: Pair) -> None:
    server = serve("behaviour:app", *pair.arguments, "--no-http2")
    assert "ALPN protocol: http/1.1" in s_client(server, "-alpn", "h2,http/1.1")


def test_the_least_version_and_the_suites_can_be_set(serve: Starter, pair: Pair) -> None:
    server = serve("behaviour:app", *pair.arguments, "--tls-min-version", "1.3")
    assert "Cipher is (NONE)" in s_client(server, "-tls1_2")
    server = serve("behaviour:app", *pair.arguments, "--ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384")
    assert "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384" in s_client(server, "-tls1_2")


# --- which listeners --------------------------------------------------------------------------------------------------


def test_a_unix_socket_speaks_tls_too(serve: Starter, issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    serve("behaviour:app", *pair.arguments, "--uds", path, bind=False)
    with call(path, issuer.client()) as connection:
        assert ask(connection, "/scope")["scheme"] == "https"


def test_plain_listeners_stand_beside_those_with_tls(
    serve: Starter, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    control, plain = tmp_path / "control.sock", tmp_path / "plain.sock"
    server = serve(
        "behaviour:app",
        *pair.arguments,
        *("-b", "127.0.0.1:0", "--insecure-bind", "127.0.0.1:0", "-b", f"unix:{plain}?tls=off"),
        *("--control", f"unix:{control}"),
        bind=False,
    )
    schemes = sorted(url.partition(":")[0] for url in server.listeners)
    assert schemes == ["http", "https", "unix", "unix"]
    secure = next(url for url in server.listeners if url.startswith("https"))
    insecure = next(url for url in server.listeners if url.startswith("http:"))
    with call(("127.0.0.1", int(secure.rpartition(":")[2])), issuer.client()) as connection:
        assert ask(connection, "/scope")["scheme"] == "https"
    for address in (("127.0.0.1", int(insecure.rpartition(":")[2])), str(plain)):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(address)
            sock.sendall(b"GET /scope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = receive(sock)
            assert b'"scheme": "http"' in answer
            assert b'"tls"' not in answer
    told = run("status", "--json", "--control", control, program="appserverctl")
    report = json.loads(told.stdout)
    assert report["certificates"][0].startswith("a.example")
    assert report["handshakes_failed"] == 0


def test_inherited_sockets_speak_what_their_names_say(serve: Starter, issuer: Issuer, pair: Pair) -> None:
    with listening() as plain, listening() as secure:
        server = serve("behaviour:app", *pair.arguments, **handed("http:https", plain, secure))
        assert server.record(event="ready")
        with call(secure.getsockname(), issuer.client()) as connection:
            assert ask(connection) == b"hello"
        with socket.create_connection(plain.getsockname(), timeout=PATIENCE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert b"hello" in receive(sock)


def test_a_socket_named_https_needs_a_certificate(serve: Starter) -> None:
    with listening() as secure:
        server = serve("behaviour:app", ready=False, expected=3, **handed("https", secure))
        assert server.wait() == 3
        assert "https: TLS is to be spoken here" in server.record(event="listen_failed")["message"]


def test_a_connected_socket_is_one_connection_with_tls(serve: Starter, issuer: Issuer, pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        server = serve("behaviour:app", *pair.arguments, "--fd", "0", bind=False, stdin=theirs.fileno())
    ours.settimeout(PATIENCE)
    with issuer.client().wrap_socket(ours, server_hostname="a.example") as connection:
        assert ask(connection) == b"hello"
    assert server.wait() == 0


def test_a_connected_socket_whose_handshake_fails_ends_the_process(serve: Starter, pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        server = serve("behaviour:app", *pair.arguments, "--fd", "0", bind=False, stdin=theirs.fileno())
    with ours:
        ours.sendall(b"\x16\x03\x01\x00\x05hello")
        assert server.wait() == 0
    server.record(event="handshake_failed")


# --- which certificate ------------------------------------------------------------------------------------------------


def test_the_name_chooses_among_certificates_of_a_folder(
    serve: Starter, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    live = tmp_path / "live"
    for name, names in (("b.example", ["b.example"]), ("wild", ["*.c.example", "c.example"])):
        (live / name).mkdir(parents=True)
        issuer.issue(live / name / "fullchain.pem", *names, key=live / name / "privkey.pem")
    server = serve("behaviour:app", *pair.arguments, "--tls-dir", live)
    client = issuer.client()
    assert shown(server, client, "b.example") == {"b.example"}
    assert shown(server, client, "www.c.example") == {"*.c.example", "c.example"}
    assert shown(server, client, "a.example") == {"a.example", "127.0.0.1"}
    client.check_hostname = False
    assert shown(server, client, "unknown.example") == {"a.example", "127.0.0.1"}
    assert "subject=" in s_client(server, "-noservername")
    assert "CN = a.example" not in s_client(server, "-servername", "b.example")


def test_the_key_may_be_a_credential_and_encrypted(serve: Starter, issuer: Issuer, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    pair = issuer.issue(tmp_path / "a.pem", "a.example", key=credentials / "web.key", password="secret")
    (credentials / "web.password").write_text("secret\n")
    server = serve(
        "behaviour:app",
        *("--tls-cert", pair.certificate, "--tls-key", "credential:web.key"),
        *("--tls-key-password", "credential:web.password"),
        variables={"CREDENTIALS_DIRECTORY": str(credentials)},
    )
    assert shown(server, issuer.client()) == {"a.example"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--tls-cert", "none.pem"], 3, "{0}/none.pem: the certificate cannot be read: No such file or directory"),
        (["--tls-cert", "a.pem"], 3, "{0}/a.pem: expected a private key in PEM form"),
        (["--tls-cert", "a.pem", "--tls-key", "c.key"], 3, "{0}/c.key: is not the key of {0}/a.pem"),
        (["--tls-cert", "b.pem", "--tls-key", "b.key"], 3, "{0}/b.key: the key is encrypted"),
        (
            ["--tls-cert", "b.pem", "--tls-key", "b.key", "--tls-key-password", "hunter2"],
            3,
            "{0}/b.key: the password (--tls-key-password) does not open the key",
        ),
        (
            ["--tls-cert", "b.pem", "--tls-key", "b.key", "--tls-key-password", "/hunter2"],
            3,
            "the file of --tls-key-password cannot be read: No such file or directory",
        ),
        (
            ["--tls-cert", "loop.pem"],
            3,
            "{0}/loop.pem: the certificate cannot be read: Too many levels of symbolic links",
        ),
        (["--tls-cert", "credential:web"], 3, "credential:web: $CREDENTIALS_DIRECTORY is not set"),
        (["--tls-dir", "empty"], 3, "{0}/empty: no certificate there; expected fullchain.pem + privkey.pem"),
        (["--tls-key", "a.key"], 2, "--tls-key: '{0}/a.key': expected a --tls-cert for each --tls-key"),
        (["--tls-ca", "a.pem"], 2, "--tls-ca: '{0}/a.pem': expected a certificate of the server's own (--tls-cert)"),
        (
            ["--tls-client-cert", "required", "--tls-ca", "a.pem"],
            2,
            "--tls-ca: '{0}/a.pem': expected a certificate of the server's own (--tls-cert)",
        ),
        (["--tls-client-cert", "required"], 2, "--tls-client-cert: 'required': expected --tls-ca"),
        (["--tls-cert", "a.pem", "--tls-key", "a.key", "--ciphers", "ROT13"], 2, "--tls-ciphers: 'ROT13'"),
    ],
)
def test_what_cannot_be_served_with_is_named_at_the_start_and_by_check(
    words: list[str],
    code: int,
    message: str,
    issuer: Issuer,
    pair: Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuer.issue(tmp_path / "b.pem", "b.example", password="secret")
    issuer.issue(tmp_path / "c.pem", "c.example")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop.pem").symlink_to("loop.pem")
    message = message.format(tmp_path)
    monkeypatch.chdir(tmp_path)
    served = run(*words, "--port", "0", "--log-format", "json")
    assert served.returncode == code
    record = json.loads(served.stderr.splitlines()[-1])
    assert record["message"].startswith(message)
    assert record.get("event") == ("certificate_failed" if code == 3 else None)
    checked = run("check", *words, "--port", "0", program="appserverctl")
    assert checked.returncode == code
    assert message in checked.stdout + checked.stderr
    assert "hunter2" not in served.stderr + checked.stdout + checked.stderr


def test_settings_without_effect_are_told_at_the_start(serve: Starter, tmp_path: Path) -> None:
    none = tmp_path / "none"
    server = serve("behaviour:app", "--hsts", "1d", "--https-redirect", "--acme-dir", none)
    server.record(level="warning", message="--hsts has no effect: no listener speaks TLS")
    server.record(
        level="warning", message=f"--acme-dir: {none} is no folder; until it is, challenges are answered with 404"
    )
    [redirect] = [record for record in server.records if "--https-redirect: no listener" in record["message"]]
    assert redirect["level"] == "warning"


# --- clients' certificates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("demand", ["optional", "required"])
def test_clients_with_a_certificate_are_told_to_the_application(
    demand: str, serve: Starter, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    root = issuer.write_root(tmp_path / "root.pem")
    server = serve("behaviour:app", *pair.arguments, "--tls-ca", root, "--tls-client-cert", demand)
    mine = issuer.issue(tmp_path / "client.pem", "client.example", common_name="Client")
    with call(server.address, issuer.client(mine)) as connection:
        told = ask(connection, "/scope")["extensions"]["tls"]
    assert told["client_cert_name"] == "CN=Client"
    assert told["client_cert_chain"][0] in mine.certificate.read_text()
    for foreign in (Issuer().issue(tmp_path / "foreign.pem", "client.example"), None):
        context = issuer.client(foreign)
        if foreign is None and demand == "optional":
            with call(server.address, context) as connection:
                assert ask(connection, "/scope")["extensions"]["tls"]["client_cert_name"] is None
            continue
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):  # noqa: SIM117 - read on
            with call(server.address, context) as connection:  # in TLS 1.3 a client hears of it when it reads
                ask(connection)
    server.record(message="A TLS handshake failed: the client's certificate: unable to get local issuer certificate")
    if demand == "required":
        server.record(message="A TLS handshake failed: peer did not return a certificate")


# --- renewal ----------------------------------------------------------------------------------------------------------


class Load:
    """Clients that ask without a pause: some on one connection each, some on a new one for every request."""

    def __init__(self, address: Any, context: ssl.SSLContext) -> None:
        self._address, self._context = address, context
        self._stop = threading.Event()
        self.answered = Counter[int]()
        self.lost: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, keep: bool) -> None:
        try:
            while not self._stop.is_set():
                with call(self._address, self._context) as connection:
                    while not self._stop.is_set():
                        assert ask(connection) == b"hello"
                        self.answered[serial(connection)] += 1
                        if not keep:
                            break
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            self.lost.append(repr(error))

    def wait(self, number: int) -> None:
        """Until a certificate has been shown."""
        end = monotonic() + PATIENCE
        while not self.answered[number] and monotonic() < end and not self.lost:
            self._stop.wait(0.01)


def test_a_renewed_certificate_is_served_without_a_lost_request(serve: Starter, issuer: Issuer, tmp_path: Path) -> None:
    """As certbot does it: links to a new version, one after the other."""

    def renew(version: int) -> int:
        fresh = issuer.issue(tmp_path / f"fullchain{version}.pem", "a.example", key=tmp_path / f"privkey{version}.pem")
        for name in ("privkey", "fullchain"):
            (tmp_path / "new").symlink_to(tmp_path / f"{name}{version}.pem")
            (tmp_path / "new").rename(tmp_path / f"{name}.pem")
        return read_serial(fresh)

    first = renew(1)
    server = serve("behaviour:app", "--tls-dir", tmp_path)
    with Load(server.address, issuer.client()) as load, call(server.address, issuer.client()) as old:
        load.wait(first)
        second = renew(2)
        server.record(event="certificate_loaded")
        load.wait(second)
        assert ask(old) == b"hello"
        assert serial(old) == first
    assert load.lost == []
    assert load.answered[first]
    assert load.answered[second]
    assert not any(record.get("event") == "certificate_failed" for record in server.records)


def read_serial(pair: Pair) -> int:
    """The serial number in a certificate's file."""
    words = ["openssl", "x509", "-in", str(pair.certificate), "-noout", "-serial"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return int(done.stdout.partition("=")[2], 16)


def test_a_bad_new_certificate_leaves_the_old_one(serve: Starter, issuer: Issuer, pair: Pair) -> None:
    server = serve("behaviour:app", *pair.arguments)
    first = read_serial(pair)
    pair.key.write_text("no key")
    assert f"{pair.key}: expected a private key" in server.record(event="certificate_failed")["message"]
    server.status("cannot be served with")
    with call(server.address, issuer.client()) as connection:
        assert serial(connection) == first
    second = read_serial(issuer.issue(pair.certificate, "a.example"))
    server.record(event="certificate_loaded")
    with call(server.address, issuer.client()) as connection:
        assert serial(connection) == second
    assert [record["event"] for record in server.records if "certificate" in record.get("event", "")] == [
        "certificate_failed",
        "certificate_loaded",
    ]


def test_an_application_that_goes_to_another_folder_does_not_break_the_renewal(
    serve: Starter, issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away.py").write_text("import os\nfrom behaviour import app\nos.chdir('/')\n")
    webroot = tmp_path / "webroot" / ".well-known" / "acme-challenge"
    webroot.mkdir(parents=True)
    (webroot / "token").write_text("token.thumbprint")
    issuer.issue(tmp_path / "a.pem", "a.example")
    monkeypatch.chdir(tmp_path)
    server = serve(
        *("away:app", "--tls-cert", "a.pem", "--tls-key", "a.key", "--acme-dir", "webroot"),
        variables={"PYTHONPATH": str(tmp_path)},
    )
    second = read_serial(issuer.issue(tmp_path / "a.pem", "a.example"))
    server.record(event="certificate_loaded")
    with call(server.address, issuer.client()) as connection:
        assert serial(connection) == second
        assert ask(connection, "/.well-known/acme-challenge/token") == b"token.thumbprint"


def test_a_certificate_about_to_expire_is_told(serve: Starter, issuer: Issuer, tmp_path: Path) -> None:
    pair = issuer.issue(tmp_path / "a.pem", "a.example", days=13.5)
    server = serve("behaviour:app", *pair.arguments)
    record = server.record(event="certificate_expires", level="warning")
    assert record["message"].startswith("The certificate of a.example expires in 13 days")
    server.status("certificate a.example good until ")


# --- the end of a connection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_slow_client_gets_all_of_the_last_answer(
    loop: str, serve: Starter, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    """The loops' own limit for closing counts what is still to be written, too: nothing may be cut by it."""
    path, size, stalls = str(tmp_path / "web.sock"), 4 * BLOCK, True
    # A UNIX socket, because the kernel holds no more than 208 KiB of it: the rest waits in the server.
    serve("behaviour:app", *pair.arguments, "--loop", loop, "--uds", path, bind=False)
    with call(path, issuer.client()) as connection:
        connection.sendall(b"GET /download?blocks=4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = 0
        while data := connection.recv(1 << 16):  # an end without close_notify would raise
            received += len(data)
            if stalls and received > size - 350_000:
                stalls = False
                threading.Event().wait(3)
    assert received > size


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_that_says_no_farewell_does_not_hold_up_a_stop(
    loop: str, serve: Starter, issuer: Issuer, pair: Pair
) -> None:
    """Closing, the loops wait for the peer's close_notify, and a client that sleeps never says it."""
    server = serve("behaviour:app", *pair.arguments, "--loop", loop, "--linger", "0.2")
    with call(server.address, issuer.client()) as connection:
        assert ask(connection) == b"hello"
        begun = monotonic()
        assert server.stop() == 0
        assert monotonic() - begun < 15  # and not the graceful timeout


# --- clients that do not come to terms --------------------------------------------------------------------------------


def test_plain_http_on_the_port_is_answered_with_400(serve: Starter, pair: Pair) -> None:
    server = serve("behaviour:app", *pair.arguments)
    with closing(http.client.HTTPConnection(*server.address, timeout=PATIENCE)) as connection:
        connection.request("POST", "/", body=b"x" * 100_000)
        response = connection.getresponse()
        assert response.status == 400
        assert b"speaks TLS" in response.read()
    assert server.record(event="refused")["http_status"] == 400


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handshake_that_stalls_disturbs_nobody(loop: str, serve: Starter, issuer: Issuer, pair: Pair) -> None:
    server = serve("behaviour:app", *pair.arguments, "--timeout-tls", "600", "--loop", loop)
    with ExitStack() as stack:
        for stalled in stall(server):
            stack.enter_context(stalled)
        with call(server.address, issuer.client()) as connection:
            assert ask(connection) == b"hello"
        assert failures(server) == []


def stall(server: Server) -> list[socket.socket]:
    """Clients that have begun a handshake, some of them with nothing, and say no more."""
    stalled = [socket.create_connection(server.address, timeout=PATIENCE) for _ in range(20)]
    for number, sock in enumerate(stalled):
        sock.sendall(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
    return stalled


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handshake_that_stalls_is_ended(loop: str, serve: Starter, pair: Pair) -> None:
    server = serve("behaviour:app", *pair.arguments, "--timeout-tls", "1", "--loop", loop)
    begun = monotonic()
    for sock in stall(server):
        with closing(sock), suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    assert 1 <= monotonic() - begun < 10  # and not the default
    causes = server.until(lambda: found if len(found := failures(server)) == 20 else None, "twenty records")
    assert causes == ["it took too long"] * 20


HELLO_HALF = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""How a TLS handshake begins; the server waits for more."""


@pytest.mark.parametrize("idle", [0, 30])
def test_half_handshakes_that_take_all_descriptors_keep_nobody_out(
    idle: int, serve: Starter, issuer: Issuer, pair: Pair
) -> None:
    """With few connections the bound sees to it; with many, the oldest of them are given up."""
    few = ("prlimit", "--nofile=64:64", *COMMAND)
    server = serve("behaviour:app", *pair.arguments, "--timeout-tls", "60", command=few)
    # Behind WARM_SECONDS what the start left out is imported, which takes descriptors too: by the second answer it is.
    with call(server.address, issuer.client()) as connection:
        ask(connection, "/block?seconds=0.6")
        ask(connection)
    with ExitStack() as stack:
        for _ in range(idle):
            connection = stack.enter_context(call(server.address, issuer.client()))
            assert ask(connection) == b"hello"
        for _ in range(60):
            stalled = stack.enter_context(socket.create_connection(server.address, timeout=PATIENCE))
            stalled.sendall(HELLO_HALF)
        begun = monotonic()
        with call(server.address, issuer.client()) as connection:
            assert ask(connection) == b"hello"
        assert monotonic() - begun < 30  # and not the time of a handshake
    server.until(lambda: [cause for cause in failures(server) if cause.startswith("it stalled while ")] or None, "it")


def greet(name: bytes) -> bytes:
    """The first message of a client that asks for a name which Python would not send."""
    stand_in = "x" * len(name)
    out = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=stand_in)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read().replace(stand_in.encode(), name)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_name_that_is_not_ascii_is_no_traceback(
    loop: str, serve: Starter, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    other = issuer.issue(tmp_path / "b.pem", "b.example")
    server = serve("behaviour:app", *pair.arguments, *other.arguments, "--loop", loop, "--log-level", "debug")
    with socket.create_connection(server.address, timeout=PATIENCE) as sock:
        sock.sendall(greet(b"b\xff\xfe.example"))
        with suppress(ConnectionResetError):
            receive(sock)
    server.record(event="handshake_failed")
    server.record(level="debug", message="A client asked for a name that is not ASCII: b'b\\xff\\xfe.example'")
    assert all(line.startswith("{") for line in server.lines)


def test_a_stop_does_not_wait_for_handshakes(serve: Starter, pair: Pair) -> None:
    server = serve("behaviour:app", *pair.arguments, "--timeout-tls", "60", "--linger", "0.2")
    with socket.create_connection(server.address, timeout=PATIENCE) as sock:
        sock.sendall(b"\x16\x03")
        begun = monotonic()
        assert server.stop() == 0
        assert monotonic() - begun < 15  # and not the graceful timeout, nor the time of a handshake


def test_a_handshake_that_is_under_way_at_a_stop_is_finished_and_served(
    serve: Starter, issuer: Issuer, pair: Pair
) -> None:
    server = serve("behaviour:app", *pair.arguments)
    with socket.create_connection(server.address, timeout=PATIENCE) as sock:
        server.record(event="ready")
        server.send_signal(15)
        server.record(event="stopping")
        with issuer.client().wrap_socket(sock, server_hostname="a.example") as connection:
            assert ask(connection) == b"hello"
    assert server.wait() == 0
