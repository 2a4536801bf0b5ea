"""The journal's native protocol: records as fields that one can query.

`journalctl HTTP_STATUS=500` works because each key of a record becomes a field of its own (systemd.journal-fields(7)).
What a field may be called is sd_journal_print(3)'s rule: capitals, digits and underscores, at most 64, no underscore
first. libsystemd does the wire encoding, also of values with line feeds and of records too long for a datagram.
"""

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from appserver.telemetry.record import CODE_FIELDS, WORDS
from appserver.telemetry.text import escape, escape_lines, show

IDENTIFIER: Final = "appserver"
"""SYSLOG_IDENTIFIER: what `journalctl -t` takes."""


class Event(Enum):
    """The events that an operator meets, with the MESSAGE_ID of each.

    `log.info(…, code="ready")` names one by its name in lower case. The ids are for ever: people query them, and
    systemd/appserver.catalog explains each under its id (`journalctl -x`).
    """

    STARTED = "c7b8bd2354f840d78d6e0c82e54684de"
    """The process runs; the application's startup comes next."""
    READY = "cd5add4c1b284b4d8de7af9736cca487"
    """Lifespan startup is done and the sockets are served."""
    STOPPING = "62ff6b90598c44828fc431cfeea714f1"
    """A stop was asked for; requests that run are answered first."""
    STOPPED = "1c58ca21c4604c75bfa22f9d2ff23ebf"
    """The end of an orderly stop."""
    DRAIN_CUT = "bf3d93a0c50644b1a238c3553a43ba79"
    """Requests still ran at the deadline or at the second signal, and were cut."""
    APPLICATION_FAILED = "270402149735495fabab0ed9136c6739"
    """The application cannot be imported, or its lifespan failed."""
    APPLICATION_ERROR = "733de4c74aaa47cd8a4a508e2fab48f8"
    """The application raised while it answered a request."""
    MISUSE = "807b90ab79d84b9b8caa2d51bd8f3e1b"
    """The application sent what the ASGI specification does not allow."""
    REFUSED = "a155e4607e064192b4384535f4b6ff3f"
    """A client sent what cannot be served."""
    LISTEN_FAILED = "6aaad30653a84d088abd45f2915b0654"
    """A socket cannot be bound or taken over."""
    ACCEPT_PAUSED = "d5475faf3c2c444399e1da89410c7833"
    """No descriptors are left: new connections wait in the backlog; also logged when that is over."""
    SOCKET_IGNORED = "6bd789a05035495ab7b0bb7a38257d57"
    """Inherited sockets are not used."""
    DEADLINE = "8e0843a0acbb41bb8b49173aef19af9d"
    """A client was too slow."""
    WATCHDOG = "f1efd4d46d2640fcb1bec317c0418ef6"
    """The event loop did not turn in time; where it stood, is in the record."""
    CERTIFICATE_LOADED = "b98def0530b84cb6816297f5680eaafd"
    """Renewed certificates are served with from now on."""
    CERTIFICATE_FAILED = "6997cfeb42c94d8d9cded6b3b4dce1f6"
    """Certificates cannot be served with."""
    CERTIFICATE_EXPIRES = "c0d8df0dfa4649868ffaec7f1b590b37"
    """A certificate is about to expire, or has."""
    HANDSHAKE_FAILED = "cac12164729742e4aeb3d5885e7a9396"
    """A client and the server did not come to terms over TLS."""
    LOG_DROPPED = "b5fb737bf0fa4e15bf250f920dff82b2"
    """The log is read more slowly than it is written: access records are dropped; also logged when that is over."""
    MEMORY_PRESSURE = "9996c23904344c72b7fb7f83e12f9890"
    """Memory is short, and what can be spared is given back."""
    WORKER_FAILED = "c45c2138f88942ecaeda0eb592a9c32f"
    """A worker ended before it served."""
    WORKER_LOST = "b2f48d8d3c0f451ab052ba9e534ac767"
    """A worker ended and was not told to."""
    WORKER_HUNG = "4c4144228e5f4fd286fa109e4ddf0133"
    """A worker's event loop stands still; where, is in the record."""
    PRELOADER_LOST = "7ea98be216ff41fd8e233fc9c4177e3b"
    """The process that forks workers ended and was not told to."""
    RELOADED = "dc74366d1b974e8ca1457956f7f5784e"
    """A new generation of workers serves."""
    RELOAD_FAILED = "06a55282fc484652bf7448848913ac6b"
    """A reload was given up, and the workers from before go on."""
    DRAINED = "80cfc0af34844323852a33280bd6345e"
    """An operator has probes told that requests should go elsewhere; those that come are answered."""
    RESUMED = "6f365640b4304c449673bd8fb0239785"
    """An operator has undone that."""
    UPGRADED = "3dce329bbfc943c8816cbca2369620e6"
    """Another version of appserver goes on as the same process, and its workers serve."""
    UPGRADE_FAILED = "27354e316d1442828a3bdd401076ca97"
    """Another version cannot take over, or its workers cannot."""


MESSAGE_IDS: Final[Mapping[str, str]] = {event.name.lower(): event.value for event in Event}
"""The id for each code."""

PRIORITIES: Final[Mapping[str, int]] = {
    "critical": 2,
    "error": 3,
    "warning": 4,
    "info": 6,
    "debug": 7,
    "trace": 7,
}
"""syslog(3) priorities; 5 (notice) has no counterpart in Python's levels."""

_FIELD_LIMIT: Final = 64
_OURS: Final = frozenset(
    {"MESSAGE", "MESSAGE_ID", "PRIORITY", "EVENT", "SYSLOG_IDENTIFIER", "CODE_FILE", "CODE_LINE", "CODE_FUNC"}
)

STACKS: Final = "stacks"
"""The field of stacks, one line for each frame; in MESSAGE they would bury what it says."""


def render_fields(level: str, record: Mapping[str, Any]) -> list[bytes]:
    """Map a record to the arguments of sd_journal_sendv(3): one `FIELD=value` for each field, UTF-8.

    Args:
        level: A key of `PRIORITIES`.
        record: `event` is the message; see `telemetry.record` for the other keys.
    """
    message = escape(str(record["event"]))
    traceback = record.get("traceback")
    if traceback:
        # In MESSAGE, because plain `journalctl` and `systemctl status` show nothing else.
        message = f"{message}\n{escape_lines(traceback)}"
    fields = [
        b"MESSAGE=" + message.encode(),
        b"PRIORITY=%d" % PRIORITIES[level],
        b"SYSLOG_IDENTIFIER=" + IDENTIFIER.encode(),
    ]
    code = record.get("code")
    if code is not None:
        fields.append(b"EVENT=" + show(code).encode())
        if code in MESSAGE_IDS:
            fields.append(b"MESSAGE_ID=" + MESSAGE_IDS[code].encode())
    site = record.get("site")
    if site is not None:
        fields += [f"{name.upper()}={show(value)}".encode() for name, value in zip(CODE_FIELDS, site, strict=True)]
    fields += [
        name_field(key) + (escape_lines(str(value)) if key == STACKS else show(value)).encode()
        for key, value in record.items()
        if value is not None and key not in WORDS
    ]
    return fields


def render_datagram(level: str, record: Mapping[str, Any]) -> bytes:
    """A record without a traceback or stacks in the native protocol: a line for each field.

    Only a value with line feeds needs the protocol's other form, with a length; `escape` leaves none but in these.
    See https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
    """
    return b"\n".join(render_fields(level, record)) + b"\n"


@lru_cache(maxsize=512)
def name_field(key: str) -> bytes:
    """Turn a record's key into a field's name, with its `=`.

    Names that the journal would drop are mended, and those that are ours get `EXTRA_` in front: an application's
    `extra={"priority": …}` must not change what the record is.
    """
    if key in CODE_FIELDS:
        # Only our own code can name another place than the caller's: from `extra=` they arrive renamed.
        return f"{key.upper()}=".encode()
    name = re.sub("[^A-Z0-9_]", "_", key.upper()).lstrip("_")
    if not name or name[0].isdigit() or name in _OURS:
        name = f"EXTRA_{name}"
    return f"{name[:_FIELD_LIMIT]}=".encode()
