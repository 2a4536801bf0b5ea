"""TLS under systemd, as docs/tls.md tells it: named sockets, certbot's hook, keys for a user of no rights."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Issuer
from tests.system.machine import Machine
from tests.system.service import configure, every_debian, get_json, main_pid, override

PORT: Final = """
[Socket]
ListenStream={port}
FileDescriptorName={name}
Service=appserver.service

[Install]
WantedBy=sockets.target
"""
GUIDE: Final = Path(__file__).parents[2] / "docs" / "tls.md"
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


def read_guide() -> list[str]:
    """The blocks of commands in the guide that stop what runs and start it again."""
    blocks = re.findall(r"(?:^        (?:systemctl|appserverctl) .*\n)+", GUIDE.read_text(), re.MULTILINE)
    return [re.sub(r"^ +", "", block, flags=re.MULTILINE).strip().replace("\n", " && ") for block in blocks]


@pytest.fixture
def ported(machine: Machine) -> Machine:
    """A host that serves over the socket of the package, and has units for ports 80 and 443, not started yet."""
    machine.run("systemctl disable --now nginx")
    configure(machine, 'app = "probe:app"')
    machine.run("systemctl enable --now appserver.socket")
    get_json(machine)
    for port, name in ((80, "http"), (443, "https")):
        machine.write(f"/etc/systemd/system/appserver-{name}.socket", PORT.format(port=port, name=name))
    machine.run("systemctl daemon-reload")
    return machine


@every_debian
def test_certbots_hook_hands_certificates_to_a_service_of_no_rights(ported: Machine, tmp_path: Path) -> None:
    machine = ported
    third_step, fifth_step = read_guide()
    machine.run("groupadd --system ssl-cert")  # the package ssl-cert does
    machine.run("install -d /srv/acme && install -d -m 0750 -g ssl-cert /etc/appserver/tls")
    machine.run(f"install -D /usr/share/doc/appserver/packaging/certbot/appserver {HOOK}")
    drop_in = "[Service]\nSupplementaryGroups=ssl-cert\nSockets=appserver-http.socket\n"
    override(machine, drop_in)

    # Before there is a certificate, the challenge is answered.
    configure(machine, 'app = "probe:app"\nacme_dir = "/srv/acme"')
    challenge = "/.well-known/acme-challenge/token"
    machine.write(f"/srv/acme{challenge}", "token.thumbprint")
    machine.run(third_step)
    assert fetch(machine, f"http://shop.example{challenge}") == "token.thumbprint 200 "

    # With it.
    renew(machine, tmp_path)
    machine.run(f"RENEWED_LINEAGE={LINEAGE} {HOOK}")
    settings = 'app = "probe:app"\nacme_dir = "/srv/acme"\ntls_dir = "/etc/appserver/tls"\nhttps_redirect = true'
    configure(machine, settings)
    override(machine, drop_in + "Sockets=appserver-https.socket\n")
    stop, start = fifth_step.split(" && systemctl enable ")
    machine.run(stop)
    assert machine.attempt("curl --silent http://127.0.0.1/").returncode == 7  # nobody listens, so nothing is started
    machine.run(f"systemctl enable {start}")
    assert '127.0.0.1", 443]' in fetch(machine, "https://shop.example/")
    assert fetch(machine, "http://shop.example/a?b").endswith(" 308 https://shop.example/a?b")
    assert fetch(machine, f"http://shop.example{challenge}") == "token.thumbprint 200 "
    assert machine.property("appserver.socket", "ActiveState") == "active"
    limits = machine.run(["cat", f"/proc/{main_pid(machine)}/limits"])
    soft, hard = re.findall(r"Max open files +(\d+) +(\d+)", limits)[0]
    assert soft == hard

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
    override(machine, f"[Service]\nSockets=appserver-https.socket\n{load}\n")
    configure(machine, 'app = "probe:app"\ntls_cert = ["credential:shop.pem"]\ntls_key = ["credential:shop.key"]')
    machine.run("systemctl stop appserver.service appserver.socket && systemctl start appserver.service")
    assert '127.0.0.1", 443]' in fetch(machine, "https://shop.example/")
