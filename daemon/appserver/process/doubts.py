"""Settings without effect, or not with the one that was meant: told at the start and by `appserverctl check`."""

import os
from collections.abc import Iterator

from appserver.settings import Settings
from appserver.telemetry.datagrams import JOURNAL_SOCKET
from appserver.telemetry.log import has_journal


def find_doubts(
    settings: Settings, *, encrypted: bool, activated: bool = True, inherited: bool = False
) -> Iterator[str]:
    """Say which settings have no effect, or not the one that was meant; each may still be right.

    Args:
        settings: All of them.
        encrypted: A listener speaks TLS.
        activated: All sockets are somebody else's, who starts the process again for the next connection.
        inherited: All sockets are somebody else's.
    """
    if settings.log_format == "journal" and not has_journal():
        yield f"--log-format journal: there is no journal at {JOURNAL_SOCKET}; the log goes to stderr, as JSON lines"
    if settings.idle_exit and not activated:
        yield "--idle-exit has no effect: the sockets are not systemd's, and nobody would start the process again"
    default = Settings()
    if inherited:
        for flag, told, where in (
            ("--uds-mode", settings.uds_mode != default.uds_mode, "SocketMode="),
            ("--uds-owner", settings.uds_owner is not None and settings.control is None, "SocketUser="),
            ("--uds-group", settings.uds_group is not None and settings.control is None, "SocketGroup="),
            ("--backlog", settings.backlog != default.backlog, "Backlog="),
        ):
            if told:
                yield f"{flag} has no effect: all sockets are inherited; in a socket unit it is {where}"
    if settings.max_requests_jitter and not settings.max_requests:
        yield "--max-requests-jitter has no effect without --max-requests"
    if settings.statsd_prefix != default.statsd_prefix and settings.statsd_host is None:
        yield "--statsd-prefix has no effect without --statsd-host"
    if settings.workers is None:
        for flag, given in (
            ("--preload", settings.preload),
            ("--max-age", settings.max_age),
            ("--max-memory", settings.max_memory),
            ("--timeout-worker", settings.timeout_worker != default.timeout_worker),
            ("--timeout-worker-start", settings.timeout_worker_start != default.timeout_worker_start),
        ):
            if given:
                yield f"{flag} has no effect without --workers"
    if not encrypted:
        for flag, given in (
            ("--hsts", settings.hsts is not None),
            ("--tls-min-version", settings.tls_min_version != "1.2"),
            ("--tls-ciphers", settings.tls_ciphers is not None),
            ("--tls-key-password", settings.tls_key_password is not None),
        ):
            if given:
                yield f"{flag} has no effect: no listener speaks TLS"
        if settings.https_redirect:
            yield (
                "--https-redirect: no listener speaks TLS. Port 443 has to be served by a proxy that is trusted and"
                " sends X-Forwarded-Proto, or clients are led around in a circle"
            )
    if settings.acme_dir is not None and not os.path.isdir(settings.acme_dir):  # noqa: PTH112 - never raises
        yield f"--acme-dir: {settings.acme_dir} is no folder; until it is, challenges are answered with 404"
