"""What an application may send of a response, and when.

The messages are the inputs of a state machine, `TRANSITIONS`: it says what is done with one (`asgi.response`) and what
comes next. Everything that is not in the table is misuse, answered with what was expected.

    AWAITED ──start──▶ HELD ──last──▶ COMPLETE
                        └──more──▶ STREAMING ──more──▶ STREAMING ──last──▶ COMPLETE

The start is held until the first body message (the ASGI specification asks for that), so that a small answer is one
write, and so that an application which fails right after its start still gets its client a 500.

A file may take the place of a body message (`asgi.files`). Until it has left, the response is SENDING, where no message
is taken; then comes what the table says. A file that does not leave whole cuts the response.

Where the start has announced trailers, the end of the body is an input of its own, and the response is TRAILING until
the last of them has come.
"""

from collections.abc import Callable
from typing import Any, Final

from appserver.asgi.cycle import COMPLETE
from appserver.asgi.files import File
from appserver.asgi.response import Response
from appserver.asgi.scope import PUSH
from appserver.asgi.types import Message

# States of the response. Strings, because an Enum's hash is a Python call and the table is asked for every message.
AWAITED: Final = "awaited"
HELD: Final = "held"
STREAMING: Final = "streaming"
SENDING: Final = "sending"
TRAILING: Final = "trailing"

# Inputs: the messages an application may send, with those that end something told apart.
START: Final = "http.response.start"
MORE: Final = "http.response.body with more_body"
LAST: Final = "http.response.body"
LAST_OF_BODY: Final = "http.response.body before trailers"
FILE_MORE: Final = "http.response.zerocopysend with more_body"
FILE_LAST: Final = "http.response.zerocopysend"
FILE_LAST_OF_BODY: Final = "http.response.zerocopysend before trailers"
PATH: Final = "http.response.pathsend"
PATH_BEFORE: Final = "http.response.pathsend before trailers"
TRAILERS_MORE: Final = "http.response.trailers with more_trailers"
TRAILERS: Final = "http.response.trailers"
HINT: Final = "http.response.early_hint"

TRANSITIONS: Final[dict[tuple[str, str], tuple[Callable[[Response, Message], File | None], str]]] = {
    (AWAITED, START): (Response.hold, HELD),
    (HELD, LAST): (Response.reply, COMPLETE),
    (HELD, LAST_OF_BODY): (Response.reply, TRAILING),
    (HELD, MORE): (Response.open, STREAMING),
    (STREAMING, MORE): (Response.extend, STREAMING),
    (STREAMING, LAST): (Response.close, COMPLETE),
    (STREAMING, LAST_OF_BODY): (Response.close, TRAILING),
    (HELD, PATH): (Response.open_with_path, COMPLETE),
    (HELD, PATH_BEFORE): (Response.open_with_path, TRAILING),
    (HELD, FILE_LAST): (Response.open_with_file, COMPLETE),
    (HELD, FILE_LAST_OF_BODY): (Response.open_with_file, TRAILING),
    (HELD, FILE_MORE): (Response.open_with_file, STREAMING),
    (STREAMING, FILE_MORE): (Response.extend_by_file, STREAMING),
    (STREAMING, FILE_LAST): (Response.extend_by_file, COMPLETE),
    (STREAMING, FILE_LAST_OF_BODY): (Response.extend_by_file, TRAILING),
    (TRAILING, TRAILERS_MORE): (Response.collect, TRAILING),
    (TRAILING, TRAILERS): (Response.trail, COMPLETE),
    (AWAITED, HINT): (Response.hint, AWAITED),
    (HELD, HINT): (Response.hint, HELD),
    (STREAMING, HINT): (Response.forget_hint, STREAMING),
    (AWAITED, PUSH): (Response.promise, AWAITED),
    (HELD, PUSH): (Response.promise, HELD),
    (STREAMING, PUSH): (Response.promise, STREAMING),
}

_WITH_MORE: Final = {FILE_LAST: ("more_body", FILE_MORE), TRAILERS: ("more_trailers", TRAILERS_MORE)}
_BEFORE_TRAILERS: Final = {FILE_LAST: FILE_LAST_OF_BODY, PATH: PATH_BEFORE}


def specify(kind: Any, message: Message, *, trailers: bool) -> Any:
    """The input that a message is, of those that are neither `START` nor a body message; what is none comes back.

    Args:
        kind: The message's type.
        message: All of it.
        trailers: The start has announced some.
    """
    flag, with_more = _WITH_MORE.get(kind, ("", kind))
    if message.get(flag, False):
        return with_more
    return _BEFORE_TRAILERS.get(kind, kind) if trailers else kind


def expected(state: str) -> list[str]:
    """The messages that may come in a state, as the specification names them."""
    return list(dict.fromkeys(kind.split()[0] for (known, kind) in TRANSITIONS if known == state))


def expectation(state: str) -> str:
    """The same in words."""
    if state == SENDING:
        return "nothing until the file has been sent: send() is to be awaited"
    return " or ".join(expected(state)) or "nothing more"
