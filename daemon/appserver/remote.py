"""Asking a running server over its control socket: HTTP and JSON."""

import http.client
import json
import os
import socket
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Final

from appserver.errors import Exit, OperatorError

CONTROL_PATH: Final = "/run/appserver/appserver/control.sock"

CONTROL: Final = (
    "--control",
    {"metavar": "PATH", "help": f"The server's control socket (default: $APPSERVER_CONTROL or {CONTROL_PATH})"},
)
"""The option of commands that speak to a server."""

JSON: Final = ("--json", {"action": "store_true", "help": "Write JSON"})
"""The option of commands whose answer is a table."""

ANSWER_SECONDS: Final = 5.0
"""How long a server may take to answer: its event loop turns, or it is in trouble."""


class RemoteError(OperatorError):
    """Nobody answers at the control socket, or what was asked for did not come about."""

    exit_code = Exit.STARTUP


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to a UNIX socket; `@` begins an abstract name."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = "\0" + path[1:] if path.startswith("@") else path

    def connect(self) -> None:
        """Connect to the path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def find_control(own: Namespace) -> str:
    """The path of the control socket that a command with the option `CONTROL` speaks to."""
    return str(own.control or os.environ.get("APPSERVER_CONTROL") or CONTROL_PATH).removeprefix("unix:")


def ask(
    path: str, method: str, target: str, timeout: float = ANSWER_SECONDS, order: Mapping[str, Any] | None = None
) -> tuple[int, Mapping[str, Any]]:
    """Ask the control socket: the status of the answer, and what it says.

    Args:
        path: Of the socket; `@` begins an abstract name.
        method: GET, or POST for an order.
        target: What is asked for.
        timeout: Seconds that the answer may take.
        order: What is ordered with POST.

    Raises:
        RemoteError: Nobody answers, or not as a control socket does.
    """
    connection = _UnixConnection(path, timeout)
    try:
        if method == "POST":
            connection.request(method, target, json.dumps(order or {}), {"Content-Type": "application/json"})
        else:
            connection.request(method, target)
        response = connection.getresponse()
        report = json.loads(response.read())
    except OSError as error:
        raise RemoteError(f"{path}: {_explain(path, error)}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise RemoteError(f"{path}: what answers there is no control socket of appserver") from error
    finally:
        connection.close()
    if not isinstance(report, dict):
        raise RemoteError(f"{path}: what answers there is no control socket of appserver")
    return response.status, report


def _explain(path: str, error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time: the server starts, or its event loop stands still"
    if isinstance(error, PermissionError):
        return f"{error.strerror}: the control socket is for root and the server's user"
    return f"{error.strerror or error}; is a server running with `--control unix:{path}`?"


def get(path: str, target: str) -> Mapping[str, Any]:
    """What the control socket says of something that it has to know.

    Raises:
        RemoteError: It does not.
    """
    status, report = ask(path, "GET", target)
    if status != http.client.OK:
        told = report.get("error")
        raise RemoteError(f"{path}: {told or 'what answers there is no control socket of appserver'}")
    return report


def order(path: str, target: str, timeout: float = ANSWER_SECONDS, **words: Any) -> Mapping[str, Any]:
    """Have something done; what the control socket says when it is.

    Raises:
        RemoteError: It is not done, and why.
    """
    status, report = ask(path, "POST", target, timeout, words)
    if status != http.client.OK:
        raise RemoteError(f"{path}: {report.get('error') or f'refused with {status}'}")
    return report
