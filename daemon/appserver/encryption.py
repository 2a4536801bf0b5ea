"""The kinds of value that settings of TLS have: where keys and passwords stand, and what is spoken."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appserver.kinds import DURATION, Kind, UnfitError, nearest, parse_word, parse_words

_CREDENTIAL: Final = "credential:"


def anchor(text: str) -> str:
    """Make a path absolute; `credential:NAME` stays what it is."""
    return text if text.startswith(_CREDENTIAL) else str(Path(text).absolute())


@dataclass(frozen=True, slots=True)
class Password:
    """A password, or where it stands; shown only where it is a place."""

    text: str
    """`credential:NAME`, a path that begins with `/`, `./` or `../`, or else the password itself."""

    @property
    def place(self) -> str | None:
        """Where to read it; None where `text` is the password."""
        return self.text if self.text.startswith((_CREDENTIAL, "/", "./", "../")) else None

    def anchored(self) -> "Password":
        """The same with an absolute path, if it is one."""
        return Password(anchor(self.text)) if self.place is not None else self

    def __str__(self) -> str:
        return self.place or "(hidden)"

    def __repr__(self) -> str:
        return f"Password({str(self)!r})"


_CLIENT_CERT: Final = ("none", "optional", "required")


def _client_cert(text: str) -> str:
    # uvicorn and gunicorn take the numbers of ssl.VerifyMode, hypercorn its names.
    word = text.lower().removeprefix("cert_")
    word = _CLIENT_CERT[int(word)] if word in ("0", "1", "2") else word
    if word not in _CLIENT_CERT:
        raise UnfitError(nearest=nearest(word, _CLIENT_CERT))
    return word


# "The best that both know": ssl.PROTOCOL_TLS_SERVER and PROTOCOL_TLS, the defaults of uvicorn and gunicorn, which does
# nothing with it.
_BEST: Final = frozenset({"17", "2", "tls", "tls_server"})


def _tls_version(text: str) -> str:
    if text.lower() in _BEST:
        return "1.2"
    word = text.lower().removeprefix("tlsv").removeprefix("tls").replace("_", ".")
    if word not in ("1.2", "1.3"):
        raise UnfitError("expected 1.2 or 1.3, the least version to speak (17 of uvicorn and 2 of gunicorn mean 1.2)")
    return word


_HSTS_WORDS: Final = ("includeSubDomains", "preload")


def _hsts(text: str) -> str:
    """`365d; preload` to `31536000; preload`, which is what stands behind `max-age=` (RFC 6797 section 6.1)."""
    age, *words = (part.strip() for part in text.split(";"))
    known = {word.lower(): word for word in _HSTS_WORDS}
    unknown = next((word for word in words if word.lower() not in known), None)
    if unknown is not None:
        raise UnfitError(nearest=nearest(unknown, _HSTS_WORDS))
    return "; ".join((str(int(DURATION.parse(age))), *dict.fromkeys(known[word.lower()] for word in words)))


CREDENTIAL: Final = Kind(parse_word, "expected a path or credential:NAME", "PATH")
CREDENTIALS: Final = Kind(
    parse_words,
    "expected paths or credential:NAME, with commas between",
    "PATH",
    many=True,
    show=",".join,
    item=lambda text: (parse_word(text),),
)
PASSWORD: Final = Kind(
    lambda text: Password(parse_word(text)),
    "expected a path, credential:NAME or the password itself",
    "PATH",
    native=(int,),
    secret=True,
)
CLIENT_CERT: Final = Kind(_client_cert, "expected none, optional or required", "none|optional|required", native=(int,))
TLS_VERSION: Final = Kind(_tls_version, "expected 1.2 or 1.3", "1.2|1.3")
HSTS: Final = Kind(
    _hsts,
    'expected a time such as 365d, and "; includeSubDomains" or "; preload" behind it',
    "TIME",
    native=(int, float),
)
CIPHERS: Final = Kind(parse_word, "expected cipher suites as openssl-ciphers(1) writes them", "LIST")
