"""The kinds of value that a setting can have: how each is read from text, shown, and described in an error.

A kind is the only place that knows the spelling of a value. Flags and environment variables give text; the TOML file
may give a native value instead (`true`, `8000`, `["a", "b"]`), which `Kind.read` takes by the types the kind names.
Whatever cannot be taken raises `UnfitError`; who called knows the place and makes an `errors.UsageError` of it.

Those of addresses are in `binds`, those of TLS in `encryption`.
"""

import math
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class UnfitError(ValueError):
    """A value that its kind cannot take.

    Args:
        expected: What was expected, in words; None where the kind's own sentence says it all.
        nearest: What was probably meant.
    """

    def __init__(self, expected: str | None = None, nearest: str | None = None) -> None:
        super().__init__(expected or "unfit value")
        self.expected, self.nearest = expected, nearest


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """How the values of some settings are read and shown.

    Attributes:
        parse: Text to value; raises `UnfitError`.
        expected: What is expected, in words that follow "expected".
        metavar: The value's name in the help text; empty for a switch, which takes none.
        native: Types that a TOML value may have besides a string.
        show: Value to the text that `parse` reads back.
        many: A tuple; each occurrence of the flag adds to it, and a TOML array gives it whole.
        text: A TOML string is taken as well.
        secret: Errors do not show the value.
        item: A string of a TOML array to value, where it is not read as text is: a path is taken whole, commas and all.
    """

    parse: Callable[[str], T_co]
    expected: str
    metavar: str
    native: tuple[type, ...] = ()
    # Any value of the kind: a callable that takes T_co would make the class invariant.
    show: Callable[..., str] = field(default=str)
    many: bool = False
    text: bool = True
    secret: bool = False
    item: Callable[[str], T_co] | None = None

    @property
    def switch(self) -> bool:
        """True for a flag without a value: `--x` and `--no-x`."""
        return not self.metavar

    def read(self, raw: object) -> T_co:
        """Read a TOML value.

        Raises:
            UnfitError: The type or the value does not fit.
        """
        if self.many and isinstance(raw, list):
            texts = [item for item in raw if isinstance(item, str)]
            if len(texts) != len(raw):
                raise UnfitError(f"expected an array of strings, each {self.expected}")
            return self.join(map(self.item or self.parse, texts))
        if isinstance(raw, str) and self.text:
            return self.parse(raw)
        # In Python True is an int; in a settings file `port = true` is a mistake.
        if type(raw) not in self.native:
            raise UnfitError
        if isinstance(raw, float):
            return self.parse(format(raw, "f"))  # str() would write 1e-05, which is no spelling of ours
        return self.parse(str(raw).lower())

    def write(self, value: Any) -> object:
        """Write a value as a TOML or JSON value that `read` takes back; None where it is unset."""
        if value is None or isinstance(value, str) or type(value) in self.native:
            return value
        return [self.show((item,)) for item in value] if self.many else self.show(value)

    def join(self, values: Iterable[T_co]) -> T_co:
        """Make one value of several occurrences: all of them for `many`, else the last."""
        occurrences = list(values)
        if not self.many:
            return occurrences[-1]
        return tuple(item for value in occurrences for item in value)  # type: ignore[return-value,attr-defined]


def nearest(name: str, known: Iterable[str], alike: float = 0.6) -> str | None:
    """Find the known name that `name` was probably meant to be; `alike` is from 0 for all to 1 for the same."""
    import difflib  # noqa: PLC0415 - for mistakes only: 2 ms of every start

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=alike)), None)


# --- numbers ----------------------------------------------------------------------------------------------------------

_SIZE: Final = re.compile(r"([0-9]+) ?(?:([kmgt])(?:ib)?)?", re.IGNORECASE)
_SIZE_STEPS: Final = "kmgt"
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([a-z]*)", re.IGNORECASE)
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_integer(text: str, low: int, high: int) -> int:
    """Read a whole number between two bounds, both included."""
    # int() alone would take "1_0", " 8", "+8" and digits of other scripts. 20 digits bound the work it does.
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and low <= int(text) <= high):
        raise UnfitError
    return int(text)


def integer(low: int, high: int, expected: str, metavar: str = "N") -> Kind[int]:
    """Make the kind of a whole number between two bounds, both included."""
    return Kind(lambda text: parse_integer(text, low, high), f"expected {expected}", metavar, native=(int,), text=False)


def size(low: int, high: int, expected: str) -> Kind[int]:
    """Make the kind of a number of bytes; suffixes are powers of 1024, as systemd and nginx read them."""

    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text)
        if match is None or len(match[1]) > 20:
            raise UnfitError
        value = int(match[1]) << 10 * (_SIZE_STEPS.index(match[2].lower()) + 1 if match[2] else 0)
        if not low <= value <= high:
            raise UnfitError
        return value

    return Kind(parse, f"expected {expected}: 8192, 64K, 1M", "SIZE", native=(int,), show=show_size)


def show_size(value: int) -> str:
    """Write a number of bytes with the largest suffix that keeps it whole: 8192 is `8K`."""
    step = 0
    while value and value % 1024 == 0 and step < len(_SIZE_STEPS):
        value, step = value // 1024, step + 1
    return f"{value}{_SIZE_STEPS[step - 1].upper() if step else ''}"


def duration(*, zero: bool) -> Kind[float]:
    """Make the kind of a time in seconds: `5`, `1.5`, `500ms`, `10min`, `2h` (units of systemd.time(7)).

    Args:
        zero: Whether 0 can be taken.
    """

    def parse(text: str) -> float:
        match = _DURATION.fullmatch(text)
        if match is None or match[2].lower() not in _SECONDS:
            raise UnfitError
        value = float(match[1]) * _SECONDS[match[2].lower()]
        if not math.isfinite(value) or value > 10 * 365 * 86400 or (value == 0 and not zero):
            raise UnfitError
        return value

    bound = "0 or more" if zero else "more than 0"
    return Kind(
        parse,
        f"expected a time of {bound}: 5, 1.5, 500ms, 10min, 2h",
        "TIME",
        native=(int, float),
        show=lambda value: f"{value:g}",
    )


def parse_mode(text: str) -> int:
    """Read permission bits, octal as chmod(1) reads them."""
    if not re.fullmatch(r"(?:0o)?[0-7]{3,4}", text) or int(text.removeprefix("0o"), 8) > 0o777:
        raise UnfitError
    return int(text.removeprefix("0o"), 8)


# --- words ------------------------------------------------------------------------------------------------------------

_SWITCH: Final = {
    word: value for value, words in {True: "1 true yes on", False: "0 false no off"}.items() for word in words.split()
}
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING: Final = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade", "trailer"})


def choice(*words: str) -> Kind[str]:
    """Make the kind of one word out of several; case does not matter."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise UnfitError(nearest=nearest(text.lower(), words))
        return text.lower()

    return Kind(parse, f"expected one of {', '.join(words)}", "|".join(words))


def _switch(text: str) -> bool:
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise UnfitError from None


def _workers(text: str) -> int:
    if text.lower() == "auto":
        return _count_cpus()
    return parse_integer(text, 1, 512)


def _count_cpus() -> int:
    """CPUs that this process may use: those of its affinity, and of its control group's quota (cgroups(7), cpu.max)."""
    count = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
        quota, period = Path(f"/sys/fs/cgroup{group}/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, math.ceil(int(quota) / int(period))))
    return count


# uvicorn's names for its implementations; there is one here.
_WS: Final = dict.fromkeys(("auto", "websockets", "websockets-sansio", "wsproto"), "auto") | {"none": "none"}
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:\*\.)?(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?|null|\*")


def _ws(text: str) -> str:
    try:
        return _WS[text.lower()]
    except KeyError:
        raise UnfitError(nearest=nearest(text.lower(), _WS)) from None


def _origin_list(text: str) -> tuple[str, ...]:
    origins = parse_words(text.lower())
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise UnfitError
    return origins


_STATSD_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]*")
# What would end a tag, or the line: https://docs.datadoghq.com/developers/dogstatsd/datagram_shell.
_DOGSTATSD_TAGS: Final = re.compile(r"(?:[^|#,\s]+(?:,[^|#,\s]+)*)?")


def _match(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise UnfitError
    return text


def parse_word(text: str) -> str:
    """Read any text but none."""
    if not text or "\0" in text:
        raise UnfitError
    return text


def parse_words(text: str) -> tuple[str, ...]:
    """Read several, with commas between."""
    return tuple(parse_word(item.strip()) for item in text.split(",") if item.strip())


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if path and not path.startswith("/"):
        raise UnfitError(nearest=f"/{path}")
    return path


def _header_list(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(_header(line.strip(" \t")) for line in text.split("\n") if line.strip(" \t"))


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    value = value.strip(" \t")
    if not colon or not _TOKEN.fullmatch(name):
        raise UnfitError
    if name.lower() in _FRAMING:
        raise UnfitError(f"expected a field other than {name}, which belongs to each response alone")
    # RFC 9110 section 5.5: visible characters, obs-text, space and tab.
    if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
        raise UnfitError("expected a value without control characters, in ISO 8859-1")
    return name, value


def _peer_list(text: str) -> tuple[str, ...]:
    return tuple(_peer(item.strip()) for item in text.split(",") if item.strip())


def _peer(text: str) -> str:
    if text in ("*", "unix"):
        return text
    import ipaddress  # noqa: PLC0415 - 3 ms that the default list need not pay

    try:
        return str(ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text))
    except ValueError:
        pass
    try:  # 10.0.0.1/8: an address where a network was meant
        meant = str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        meant = None
    raise UnfitError(nearest=meant)


APP: Final = Kind(parse_word, "expected module:attribute, module:factory() or a file's path", "APP")
PATH: Final = Kind(parse_word, "expected a path", "PATH")
FOLDER: Final = Kind(parse_word, "expected a folder's path", "FOLDER")
USER: Final = Kind(parse_word, "expected a user's name or number", "USER")
GROUP: Final = Kind(parse_word, "expected a group's name or number", "GROUP")
ROOT_PATH: Final = Kind(_root_path, "expected a path that starts with /", "PATH")
SWITCH: Final = Kind(
    _switch, "expected true or false", "", native=(bool,), show=lambda value: "true" if value else "false", text=False
)
WORKERS: Final = Kind(_workers, "expected a number from 1 to 512, or auto", "N", native=(int,), show=str)
WS: Final = Kind(
    _ws,
    "expected auto or none",
    "auto|none",
)
ORIGINS: Final = Kind(
    _origin_list,
    "expected origins as browsers send them: https://example.org, http://localhost:8080, https://*.example.org, null",
    "ORIGIN",
    many=True,
    show=",".join,
)
BOOLEAN: Final = Kind(
    _switch,
    "expected true or false",
    "true|false",
    native=(bool,),
    show=lambda value: "true" if value else "false",
    text=False,
)
PORT: Final = integer(0, 65535, "a port number from 0 to 65535", "PORT")
FD: Final = integer(0, 2**31 - 1, "a file descriptor's number", "N")
# Only a string in TOML: in `uds_mode = 440` the digits are decimal, and mean 0670.
MODE: Final = Kind(
    parse_mode, 'expected octal permission bits such as "0660"', "MODE", show=lambda value: f"{value:04o}"
)
DURATION: Final = duration(zero=True)
DEADLINE: Final = duration(zero=False)
STATSD_PREFIX: Final = Kind(
    lambda text: _match(_STATSD_PREFIX, text).rstrip("."), "expected letters, digits, dots, - and _", "NAME"
)
DOGSTATSD_TAGS: Final = Kind(
    lambda text: _match(_DOGSTATSD_TAGS, text), "expected tags with commas between: env:prod,shop", "TAGS"
)
HEADERS: Final = Kind(
    _header_list,
    "expected Name: value",
    "FIELD",
    many=True,
    show=lambda value: "\n".join(f"{name}: {text}" for name, text in value),
)
PEERS: Final = Kind(
    _peer_list,
    'expected addresses, networks (10.0.0.0/8), "unix" or "*", with commas between',
    "PEERS",
    many=True,
    show=",".join,
)
