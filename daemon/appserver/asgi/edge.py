"""What is answered before the application: ACME challenges, and plain HTTP with its address under HTTPS.

Both are there only where they are configured: otherwise `wrap()` gives the application back as it is.

A challenge (RFC 8555 section 8.3) is answered on every listener and before any redirect, so that a renewal does not
hang on the certificate that it is to replace. The paths below `CHALLENGES` then belong to the folder alone: what is
not in it is 404. An application that answers every path with its start page and 200 would hide that the file is
missing, and the operator would read in certbot's report that the page is no key authorization.
"""

import os
import re
from collections.abc import Awaitable
from contextlib import ExitStack
from errno import EFBIG, EINVAL
from stat import S_ISREG
from typing import Final

from appserver.asgi.answers import ANSWERS, answer_fields
from appserver.asgi.types import Application, Receive, Scope, Send
from appserver.telemetry.log import Log

CHALLENGES: Final = "/.well-known/acme-challenge/"

HTTPS_PORT: Final = 443
"""The port of `https` addresses that name none (RFC 9110 section 4.2.2)."""

# RFC 8555 section 8.3: the base64url alphabet and nothing else, which leaves no room for "..", "/" or a hidden file.
# The length is that of a file's name.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")

_AUTHORIZATION_LIMIT: Final = 1024
"""Bytes. A key authorization is the token, a dot and 43 characters (RFC 8555 section 8.1)."""

# RFC 3986 section 3.2.2, without the percent-encoding and punctuation that no name in the DNS has: what the client
# names goes into the answer.
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]+)(?::[0-9]*)?")


def wrap(application: Application, log: Log, *, https_port: int | None, acme_dir: str | None) -> Application:
    """Put in front of an application what is answered before it.

    Args:
        application: Gets every request that is not answered here.
        log: For challenges that cannot be read.
        https_port: Where the same host is served by HTTPS: requests by HTTP are redirected there. None: they are not.
        acme_dir: What certbot calls `--webroot-path`: challenges are files in `.well-known/acme-challenge` in it.
            None: they are the application's.

    Returns:
        An ASGI application; the same one if there is nothing to put in front.
    """
    if https_port is None and acme_dir is None:
        return application

    def edge(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            if acme_dir is not None:
                path: str = scope["path"].removeprefix(scope["root_path"])
                if path.startswith(CHALLENGES):
                    return _answer_challenge(scope["method"], acme_dir, path.removeprefix(CHALLENGES), send, log)
            # The scheme is the client's: a trusted proxy has told which one it was, if there is a proxy.
            if https_port is not None and scope["scheme"] == "http":
                return _redirect(scope, https_port, send)
        elif scope["type"] == "websocket" and https_port is not None and scope["scheme"] == "ws":
            return send({"type": "websocket.close"})  # no browser follows a redirect of one
        return application(scope, receive, send)

    return edge


async def _answer_challenge(method: str, folder: str, token: str, send: Send, log: Log) -> None:
    if method not in ("GET", "HEAD"):
        await _answer(send, 405, (b"allow", b"GET, HEAD"))
        return
    authorization = None
    if _TOKEN.fullmatch(token):
        try:
            authorization = read_challenge(folder, token)
        except OSError as error:
            # Anybody may ask for a token that there is not. Anything else keeps a certificate from being renewed.
            if not isinstance(error, FileNotFoundError) or error.filename == folder:
                log.warning(f"The ACME challenge {token} cannot be answered: {error}")
    if authorization is None:
        await _answer(send, 404)
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(authorization))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": authorization})


def read_challenge(folder: str, token: str) -> bytes:
    """Read the key authorization that an ACME client has put down.

    Below the folder no symbolic link is followed: who may write there does not get to choose what else is shown.

    Args:
        folder: certbot's `--webroot-path`.
        token: A file's name without a slash.

    Raises:
        FileNotFoundError: There is no such challenge.
        OSError: It cannot be read, is no regular file, or is too long for a key authorization.
    """
    with ExitStack() as opened:

        def descend(name: str, flags: int, parent: int | None = None) -> int:
            descriptor = os.open(name, flags, dir_fd=parent)
            opened.callback(os.close, descriptor)
            return descriptor

        place = descend(folder, os.O_PATH | os.O_DIRECTORY)
        for name in CHALLENGES.strip("/").split("/"):
            place = descend(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, place)
        # A FIFO without a writer must not hold the event loop until it is seen to be no regular file.
        file = descend(token, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, place)
        if not S_ISREG(os.fstat(file).st_mode):
            raise OSError(EINVAL, "only a regular file can be a challenge", token)
        authorization = os.read(file, _AUTHORIZATION_LIMIT + 1)
    if len(authorization) > _AUTHORIZATION_LIMIT:
        raise OSError(EFBIG, f"a key authorization is not longer than {_AUTHORIZATION_LIMIT} bytes", token)
    return authorization


async def _redirect(scope: Scope, port: int, send: Send) -> None:
    """Name the same resource under HTTPS; 308, so that a POST stays one (RFC 9110 section 15.4.9)."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    host = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if host is None:
        await _answer(send, 400)  # HTTP/1.0 without a Host as well: there is no address to name
        return
    authority: bytes = host[1] if port == HTTPS_PORT else b"%b:%d" % (host[1], port)
    # `OPTIONS *` asks about the server; as an address that has an empty path (RFC 9112 section 3.2.4).
    path: bytes = b"" if scope["raw_path"] == b"*" else scope["raw_path"]
    query: bytes = b"?" + scope["query_string"] if scope["query_string"] else b""
    await _answer(send, 308, (b"location", b"https://" + authority + path + query))


async def _answer(send: Send, status: int, *more: tuple[bytes, bytes]) -> None:
    headers = [*answer_fields(status), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWERS[status]})
