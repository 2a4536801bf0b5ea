"""A certificate authority on loopback: pebble, which Let's Encrypt makes to test ACME clients, and certbot to ask it.

pebble validates as the real one does: it looks the name up, asks for the challenge over HTTP, and refuses if it is not
there. Names are looked up in a DNS server of its own, in which each is 127.0.0.1.
"""

import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Final, Self

from tests.certificates import Issuer
from tests.integration.servers import PATIENCE, clean_environment

# Sleeps, refused nonces and reused authorizations are what pebble does at random, to find clients that count on luck:
# certbot is not what is tested here, and every certificate is to cost a challenge.
_BEHAVIOUR: Final = {
    "PEBBLE_VA_ALWAYS_VALID": "0",
    "PEBBLE_VA_NOSLEEP": "1",
    "PEBBLE_WFE_NONCEREJECT": "0",
    "PEBBLE_AUTHZREUSE": "0",
}


class Authority:
    """The authority with its DNS, as long as the block runs.

    Args:
        folder: For its files and those of certbot; it must be there.
        http_port: Where challenges are asked for, in place of port 80.
    """

    def __init__(self, folder: Path, http_port: int) -> None:
        self._folder, self._http_port = folder, http_port
        self._api, self._management, self._dns, self._dns_management = find_free_ports(4)
        self._issuer = Issuer()  # of the certificate that pebble itself is reached by
        self._processes: list[subprocess.Popen[bytes]] = []
        self.certbot_folder = folder / "certbot"
        """certbot's `--config-dir`, with `live` and `renewal-hooks` in it."""

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _begin(self) -> None:
        pair = self._issuer.issue(self._folder / "api.pem", "127.0.0.1")
        configuration = self._folder / "pebble.json"
        pebble = {
            "listenAddress": f"127.0.0.1:{self._api}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(pair.certificate),
            "privateKey": str(pair.key),
            "httpPort": self._http_port,
            "tlsPort": 1,  # for challenges of another kind, which nobody asks for
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        configuration.write_text(json.dumps({"pebble": pebble}))
        dns = f"127.0.0.1:{self._dns}"
        self._start(
            *("pebble-challtestsrv", "-dns01", dns, "-management", f"127.0.0.1:{self._dns_management}"),
            *("-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""),
        )
        self._start("pebble", "-strict", "-config", configuration, "-dnsserver", dns)
        for port in (self._dns, self._api, self._management):
            wait_for_port(port)

    def _start(self, *words: str | Path) -> None:
        with (self._folder / f"{words[0]}.log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, env=clean_environment(**_BEHAVIOUR))
        self._processes.append(process)

    def _end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(PATIENCE)

    def root(self) -> str:
        """The root certificate of all that it issues, as PEM; a new one each time that it is started."""
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._issuer.client())
        )
        with opener.open(f"https://127.0.0.1:{self._management}/roots/0", timeout=PATIENCE) as response:
            text: str = response.read().decode()
        return text

    def certbot(self, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run certbot to its end, whatever that is.

        Args:
            words: A command of certbot's, with its arguments.
            variables: Environment, for hooks.
        """
        folder = self.certbot_folder
        own: Sequence[str | Path] = (
            *("--config-dir", folder, "--work-dir", folder / "work", "--logs-dir", folder / "logs"),
            *("--server", f"https://127.0.0.1:{self._api}/dir", "--non-interactive"),
        )
        root = self._issuer.write_root(self._folder / "api-root.pem")
        environment = clean_environment(REQUESTS_CA_BUNDLE=str(root), NO_PROXY="*", **variables)
        return subprocess.run(
            ["certbot", *words, *own],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    def issue(self, names: Iterable[str], webroot: Path, *words: str | Path, **variables: str) -> str:
        """Have a certificate issued for the names, with its lineage named after the first; what certbot said.

        Raises:
            AssertionError: It was refused.
        """
        done = self.certbot(
            *("certonly", "--webroot", "--webroot-path", webroot, "--agree-tos", "--register-unsafely-without-email"),
            *(word for name in names for word in ("--domain", name)),
            *words,
            **variables,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def find_free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; all of them different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def wait_for_port(port: int) -> None:
    """Wait until somebody listens on a port of 127.0.0.1."""
    end = monotonic() + PATIENCE
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        assert monotonic() < end, f"nobody listens on port {port}"
        sleep(0.02)
