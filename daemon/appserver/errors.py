"""One exception tree, and the exit codes of the process.

    AppserverError
     ├── OperatorError         the command line, the configuration, the host
     │    ├── UsageError         an option, key or value that cannot be taken        exit 2
     │    ├── ListenError        a socket that cannot be bound or taken over         exit 3
     │    ├── CertificateError   a certificate or key that cannot be served with     exit 3
     │    └── CredentialError    a systemd credential that is not there              exit 3
     ├── ApplicationError      the application that is served
     │    ├── LoadError          it cannot be found or imported                      exit 3
     │    ├── LifespanError      its lifespan startup failed                         exit 3
     │    └── MisuseError        it sent what the ASGI specification does not allow  (a 500, never an exit)
     └── ClientDisconnectedError  the client went away (also an OSError)             (raised in the application)

What a client does wrong is no exception: it is an event of the wire layer (`wire.engine.Refused`), because it has
an answer and the process goes on.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `appserver`, as documented in docs/operations.md."""

    OK = 0
    """A clean stop: every request that had begun was answered."""
    FAILURE = 1
    """A fault of appserver itself."""
    USAGE = 2
    """The command line, an environment variable or the configuration file cannot be taken."""
    STARTUP = 3
    """A socket, a certificate, the application's import or its lifespan startup failed; nothing was served."""
    CUT = 4
    """Stopped as asked, but requests were still running at the deadline or at the second signal."""


class AppserverError(Exception):
    """Root of the tree."""

    exit_code = Exit.FAILURE


class OperatorError(AppserverError):
    """Something the operator wrote or the host lacks."""

    exit_code = Exit.USAGE


class UsageError(OperatorError):
    """An option, key or value that cannot be taken.

    Args:
        place: Where it stands: `--port`, `APPSERVER_PORT`, `/etc/appserver/appserver.toml: port`.
        value: What stands there; None where the place itself is the mistake.
        expected: What was expected, in words.
        nearest: The nearest known name, if there is one.
    """

    def __init__(self, place: str, value: object, expected: str, nearest: str | None = None) -> None:
        self.place, self.value, self.expected, self.nearest = place, value, expected, nearest
        shown = "" if value is None else f" {value!r}"
        hint = f"; did you mean {nearest}?" if nearest else ""
        super().__init__(f"{place}:{shown} {expected}{hint}" if value is None else f"{place}:{shown}: {expected}{hint}")


class ListenError(OperatorError):
    """A socket that cannot be bound, connected to its role or taken over."""

    exit_code = Exit.STARTUP


class CertificateError(OperatorError):
    """A certificate, or what belongs to it, that TLS cannot be served with."""

    exit_code = Exit.STARTUP


class CredentialError(OperatorError):
    """A credential that the service manager has not handed over."""

    exit_code = Exit.STARTUP


class ApplicationError(AppserverError):
    """The application that is served is at fault."""

    exit_code = Exit.STARTUP


class LoadError(ApplicationError):
    """The application cannot be found or imported.

    When the application itself raised, that exception is the `__cause__`, to be shown with its traceback.
    """


class LifespanError(ApplicationError):
    """The application's lifespan startup failed."""


class MisuseError(ApplicationError):
    """The application sent what the ASGI specification does not allow."""


class ClientDisconnectedError(AppserverError, OSError):
    """The client is gone; raised by `send()` (ASGI HTTP spec 2.4: an OSError)."""
