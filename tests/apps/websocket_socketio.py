"""A Socket.IO server: echoes, acknowledgements, rooms, and why clients go."""

import logging
from typing import Any, Final

import socketio

LOG: Final = logging.getLogger("shop")

server = socketio.AsyncServer(async_mode="asgi", ping_interval=1, ping_timeout=5)
app = socketio.ASGIApp(server)


@server.event  # type: ignore[untyped-decorator]
async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
    if auth == {"ticket": "none"}:
        raise socketio.exceptions.ConnectionRefusedError("no ticket")
    LOG.warning("came", extra={"sid": sid, "query": environ["QUERY_STRING"]})


@server.event  # type: ignore[untyped-decorator]
async def disconnect(sid: str, reason: str) -> None:
    LOG.warning("gone", extra={"sid": sid, "reason": reason})


@server.event  # type: ignore[untyped-decorator]
async def echo(_sid: str, data: Any) -> Any:
    """What comes back is the acknowledgement."""
    return data


@server.event  # type: ignore[untyped-decorator]
async def join(sid: str, room: str) -> str:
    await server.enter_room(sid, room)
    return str(server.transport(sid))


@server.event  # type: ignore[untyped-decorator]
async def say(_sid: str, room: str, text: Any) -> None:
    await server.emit("said", (room, text), room=room)


@server.event  # type: ignore[untyped-decorator]
async def expel(sid: str) -> None:
    await server.disconnect(sid)
