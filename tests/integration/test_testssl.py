"""testssl.sh scans the defaults: it finds nothing worse than LOW, but for what is told in EXCEPTIONS."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.certificates import Issuer
from tests.integration.servers import Starter, clean_environment

FULL: Final = bool(os.environ.get("FULL"))
CHECKS: Final = ("-p", "-s", "-P", "-S", "-h", *(("-f", "-U") if FULL else ()))
"""Protocols, suites by strength, preferences, defaults with the certificate and headers, and in `make test-all` forward
secrecy and vulnerabilities, which take half a minute and hang on OpenSSL alone: all that give a verdict. The simulation
of clients gives none."""

HARMLESS: Final = frozenset({"OK", "INFO", "LOW", "DEBUG"})

EXCEPTIONS: Final = {
    "engine_problem": "about the openssl(1) that scans, and not about the server",
    "cert_revocation": "the certificate is made for this test, by an authority that has no place for revocations",
    "sessionresumption_ticket": "a busy machine's openssl(1) leaves before it has read the ticket: see test_tls.py",
    "security_headers": "what a page may load and who may frame it is for the application to say",
}
"""By testssl's id of the finding: why it is none about the server's defaults."""


@pytest.mark.timeout(240)
def test_the_defaults_have_no_finding_above_low(serve: Starter, tmp_path: Path) -> None:
    issuer = Issuer()
    pair = issuer.issue(tmp_path / "site.pem", "localhost")
    server = serve("behaviour:app", *pair.arguments, "--hsts", "365d")
    findings = scan(server.address[1], issuer.write_root(tmp_path / "root.pem"), tmp_path / "findings.json")
    told = {finding["id"]: finding["finding"] for finding in findings}

    # That it has seen this server, and seen it to the end.
    offered = {name: told[name] for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3")}
    assert [name for name, text in offered.items() if text.startswith("offered")] == ["TLS1_2", "TLS1_3"], offered
    assert told["ALPN_HTTP2"] == "h2"
    assert told["HSTS_time"].startswith("365 days")
    assert told["scanTime"].isdigit()

    worse = [finding for finding in findings if finding["severity"] not in HARMLESS]
    assert [finding for finding in worse if finding["id"] not in EXCEPTIONS] == []


def scan(port: int, root: Path, output: Path) -> list[dict[str, Any]]:
    """Everything that testssl.sh has to say of a port of 127.0.0.1."""
    subprocess.run(
        [
            *("testssl", *CHECKS, "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none"),
            *("--ip", "127.0.0.1", "--connect-timeout", "5", "--openssl-timeout", "5", "--add-ca", root),
            *("--jsonfile", output, f"localhost:{port}"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,  # its code is the number of things it has found
        timeout=200,
        env=clean_environment(),
    )
    found: list[dict[str, Any]] = json.loads(output.read_text())
    return found
