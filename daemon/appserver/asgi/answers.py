"""What the server answers in its own name, when there is no application's answer to give."""

from typing import Final

from appserver.wire.engine import Headers

ANSWERS: Final = {
    308: b"Permanent Redirect\n",
    400: b"Bad Request\n",
    403: b"Forbidden\n",
    404: b"Not Found\n",
    405: b"Method Not Allowed\n",
    408: b"Request Timeout\n",
    413: b"Content Too Large\n",
    414: b"URI Too Long\n",
    417: b"Expectation Failed\n",
    426: b"Upgrade Required\n",
    431: b"Request Header Fields Too Large\n",
    500: b"Internal Server Error\n",
    501: b"Not Implemented\n",
    503: b"Service Unavailable\n",
    505: b"HTTP Version Not Supported\n",
}
"""The body by status. The reason is for the log: a client that attacks learns nothing here."""

# What to upgrade to (RFC 9110 section 15.5.22), and to which version of it (RFC 6455 section 4.4).
_WEBSOCKET: Final = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-version", b"13")]


def answer_fields(status: int) -> Headers:
    """The fields that go with one of `ANSWERS`."""
    fields = _WEBSOCKET if status == 426 else []
    return [*fields, (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(ANSWERS[status]))]
