"""The words of a record: a mapping that the processors fill and a renderer turns into output.

    captured   when it happened, in microseconds since 1970, where it is rendered later than that
    event      the message
    code       the name of a `journal.Event`, in lower case
    exc_info   an exception, until a processor has made `traceback` of it
    site       file, line and function that the record comes from
    said       names of fields that the message already tells
    traceback  text of several lines

Every other key is a field. `code_file`, `code_line` and `code_func` are fields that take the place of `site`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

WORDS: Final = frozenset({"captured", "event", "code", "exc_info", "site", "said", "traceback"})
CODE_FIELDS: Final = ("code_file", "code_line", "code_func")


class Form(NamedTuple):
    """How a format writes the records of which there is one for each request."""

    render: Callable[[str, Mapping[str, Any]], bytes]
    """From a level and any record."""
    stamp: Callable[[int], str]
    """The time as `render` shows it, up to the part of a second, from seconds since 1970; empty where it shows none."""
    digits: int
    """How many digits of the part of a second follow the stamp, cut and not rounded: 0 to 6."""
    plain: bytes
    """The characters that `render` leaves as they are, wherever they stand."""


class Outlet(Protocol):
    """Where the records that a `Form` has rendered go."""

    def offer(self, records: Sequence[bytes]) -> int:
        """Write as many of the records, from the first on, as the reader takes now; never waits for it.

        Returns:
            How many were taken.

        Raises:
            OSError: None was, nor will be.
        """
        ...

    @property
    def unfinished(self) -> bool:
        """A record was taken in part; `offer` completes it first."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait for a reader, so many seconds for each piece of what was begun; whether it takes more now."""
        ...
