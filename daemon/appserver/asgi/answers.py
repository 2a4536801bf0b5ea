"""What the server answers in its own name, when there is no application's answer to give."""

from typing import Final

from appserver.wire.engine import Headers

ANSWERS: Final = {
    308: b"Permanent Redirect\n",
    400: b"Bad Request\n",
    404: b"Not Found\n",
    405: b"Method Not Allowed\n",
    408: b"Request Timeout\n",
    413: b"Content Too Large\n",
    414: b"URI Too Long\n",
    417: b"Expectation Failed\n",
    431: b"Request Header Fields Too Large\n",
    500: b"Internal Server Error\n",
    501: b"Not Implemented\n",
    503: b"Service Unavailable\n",
    505: b"HTTP Version Not Supported\n",
}
"""The body by status. The reason is for the log: a client that attacks learns nothing here."""


def answer_fields(status: int) -> Headers:
    """The fields that go with one of `ANSWERS`."""
    return [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(ANSWERS[status]))]
