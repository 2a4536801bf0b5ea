"""What is told of a start that comes to nothing, and the exit code that belongs to it."""

import signal
import traceback
from collections.abc import Callable
from typing import Final, TypeVar

from appserver.errors import (
    ApplicationError,
    AppserverError,
    CertificateError,
    CredentialError,
    Exit,
    ListenError,
    OperatorError,
)
from appserver.process.signals import STOPS, StoppedEarly
from appserver.system.notify import Notifier
from appserver.telemetry.log import Log

T = TypeVar("T")

_FAILURES: Final[dict[type[AppserverError], str]] = {
    ListenError: "listen_failed",
    CertificateError: "certificate_failed",
    CredentialError: "certificate_failed",
}


def conclude(
    start: Callable[[], T], notifier: Notifier, log: Log, may_tell: Callable[[], bool] = lambda: True
) -> T | Exit:
    """Start, and tell what has kept it from that.

    Args:
        start: Raises what it fails by.
        notifier: Who is told, besides the log.
        log: Where that goes.
        may_tell: Whether the log is to be told: not where another worker has told the same.

    Returns:
        What `start` does; where it does not, the exit code.
    """
    try:
        try:
            return start()
        except (OperatorError, ApplicationError) as error:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # what has failed is told; `leave` takes them
            return report_failure(error, notifier, log if may_tell() else None)
    except StoppedEarly as stop:  # also between the two
        return end_early(stop, log)


def report_failure(error: OperatorError | ApplicationError, notifier: Notifier, log: Log | None) -> Exit:
    """Tell why nothing is served, in the log and to the service manager or master.

    Args:
        error: What went wrong.
        notifier: Who is told, besides the log.
        log: None where another worker has told the same.

    Returns:
        The exit code that belongs to it.
    """
    if log is not None:
        blamed = isinstance(error, ApplicationError)
        event = "application_failed" if blamed else _FAILURES.get(type(error))
        log.critical(str(error), code=event, exc_info=error.__cause__ if blamed else None)
    notifier.failed(int(error.exit_code), str(error))
    return error.exit_code


def end_early(stop: StoppedEarly, log: Log) -> Exit:
    """Tell of a stop before anything was served, and in which line of the application it came."""
    from appserver.process.blocker import Frame, find_place  # noqa: PLC0415 - for this end alone

    frames = traceback.extract_tb(stop.__traceback__)
    place = find_place([Frame(frame.filename, frame.lineno or 0, frame.name) for frame in reversed(frames)])
    where = f"; it stood at {place}" if place else ""
    log.info(f"Stopped before the application had started{where}", code="stopped", requests_cut=0)
    return Exit.OK
