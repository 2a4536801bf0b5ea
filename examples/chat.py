"""A chat of one room: every message goes to everybody. Open the page in two windows.

The room is in the memory of one process: with several workers there would be as many rooms.
"""

import asyncio
from collections.abc import Awaitable, Callable

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>chat</title>
<form><input autofocus></form>
<pre></pre>
<script>
const log = line => document.querySelector("pre").append(line + "\\n");
const socket = new WebSocket(location.href.replace("http", "ws"));
socket.onmessage = event => log(event.data);
socket.onclose = event => log("closed: " + event.code + " " + event.reason);
document.querySelector("form").onsubmit = event => {
  event.preventDefault();
  socket.send(event.target[0].value);
  event.target.reset();
};
</script>
"""

room: set[Callable[[dict], Awaitable[None]]] = set()


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": PAGE})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        room.add(send)
        try:
            while (message := await receive())["type"] == "websocket.receive":
                await say(message.get("text") or "(no text)")
        finally:
            room.discard(send)
    else:
        raise NotImplementedError(scope["type"])


async def say(text):
    message = {"type": "websocket.send", "text": text}
    # Who is gone raises OSError, and is taken out by its own call. Who is slow keeps nobody but the speaker waiting.
    await asyncio.gather(*(send(message) for send in room), return_exceptions=True)
