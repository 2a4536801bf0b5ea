import inspect
import re

import pytest

from appserver import errors
from appserver.errors import (
    ApplicationError,
    AppserverError,
    CertificateError,
    ClientDisconnectedError,
    CredentialError,
    Exit,
    LifespanError,
    ListenError,
    LoadError,
    MisuseError,
    OperatorError,
    UsageError,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


def test_every_error_is_in_the_tree_and_in_the_drawing_of_it() -> None:
    drawn = set(re.findall(r"\w+Error\b", (errors.__doc__ or "").replace("OSError", "")))
    assert drawn == {kind.__name__ for kind in CLASSES}
    assert all(issubclass(kind, AppserverError) for kind in CLASSES)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (AppserverError, 1),
        (OperatorError, 2),
        (UsageError, 2),
        (ListenError, 3),
        (CertificateError, 3),
        (CredentialError, 3),
        (ApplicationError, 3),
        (LoadError, 3),
        (LifespanError, 3),
    ],
)
def test_exit_codes_are_a_promise(kind: type[AppserverError], code: int) -> None:
    assert kind.exit_code == code
    assert isinstance(kind.exit_code, Exit)


def test_exit_codes_are_numbers_that_no_shell_takes_for_a_signal() -> None:
    assert [(exit_code.name, exit_code.value) for exit_code in Exit] == [
        ("OK", 0),
        ("FAILURE", 1),
        ("USAGE", 2),
        ("STARTUP", 3),
        ("CUT", 4),
    ]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UsageError("--prot", None, "unknown option", "--port"), "--prot: unknown option; did you mean --port?"),
        (UsageError("--prot", None, "unknown option"), "--prot: unknown option"),
        (UsageError("--port", "x", "expected a number"), "--port: 'x': expected a number"),
        (UsageError("a.toml: port", 7.5, "expected a number"), "a.toml: port: 7.5: expected a number"),
        (UsageError("--loop", "uvlop", "unknown", "uvloop"), "--loop: 'uvlop': unknown; did you mean uvloop?"),
        (UsageError("--port", "a\nb", "expected a number"), "--port: 'a\\nb': expected a number"),
    ],
)
def test_a_usage_error_is_one_line_with_place_value_and_hint(error: UsageError, line: str) -> None:
    assert str(error) == line


def test_a_client_that_went_away_is_an_oserror_as_asgi_wants_it() -> None:
    error = ClientDisconnectedError("the client is gone")
    assert isinstance(error, OSError)
    assert str(error) == "the client is gone"
    assert not issubclass(ClientDisconnectedError, ApplicationError)


def test_misuse_is_the_applications_fault() -> None:
    assert issubclass(MisuseError, ApplicationError)
