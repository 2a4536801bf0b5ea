"""What an application does wrong, as the log tells it."""

from pathlib import Path
from typing import Final

from appserver.asgi.misuse import find_caller
from appserver.telemetry.log import Log
from appserver.wire.engine import Head

_HERE: Final = str(Path(__file__).parent)

# Ours and Starlette's. By name, because there is no common base; and Starlette's have no cause, though ours is what it
# has caught. Its WebSocketDisconnected is not among them: that tells of a mistake.
_DISCONNECTS: Final = frozenset({"ClientDisconnectedError", "ClientDisconnect", "WebSocketDisconnect"})


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
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next  # the first frames are ours, and say nothing
    error = error.with_traceback(trace)
    log.error(
        f"The application raised {type(error).__name__}",
        code="application_error",
        exc_info=error,
        http_method=head.method,
        http_target=head.target.decode("latin-1"),
    )


def is_disconnect(error: BaseException | None, seen: frozenset[int] = frozenset()) -> bool:
    """Whether an exception says that the client is gone and no more than that, which is no fault.

    Such are our `ClientDisconnectedError`, those that frameworks raise in its place, what is raised `from` one of
    them, and a group with nothing else in it. What merely follows one is not: an error in the clean-up of an
    application has it as its `__context__`, and is its own fault.

    Args:
        error: What the application has let through.
        seen: Numbers of the exceptions that this one is the cause or a part of; such chains can be closed.
    """
    if error is None or id(error) in seen:
        return False
    seen |= {id(error)}
    if isinstance(error, BaseExceptionGroup):
        return all(is_disconnect(inner, seen) for inner in error.exceptions)
    known = not _DISCONNECTS.isdisjoint([kind.__name__ for kind in type(error).__mro__])
    return known or is_disconnect(error.__cause__, seen)
