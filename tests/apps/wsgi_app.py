"""A WSGI application that behaves as its path says, watched by the reference validator where `validated` is named."""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias
from wsgiref.validate import validator

Environ: TypeAlias = dict[str, Any]
Start: TypeAlias = Callable[..., Any]

LOG: Final = logging.getLogger("shop")
TEXT: Final = [("Content-Type", "text/plain")]
CLOSED: Final[list[str]] = []


class Watched:
    """Pieces, and a record when they are closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        LOG.info("closed")


def tell(environ: Environ, start: Start) -> Iterable[bytes]:
    told = {key: value for key, value in environ.items() if isinstance(value, str | int | bool)}
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({**told, "pid": os.getpid(), "threads": threading.active_count()}).encode()]


def digest(environ: Environ, start: Start) -> Iterable[bytes]:
    total, sum_ = 0, hashlib.sha256()
    while piece := environ["wsgi.input"].read(100_000):
        total += len(piece)
        sum_.update(piece)
    start("200 OK", TEXT)
    return [f"{total} {sum_.hexdigest()}".encode()]


def stream(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    count, wait = map(float, environ["QUERY_STRING"].split(","))

    def pieces() -> Iterator[bytes]:
        for number in range(int(count)):
            yield b"%d\n" % number
            time.sleep(wait)

    return Watched(pieces())


def large(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return Watched(bytes(65536) for _ in range(int(environ["QUERY_STRING"])))


def wait(environ: Environ, start: Start) -> Iterable[bytes]:
    LOG.info("begun")
    time.sleep(float(environ["QUERY_STRING"]))
    start("200 OK", TEXT)
    return [b"waited"]


def file(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    found = Path(environ["QUERY_STRING"]).open("rb")  # noqa: SIM115 - the server closes it
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](found)
    return wrapped


def fail(environ: Environ, start: Start) -> Iterable[bytes]:
    raise RuntimeError("no database")


def complain(environ: Environ, start: Start) -> Iterable[bytes]:
    print("something is odd", file=environ["wsgi.errors"])
    LOG.warning("and said otherwise")
    start("200 OK", TEXT)
    return [b"complained"]


ROUTES: Final = {one.__name__: one for one in (tell, digest, stream, large, wait, file, fail, complain)}


def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
    return ROUTES.get(environ["PATH_INFO"].strip("/"), tell)(environ, start_response)


validated: Final = validator(app)
