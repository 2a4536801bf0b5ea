"""The environ of a WSGI request (https://peps.python.org/pep-3333/#environ-variables), made of its ASGI scope.

Text in it is bytes in disguise: each character stands for the byte of its number (latin-1), whatever the bytes mean.
"""

import re
from collections.abc import Mapping
from typing import IO, Any, Final
from urllib.parse import unquote_to_bytes

from appserver.asgi.types import Scope

_BARE: Final = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
"""The two fields that CGI has under their own names (RFC 3875 section 4.1)."""

_KNOWN_LIMIT: Final = 1024
"""Field names that are remembered: a client could send others for ever."""

_HOST: Final = re.compile(r"(.*?)(?::([0-9]*))?", re.DOTALL)

_PORTS: Final = {"http": "80", "https": "443"}

# None for what is left out. A name with an underscore would look like one with a hyphen that a proxy has set; and
# programs that the application starts take HTTP_PROXY for their own (https://httpoxy.org).
_keys: Final[dict[bytes, str | None]] = {**_BARE, b"proxy": None}


def make_environ(scope: Scope, body: IO[bytes], errors: object, constants: Mapping[str, Any]) -> dict[str, Any]:
    """Make the environ of one request.

    Args:
        scope: Of type `http`.
        body: `wsgi.input`.
        errors: `wsgi.errors`.
        constants: What is the same for every request.
    """
    raw_path: bytes = scope["raw_path"]
    query = scope["query_string"].decode("latin-1")
    target = raw_path.decode("latin-1")
    mounted: bytes = scope["root_path"].encode()
    path = unquote_to_bytes(raw_path)
    scheme, client = scope["scheme"], scope["client"]
    uri = f"{target}?{query}" if query else target
    environ: dict[str, Any] = {
        **constants,
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": mounted.decode("latin-1"),
        # `OPTIONS *` has no path: an empty one, or one that begins with a slash, is all that CGI knows.
        "PATH_INFO": "" if path == b"*" else path.removeprefix(mounted).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": uri,
        "RAW_URI": uri,
        "SERVER_PROTOCOL": "HTTP/" + (scope["http_version"] if "." in scope["http_version"] else "2.0"),
        "REMOTE_ADDR": "",
        "wsgi.url_scheme": scheme,
        "wsgi.input": body,
        "wsgi.errors": errors,
        "appserver.request_id": scope["state"]["request_id"],
    }
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    for name, value in scope["headers"]:
        try:
            key = _keys[name]
        except KeyError:
            key = _learn(name)
        if key is None:
            continue
        text = value.decode("latin-1")
        if key in environ:
            # RFC 9110 section 5.3; that of Cookie is the one field with a separator of its own (RFC 6265 section 5.4).
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        environ[key] = text
    server = scope["server"]
    if server is not None and server[1] is not None:
        # RFC 3875 section 4.1.14: with brackets, as in an address.
        environ["SERVER_NAME"] = f"[{server[0]}]" if ":" in server[0] else server[0]
        environ["SERVER_PORT"] = str(server[1])
    else:
        # A UNIX socket has neither, and both must be there: what the client has asked for.
        found = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
        name, port = found.groups() if found else ("", None)
        environ["SERVER_NAME"], environ["SERVER_PORT"] = name or "localhost", port or _PORTS[scheme]
    return environ


def _learn(name: bytes) -> str | None:
    key = None if b"_" in name else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_keys) < _KNOWN_LIMIT:
        _keys[name] = key
    return key
