"""Sockets from systemd: several with names, and one connection each (Accept=yes)."""

from tests.system.machine import Machine
from tests.system.service import SERVICE, configure, every_debian, get, get_json, main_pid, override

NAMED = """
[Socket]
ListenStream={path}
FileDescriptorName={name}
Service=appserver.service
SocketMode=0666
"""


@every_debian
def test_named_sockets_take_their_roles(machine: Machine) -> None:
    configure(machine, 'app = "probe:app"')
    machine.write("/etc/systemd/system/shop-control.socket", NAMED.format(path="/run/shop-control", name="control"))
    machine.write("/etc/systemd/system/shop-web.socket", NAMED.format(path="127.0.0.1:8080", name="http"))
    override(machine, "[Service]\nSockets=appserver.socket shop-control.socket shop-web.socket\n")
    machine.run("systemctl start shop-control.socket shop-web.socket appserver.socket")

    web = machine.run("curl --silent --fail http://127.0.0.1:8080/")
    assert '"server": ["127.0.0.1", 8080]' in web
    assert get_json(machine)["pid"] == main_pid(machine)
    status = get_json(machine, "/status", "/run/shop-control")
    assert (status["state"], status["answered"]) == ("serving", 2)
    # The control socket is no way into the application.
    assert get_json(machine, "/", "/run/shop-control")["server"] == "appserver"
    page = get(machine, "/", "/run/shop-control", "--header", "Accept: text/html")
    assert page.startswith("<!doctype html>")  # it is in the package
    # Whom the unit lets in can ask; root can order, in the unit's user namespace too.
    other = ["setpriv", "--reuid=33", "--clear-groups"]
    control = ["--control", "/run/shop-control"]
    assert '"serving"' in machine.run([*other, "appserverctl", "status", "--json", *control])
    refused = machine.attempt([*other, "appserverctl", "drain", *control])
    assert refused.returncode == 3
    assert "orders are taken from root and the server's user" in refused.stderr.decode()
    machine.run(["appserverctl", "drain", *control])
    assert get_json(machine, "/status", "/run/shop-control")["ready"] is False


SERVE = "ExecStart=/usr/bin/appserver --app-dir /srv/shop"
ACCEPT = {
    "descriptor 0, as under inetd": f"StandardInput=socket\n{SERVE} --fd 0 probe:app",
    "LISTEN_FDS": f"{SERVE} probe:app",
}


@every_debian
def test_a_process_for_each_connection(machine: Machine) -> None:
    for number, (how, lines) in enumerate(ACCEPT.items()):
        name, port = f"single{number}", 9000 + number
        machine.write(f"/etc/systemd/system/{name}.socket", f"[Socket]\nListenStream=127.0.0.1:{port}\nAccept=yes\n")
        machine.write(
            f"/etc/systemd/system/{name}@.service", f"[Service]\nStandardError=journal\nDynamicUser=yes\n{lines}\n"
        )
        machine.run(["systemctl", "start", f"{name}.socket"])
        # Two requests on one connection, then two connections.
        url = f"http://127.0.0.1:{port}/"
        fetch = f"curl --silent --fail --write-out '%{{num_connects}}\\n' {url} {url}"
        first, second = machine.run(fetch), machine.run(fetch)
        assert first.count('"pid"') == 2, how
        assert '"pid"' in second, how
        machine.await_that(
            f"{how}: every process has ended with its connection",
            lambda name=name: machine.run(f"systemctl list-units --quiet --legend=no '{name}@*'") == "",  # type: ignore[misc]
        )
        assert machine.run(f"systemctl list-units --failed --legend=no '{name}@*'") == "", how


def test_a_tcp_port_of_the_socket_unit(machine: Machine) -> None:
    override(machine, "[Socket]\nListenStream=\nListenStream=[::]:80\nBindIPv6Only=both\n", "appserver.socket")
    machine.run("systemctl disable --now nginx && systemctl start appserver.socket")
    assert "appserver is running" in machine.run("curl --silent --fail http://127.0.0.1/")
    assert "appserver is running" in machine.run("curl --silent --fail 'http://[::1]/'")
    assert machine.property(SERVICE, "ActiveState") == "active"


def test_only_the_web_server_may_connect(machine: Machine) -> None:
    machine.run("systemctl start appserver.socket")
    curl = "curl --silent --output /dev/null --unix-socket /run/appserver/appserver.sock http://x/"
    assert machine.attempt(f"setpriv --reuid=www-data --regid=www-data --clear-groups {curl}").returncode == 0
    assert machine.attempt(f"setpriv --reuid=games --regid=games --clear-groups {curl}").returncode == 7
    assert get(machine)
