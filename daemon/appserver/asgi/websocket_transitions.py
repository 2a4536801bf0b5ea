"""What an application may send on a WebSocket, and when.

    CONNECTING ──accept──▶ OPEN ──send──▶ OPEN ──close──▶ CLOSED ──the client's Close──▶ COMPLETE
        ├── close ──▶ COMPLETE   answered with 403
        └── http.response.start ──▶ HELD ──▶ … ──▶ COMPLETE   denied in the application's own words

The denial is a response as of any request, without files and trailers (`asgi.transitions`).
"""

from collections.abc import Callable
from typing import Any, Final

from appserver.asgi.channel import Channel
from appserver.asgi.cycle import COMPLETE
from appserver.asgi.response import Response
from appserver.asgi.transitions import HELD, STREAMING
from appserver.asgi.types import Message

CONNECTING: Final = "connecting"
OPEN: Final = "open"
CLOSED: Final = "closed"

ACCEPT: Final = "websocket.accept"
SEND: Final = "websocket.send"
CLOSE: Final = "websocket.close"
DENY: Final = "websocket.http.response.start"
MORE: Final = "websocket.http.response.body with more_body"
LAST: Final = "websocket.http.response.body"

TRANSITIONS: Final[dict[tuple[str, str], tuple[Callable[[Channel, Message], None], str]]] = {
    (CONNECTING, ACCEPT): (Channel.accept, OPEN),
    (OPEN, SEND): (Channel.emit, OPEN),
    (OPEN, CLOSE): (Channel.finish, CLOSED),
    (CONNECTING, CLOSE): (Channel.forbid, COMPLETE),
    (CONNECTING, DENY): (Channel.deny, HELD),
    (HELD, LAST): (Response.reply, COMPLETE),
    (HELD, MORE): (Response.open, STREAMING),
    (STREAMING, MORE): (Response.extend, STREAMING),
    (STREAMING, LAST): (Response.close, COMPLETE),
}


def specify(kind: Any, message: Message) -> Any:
    """The input that a message is; what is none comes back."""
    return MORE if kind == LAST and message.get("more_body", False) else kind


def expectation(state: str) -> str:
    """The messages that may come in a state, in words."""
    return (
        " or ".join(dict.fromkeys(kind.split()[0] for known, kind in TRANSITIONS if known == state)) or "nothing more"
    )
