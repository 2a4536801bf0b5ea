"""A WSGI application, as a service serves it: with the validator of Debian's own Python around it."""

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.validate import validator


def ledger(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    print("one more entry", file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    said = [environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"], threading.current_thread().name]
    return [" ".join(said).encode()]


app = validator(ledger)
