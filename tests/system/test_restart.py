"""`systemctl restart` while clients are at it, and `systemctl reload` with clients of five kinds: all is answered."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.certificates import Issuer
from tests.integration.test_reload import clients
from tests.system.load import CLIENTS, Load
from tests.system.machine import Machine
from tests.system.service import (
    CONTROL,
    configure,
    every_debian,
    get,
    get_json,
    host_path,
    main_pid,
    override,
    serve_probe,
)

FULL = bool(os.environ.get("FULL"))
RESTARTS = 20 if FULL else 3
RELOADS = 100 if FULL else 3
KINDS = {"small", "slow", "upload", "websocket", "http2"}
CLIENTS_OF_KINDS = 64
APPS = Path(__file__).parents[1] / "apps"
OFTEN = "[Unit]\nStartLimitIntervalSec=0\n"
"""As many restarts in a minute as the test likes."""

PORT = """
[Socket]
ListenStream=127.0.0.1:{port}
FileDescriptorName={name}
Service=appserver.service
"""
SHOP = """
from behaviour import app as behave

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        await behave(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
"""


@every_debian
def test_no_request_is_lost(machine: Machine, tell: Callable[[str], None]) -> None:
    serve_probe(machine, "access_log = false")
    override(machine, OFTEN)
    get(machine)

    async def scenario() -> Load:
        load = Load(host_path(machine))
        running = asyncio.create_task(load.run())
        for _ in range(RESTARTS):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(machine.run, "systemctl restart appserver.service")
        await asyncio.sleep(0.5)
        load.stop = True
        await running
        return load

    load = asyncio.run(scenario())
    tell(
        f"{machine.suite}: {RESTARTS} restarts under {CLIENTS} keep-alive clients: "
        f"{load.answered.total()} answered, {len(load.lost)} lost"
    )
    assert not load.lost
    assert set(load.answered) == {b"200"}
    # Every client was served by every process, or the test has shown nothing.
    assert load.connections >= CLIENTS * (RESTARTS + 1)


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(("order", "count"), [("restart", RESTARTS), ("reload", RELOADS)])
@pytest.mark.parametrize("machine", ["trixie", *(["bookworm"] if FULL else [])], indirect=True)
def test_no_client_of_any_kind_loses_anything(
    machine: Machine, order: str, count: int, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    issuer = Issuer()
    pair = issuer.issue(tmp_path / "a.pem", "127.0.0.1")
    machine.write("/etc/appserver/cert.pem", pair.certificate.read_bytes())
    machine.write("/etc/appserver/key.pem", pair.key.read_bytes())
    machine.write("/srv/shop/behaviour.py", (APPS / "behaviour.py").read_bytes())
    machine.write("/srv/shop/shop.py", SHOP)
    tls = 'tls_cert = ["/etc/appserver/cert.pem"]\ntls_key = ["/etc/appserver/key.pem"]'
    configure(machine, f'app = "shop:app"\nworkers = 2\naccess_log = false\n{tls}')
    for port, name in ((8000, "http"), (8443, "https")):
        machine.write(f"/etc/systemd/system/appserver-{name}.socket", PORT.format(port=port, name=name))
    override(machine, f"{OFTEN}[Service]\nSockets=appserver-http.socket appserver-https.socket\n")
    machine.run("systemctl start appserver-http.socket appserver-https.socket appserver.service")
    masters = {main_pid(machine)}
    # The clients are the host's programs, in the network of the machine.
    inside = ("nsenter", "--target", str(machine.leader), "--net")
    slowest = 0.0
    with clients(8000, 8443, issuer.write_root(tmp_path / "root.pem"), CLIENTS_OF_KINDS, inside) as told:
        for _ in range(count):
            began = time.monotonic()
            machine.run(f"systemctl {order} appserver.service")
            slowest = max(slowest, time.monotonic() - began)
            masters.add(main_pid(machine))
            time.sleep(0.5)
    tell(
        f"{machine.suite}: {count} {order}s under {CLIENTS_OF_KINDS} clients of five kinds: {told['answered']}, "
        f"lost {told['lost']}, p99 {told['p99']:.2f} s, max {told['max']:.2f} s; the slowest {order} {slowest:.1f} s"
    )
    assert told["lost"] == {}
    assert set(told["answered"]) == KINDS
    assert len(masters) == (count + 1 if order == "restart" else 1)
    assert get_json(machine, "/status", CONTROL)["generation"] == (1 if order == "restart" else count + 1)
    assert machine.property("appserver.service", "NRestarts") == "0"
