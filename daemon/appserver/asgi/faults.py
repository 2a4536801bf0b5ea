"""What an application does wrong, as the log tells it."""

from appserver.asgi.misuse import find_caller
from appserver.errors import ClientDisconnectedError
from appserver.telemetry.log import Log
from appserver.wire.engine import Head


def report_misuse(log: Log, head: Head, state: str, expectation: str, got: str) -> None:
    """A message that cannot be sent now, or not at all, with the place in the application that sent it."""
    log.error(
        "The application misused ASGI: " + expectation,
        code="misuse",
        got=got,
        state=state,
        http_method=head.method,
        http_target=head.target.decode("latin-1"),
        **find_caller(),
    )


def report_silence(log: Log, head: Head, state: str, expectation: str) -> None:
    """A call that returned too early."""
    log.error(
        f"The application returned without ending its response: expected {expectation}",
        code="misuse",
        state=state,
        http_method=head.method,
        http_target=head.target.decode("latin-1"),
    )


def report_error(log: Log, head: Head, error: BaseException) -> None:
    """An exception that the application let through."""
    trace = error.__traceback__
    if trace is not None and trace.tb_next is not None:
        error = error.with_traceback(trace.tb_next)  # the first frame is ours, and says nothing
    log.error(
        f"The application raised {type(error).__name__}",
        code="application_error",
        exc_info=error,
        http_method=head.method,
        http_target=head.target.decode("latin-1"),
    )


def is_disconnect(error: BaseException | None) -> bool:
    """Whether an exception is our `ClientDisconnectedError`, or was raised because of it: that is no fault.

    Starlette raises its own ClientDisconnect from it, and task groups put it into an ExceptionGroup.
    """
    while error is not None:
        if isinstance(error, ClientDisconnectedError):
            return True
        if isinstance(error, BaseExceptionGroup) and any(is_disconnect(inner) for inner in error.exceptions):
            return True
        error = error.__cause__ or error.__context__
    return False
