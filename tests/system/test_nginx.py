"""The main job: nginx in front of a FastAPI application over the socket of appserver.socket."""

import json
import os
from pathlib import Path

from tests.system.machine import Machine
from tests.system.service import CONTROL, configure, every_debian, get_json, records

EXAMPLE = Path(__file__).parents[2] / "packaging/nginx/appserver.conf"
MUCH = (1024 if os.environ.get("FULL") else 256) * 1024 * 1024
CLIENT = "192.0.2.7"
"""Somebody else than this host, whose own addresses are those of a proxy that is believed."""


def put_nginx_in_front(machine: Machine) -> None:
    """Do what the example's own comment says (with a restart: a reload leaves old workers for a moment)."""
    machine.write("/etc/nginx/conf.d/appserver.conf", EXAMPLE.read_bytes())
    machine.run(f"ip address add {CLIENT}/32 dev lo")
    machine.run("rm -f /etc/nginx/sites-enabled/default && nginx -q -t && systemctl restart nginx")
    configure(machine, 'app = "shop:app"')
    machine.run("systemctl start appserver.socket")


@every_debian
def test_fastapi_behind_nginx(machine: Machine) -> None:
    put_nginx_in_front(machine)
    seen = json.loads(machine.run(f"curl --silent --fail --interface {CLIENT} http://127.0.0.1/seen"))
    assert seen.pop("request_id")
    assert seen == {"client": CLIENT, "scheme": "http", "host": "127.0.0.1", "framework": "FastAPI"}
    (record,) = records(machine, "HTTP_TARGET=/seen")
    assert record["CLIENT_ADDR"].startswith(CLIENT)


def test_a_client_cannot_forge_its_address(machine: Machine) -> None:
    put_nginx_in_front(machine)
    forged = "--header 'X-Forwarded-For: 203.0.113.9' --header 'X-Forwarded-Proto: https'"
    seen = json.loads(machine.run(f"curl --silent --fail --interface {CLIENT} {forged} http://127.0.0.1/seen"))
    assert seen["client"] == CLIENT
    assert seen["scheme"] == "http"


def test_the_scheme_is_that_of_the_client(machine: Machine) -> None:
    put_nginx_in_front(machine)
    machine.run("sed -i 's/X-Forwarded-Proto $scheme/X-Forwarded-Proto https/' /etc/nginx/conf.d/appserver.conf")
    machine.run("systemctl restart nginx")
    assert json.loads(machine.run("curl --silent --fail http://127.0.0.1/seen"))["scheme"] == "https"


def test_nginx_keeps_its_connections(machine: Machine) -> None:
    put_nginx_in_front(machine)
    machine.run("sed -i 's/^worker_processes .*/worker_processes 1;/' /etc/nginx/nginx.conf && systemctl restart nginx")
    for _ in range(20):
        machine.run("curl --silent --fail http://127.0.0.1/seen")
    status = get_json(machine, "/status", CONTROL)
    # Each request came from a new client and a new process of curl: one connection is left, and it is nginx's.
    assert (status["answered"], status["connections"]) == (20, 1)


@every_debian
def test_large_bodies_go_up_and_down(machine: Machine) -> None:
    put_nginx_in_front(machine)
    up = machine.run(
        f"head --bytes {MUCH} /dev/zero | curl --silent --fail --request POST --upload-file - http://127.0.0.1/count",
        timeout=120,
    )
    assert json.loads(up) == {"bytes": MUCH}
    down = machine.run(f"curl --silent --fail http://127.0.0.1/blocks/{MUCH // 65536} | wc --bytes", timeout=120)
    assert int(down) == MUCH
