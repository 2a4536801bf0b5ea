"""The sites whose pages may open a WebSocket here (RFC 6455 section 10.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# What a wildcard stands for: no port, user or path, where the name of somebody else could come before the known end.
_LABELS: Final = re.compile(r"[a-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Origins:
    """A list of allowed origins.

    Browsers let any page connect to any server, with the user's cookies, and say in `Origin` whose page it is. Other
    clients send none, and are let through: they have no cookies but their own.

    Attributes:
        exact: As browsers write them: `https://example.org`, `https://example.org:8443`, `null`.
        suffixes: Pairs of scheme and end of the name, of those given as `https://*.example.org`.
    """

    exact: frozenset[str]
    suffixes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, patterns: Sequence[str]) -> "Origins | None":
        """Make the list of what an operator has written; None where all are allowed."""
        if not patterns or "*" in patterns:
            return None
        exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
        wild = [pattern.split("*", 1) for pattern in patterns if "*" in pattern]
        return cls(exact, tuple((scheme, suffix) for scheme, suffix in wild))

    def admit(self, origin: str) -> bool:
        """Whether pages of this origin may connect."""
        if origin in self.exact:
            return True
        return any(
            origin.startswith(scheme)
            and origin.endswith(suffix)
            and _LABELS.fullmatch(origin, len(scheme), len(origin) - len(suffix)) is not None
            for scheme, suffix in self.suffixes
        )
