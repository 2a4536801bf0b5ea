"""Parse what a server wrote, with h11 in the client's role: code that shares nothing with the server's side."""

from collections.abc import Iterable
from dataclasses import dataclass

import h11


@dataclass(frozen=True, slots=True)
class Response:
    """One response, interim ones included; `body` without its framing."""

    status: int
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()

    def values(self, name: bytes) -> list[bytes]:
        """All values of one field, in order."""
        return [value for key, value in self.headers if key == name]


def parse(raw: bytes, methods: Iterable[str], *, ended: bool) -> tuple[list[Response], bytes]:
    """Parse the responses in `raw`.

    Args:
        raw: Everything the server wrote so far.
        methods: The method of each request, in order (a response to HEAD has no body); GET once they run out.
        ended: Whether the server has closed: what ends with the connection is then whole.

    Returns:
        The whole responses, and the bytes behind them that are not a whole response yet.

    Raises:
        h11.RemoteProtocolError: The bytes are no HTTP/1 response, or one is cut short by the end.
    """
    responses: list[Response] = []
    queue = list(methods)
    while raw:
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        client.send(h11.Request(method=queue.pop(0) if queue else "GET", target="/", headers=[("Host", "a.example")]))
        client.send(h11.EndOfMessage())
        client.receive_data(raw)
        if ended:
            client.receive_data(b"")
        found = _next(client)
        if not found:
            break
        responses += found
        raw = client.trailing_data[0]
    return responses, raw


def _next(client: h11.Connection) -> list[Response]:
    """The next final response with the interim ones before it; nothing while it is not whole."""
    interim: list[Response] = []
    head: h11.Response | None = None
    body = bytearray()
    while True:
        event = client.next_event()
        if isinstance(event, h11.InformationalResponse):
            interim.append(_response(event))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return [*interim, _response(head, bytes(body), tuple(event.headers))]
        else:
            return []


def _response(
    head: h11.Response | h11.InformationalResponse,
    body: bytes = b"",
    trailers: tuple[tuple[bytes, bytes], ...] = (),
) -> Response:
    return Response(head.status_code, head.http_version.decode(), tuple(head.headers), body, trailers)
