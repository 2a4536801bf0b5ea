"""TLS under systemd, as docs/tls.md tells it: named sockets, certbot's hook, keys for a user of no rights."""

from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Issuer
from tests.system.machine import Machine
from tests.system.service import SERVICE, configure, every_debian, main_pid, override

PORT: Final = """
[Socket]
ListenStream={port}
FileDescriptorName={name}
Service=appserver.service
"""
HOOK: Final = "/etc/letsencrypt/renewal-hooks/deploy/appserver"
LINEAGE: Final = "/etc/letsencrypt/live/shop.example"


def fetch(machine: Machine, url: str) -> str:
    """GET with curl: the body, the status and where a redirect leads."""
    name = "--resolve shop.example:443:127.0.0.1 --resolve shop.example:80:127.0.0.1 --cacert /root/site.pem"
    told = "--silent --show-error --write-out ' %{http_code} %{redirect_url}'"
    return machine.run(f"curl {name} {told} {url}")


def renew(machine: Machine, folder: Path) -> None:
    """Put a new certificate where certbot has its own, readable for root alone, and trust no other."""
    issuer = Issuer()
    pair = issuer.issue(folder / "site.pem", "shop.example")
    machine.run(f"umask 077 && mkdir -p {LINEAGE}")
    machine.write(f"{LINEAGE}/fullchain.pem", pair.certificate.read_bytes(), "0600")
    machine.write(f"{LINEAGE}/privkey.pem", pair.key.read_bytes(), "0600")
    machine.write("/root/site.pem", issuer.write_root(folder / "root.pem").read_bytes())


@pytest.fixture
def ported(machine: Machine) -> Machine:
    """With ports 80 and 443 from systemd, the first of them open."""
    machine.run("systemctl disable --now nginx")
    for port, name in ((80, "http"), (443, "https")):
        machine.write(f"/etc/systemd/system/appserver-{name}.socket", PORT.format(port=port, name=name))
    machine.run("systemctl daemon-reload && systemctl start appserver-http.socket")
    return machine


@every_debian
def test_certbots_hook_hands_certificates_to_a_service_of_no_rights(ported: Machine, tmp_path: Path) -> None:
    machine = ported
    machine.run("groupadd --system ssl-cert")  # the package ssl-cert does
    machine.run("install -d /srv/acme && install -d -m 0750 -g ssl-cert /etc/appserver/tls")
    machine.run(f"install -D /usr/share/doc/appserver/examples/certbot/appserver {HOOK}")
    override(machine, "[Service]\nSupplementaryGroups=ssl-cert\n")

    # Before there is a certificate, the challenge is answered.
    configure(machine, 'app = "probe:app"\nacme_dir = "/srv/acme"')
    challenge = "/.well-known/acme-challenge/token"
    machine.write(f"/srv/acme{challenge}", "token.thumbprint")
    assert fetch(machine, f"http://shop.example{challenge}") == "token.thumbprint 200 "

    # With it.
    renew(machine, tmp_path)
    machine.run(f"RENEWED_LINEAGE={LINEAGE} {HOOK}")
    settings = 'app = "probe:app"\nacme_dir = "/srv/acme"\ntls_dir = "/etc/appserver/tls"\nhttps_redirect = true'
    configure(machine, settings)
    machine.run("appserverctl check --config /etc/appserver/appserver.toml")
    machine.run(f"systemctl stop {SERVICE} && systemctl start appserver-https.socket && systemctl start {SERVICE}")
    assert '127.0.0.1", 443]' in fetch(machine, "https://shop.example/")
    assert fetch(machine, "http://shop.example/a?b").endswith(" 308 https://shop.example/a?b")
    assert fetch(machine, f"http://shop.example{challenge}") == "token.thumbprint 200 "

    # The next one is served by the same process: curl trusts it alone.
    before = main_pid(machine)
    renew(machine, tmp_path)
    machine.run(f"RENEWED_LINEAGE={LINEAGE} {HOOK}")
    probe = "curl --silent --resolve shop.example:443:127.0.0.1 --cacert /root/site.pem https://shop.example/"
    machine.await_that("the new certificate is served", lambda: machine.attempt(probe).returncode == 0)
    assert main_pid(machine) == before


@every_debian
def test_a_key_that_only_root_may_read_comes_as_a_credential(ported: Machine, tmp_path: Path) -> None:
    machine = ported
    renew(machine, tmp_path)
    load = f"LoadCredential=shop.pem:{LINEAGE}/fullchain.pem\nLoadCredential=shop.key:{LINEAGE}/privkey.pem"
    override(machine, f"[Service]\n{load}\n")
    configure(machine, 'app = "probe:app"\ntls_cert = ["credential:shop.pem"]\ntls_key = ["credential:shop.key"]')
    machine.run("systemctl start appserver-https.socket")
    assert '127.0.0.1", 443]' in fetch(machine, "https://shop.example/")
