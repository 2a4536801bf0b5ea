"""The one place that picks an engine."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from appserver.wire.engine import Engine, Limits
from appserver.wire.http1_h11 import H11Engine

_HTTP1: Final[dict[str, tuple[Callable[[Limits], Engine], str]]] = {"h11": (H11Engine, "h11")}
"""Name: how to make one, and the distribution behind it."""


def engines() -> dict[str, str]:
    """The engines that can be used here: name to version of the library behind it."""
    return {name: version(distribution) for name, (_, distribution) in _HTTP1.items()}


def engine(limits: Limits, name: str = "h11") -> Engine:
    """A new engine for one connection.

    Args:
        limits: The bounds on what the peer may send.
        name: One of `engines()`.
    """
    return _HTTP1[name][0](limits)
