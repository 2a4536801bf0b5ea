"""The sites whose pages may open a WebSocket here (RFC 6455 section 10.2)."""

from collections.abc import Sequence
from dataclasses import dataclass


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
        wild = [pattern.split("*", 1) for pattern in patterns if "*" in pattern]
        return cls(frozenset(patterns), tuple((scheme, suffix) for scheme, suffix in wild))

    def admit(self, origin: str) -> bool:
        """Whether pages of this origin may connect."""
        if origin in self.exact:
            return True
        return any(
            origin.startswith(scheme) and origin.endswith(suffix) and len(origin) > len(scheme) + len(suffix)
            for scheme, suffix in self.suffixes
        )
