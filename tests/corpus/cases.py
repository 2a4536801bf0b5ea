"""Read the corpus: one raw request case a file, its expected outcome beside it (notation: README.md)."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appserver.wire.engine import Limits

LIMITS: Final = Limits(body=1024)
"""Every case is run with these: the defaults, and a bound on the body so that it can be passed."""

HTTP1: Final = Path(__file__).parent / "http1"

_ESCAPE: Final = re.compile(r"\\(?:([rnt\\])|x([0-9a-f]{2})|\{(.+?)\*([0-9]+)\})")
_NAMED: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}
_KEYS: Final = {
    "case": {"title", "source", "statuses", "closes", "eof", "reason", "requests"},
    "request": {"method", "target", "body", "version", "headers", "expects", "whole"},
}


@dataclass(frozen=True, slots=True)
class ExpectedRequest:
    """A request that the application must see; None where the case does not care."""

    method: str
    target: bytes
    body: bytes = b""
    version: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] | None = None
    expects: bool | None = None
    whole: bool = True
    """False for a request that is refused within its body: how much of it was seen is left open."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file of the corpus."""

    name: str
    title: str
    source: str
    """The section that says so."""
    statuses: tuple[frozenset[int], ...]
    """For each response in order the statuses that are right; interim ones only where the case waits for them."""
    closes: bool | None
    """Whether the connection ends after the last response; None where either is right."""
    requests: tuple[ExpectedRequest, ...]
    steps: tuple[bytes, ...]
    """What the client sends; before each step but the first it waits for a response."""
    eof: bool = False
    """The client ends its input after the last step."""
    reason: str | None = None
    """A pattern that the refusal's reason must contain."""

    @property
    def refused(self) -> frozenset[int]:
        """The statuses of the refusal at the end; empty where nothing is refused."""
        last = self.statuses[-1] if self.statuses else frozenset[int]()
        return last if min(last, default=0) >= 400 else frozenset()


def unescape(text: str) -> bytes:
    r"""Turn the corpus notation into bytes.

    Args:
        text: ASCII with `\r`, `\n`, `\t`, `\\`, `\xNN` and `\{text*N}` (the text N times); real line ends are ignored.

    Raises:
        ValueError: a backslash that begins none of these, or a character outside printable ASCII.
    """
    text = text.replace("\r", "").replace("\n", "")
    parts: list[bytes] = []
    at = 0
    for match in _ESCAPE.finditer(text):
        parts.append(_plain(text[at : match.start()]))
        named, hexadecimal, repeated, count = match.groups()
        if named:
            parts.append(_NAMED[named])
        elif hexadecimal:
            parts.append(bytes.fromhex(hexadecimal))
        else:
            parts.append(unescape(repeated) * int(count))
        at = match.end()
    parts.append(_plain(text[at:]))
    return b"".join(parts)


def _plain(text: str) -> bytes:
    if "\\" in text or not all(" " <= character <= "~" for character in text):
        raise ValueError(f"not in the corpus notation: {text!r}")
    return text.encode("ascii")


def read(path: Path) -> Case:
    """Read one case.

    Raises:
        ValueError: the file is not in the form that README.md describes.
    """
    header, separator, raw = path.read_text(encoding="ascii").partition("\n---\n")
    table = tomllib.loads(header)
    if not separator or not table.keys() <= _KEYS["case"]:
        raise ValueError(f"{path}: no --- line, or a key that is not known")
    return Case(
        name=path.stem,
        title=table["title"],
        source=table["source"],
        statuses=tuple(frozenset(one if isinstance(one, list) else [one]) for one in table["statuses"]),
        closes=table.get("closes"),
        requests=tuple(_request(path, request) for request in table.get("requests", [])),
        steps=tuple(unescape(step) for step in raw.split("\n--- wait\n")),
        eof=table.get("eof", False),
        reason=table.get("reason"),
    )


def _request(path: Path, table: Mapping[str, Any]) -> ExpectedRequest:
    if not table.keys() <= _KEYS["request"]:
        raise ValueError(f"{path}: a key of a request that is not known")
    headers = table.get("headers")
    return ExpectedRequest(
        method=table["method"],
        target=unescape(table["target"]),
        body=unescape(table.get("body", "")),
        version=table.get("version"),
        headers=None if headers is None else tuple((unescape(name), unescape(value)) for name, value in headers),
        expects=table.get("expects"),
        whole=table.get("whole", True),
    )


CASES: Final = tuple(read(path) for path in sorted(HTTP1.glob("*.http")))
