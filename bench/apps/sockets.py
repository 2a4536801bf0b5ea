"""WebSockets: an echo, and a room in which everyone hears what anyone says."""

from typing import Final

from bench.apps.protocol import Message, Receive, Scope, Send, live

_room: Final[set[Send]] = set()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """/echo sends each message back; /room sends it to all that are connected there."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    await (_echo if scope["path"] == "/echo" else _join)(receive, send)


async def _echo(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        await send(_answer(message))


async def _join(receive: Receive, send: Send) -> None:
    _room.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            answer = _answer(message)
            for member in tuple(_room):
                await member(answer)
    finally:
        _room.remove(send)


def _answer(message: Message) -> Message:
    text = message.get("text")
    if text is not None:
        return {"type": "websocket.send", "text": text}
    return {"type": "websocket.send", "bytes": message["bytes"]}
