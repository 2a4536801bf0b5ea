"""A response on its way: what the application sends is checked, counted and handed to the peer.

These are the actions of the table in `asgi.http`, which says when each of them may come. An action that finds a mistake
raises `MisuseError` and has sent nothing; one that gives back a `File` leaves its sending, which takes time, to the
caller.
"""

from typing import Final

from appserver.asgi.cycle import Cycle
from appserver.asgi.fields import check_fields, check_links, check_promise, check_trailers, takes_trailers
from appserver.asgi.files import File, open_file, open_path
from appserver.asgi.scope import PUSH, make_target
from appserver.asgi.types import Message
from appserver.errors import MisuseError
from appserver.wire.engine import Headers

EARLY_HINTS: Final = 103


class Response(Cycle):
    """What has been sent of one response.

    Attributes:
        trailers: Those that the application has given so far; None unless it has announced some.
    """

    __slots__ = ("_bodiless", "_held", "_left", "trailers")

    trailers: Headers | None

    # From hold() on
    _bodiless: bool
    _held: Headers
    _left: int | None

    # The head

    def hold(self, message: Message) -> None:
        """Keep the head until it is known how the body begins."""
        status = message.get("status")
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise MisuseError(f"status must be a number from 200 to 999, not {status!r}")
        self._held, self._left = check_fields(message.get("headers") or (), self.service.fields)
        self.status = status
        self._bodiless = self.head.method == "HEAD" or status in (204, 304)
        if status == 205:  # RFC 9110 section 15.3.6: it says that it has no content
            if self._left:
                raise MisuseError("a 205 response has no body, and its content-length is not 0")
            self._left = 0
        if message.get("trailers", False):
            self.trailers = []

    # The body. The last of it ends the response, unless trailers do.

    def reply(self, message: Message) -> None:
        """Send the head and all of the body."""
        body = self._content(message, last=True)
        self.peer.respond(self.head.stream, self.status, self._held, body, self.trailers is None)

    def open(self, message: Message) -> None:
        """Send the head and the first bytes of the body."""
        body = self._content(message, last=False)
        self.peer.respond(self.head.stream, self.status, self._held, body, False)

    def extend(self, message: Message) -> None:
        """Send more of the body."""
        self.peer.body(self.head.stream, self._content(message, last=False), False)

    def close(self, message: Message) -> None:
        """Send the last bytes of the body."""
        self.peer.body(self.head.stream, self._content(message, last=True), self.trailers is None)

    def _content(self, message: Message, *, last: bool) -> bytes:
        """The bytes to send of a body message, counted against Content-Length."""
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            if not isinstance(body, (bytearray, memoryview)):
                raise MisuseError(f"body must be bytes, not {type(body).__name__}")
            body = bytes(body)
        size = len(body)
        if last and size == self._left and not self._bodiless:
            self._left = 0  # what most answers are: all of the body at once, and as long as it was said to be
        elif not self._admit(size, last=last):
            return b""
        self.sent += size
        return body

    def _admit(self, size: int, *, last: bool) -> bool:
        """Count bytes of the body against Content-Length; False where none are sent."""
        if self._bodiless:
            # What would be the body of a GET is dropped in silence for HEAD, as frameworks count on it.
            if size and self.head.method != "HEAD":
                raise MisuseError(f"a {self.status} response has no body, and {size} bytes came")
            return False
        if self._left is not None:
            left = self._left - size
            if left < 0:
                raise MisuseError(f"the body is {-left} bytes longer than its content-length")
            if last and left:
                raise MisuseError(f"the body is {left} bytes shorter than its content-length")
            self._left = left
        return True

    # Files in the place of the body, or of a part of it

    def open_with_path(self, message: Message) -> File | None:
        """Send the head before a file that is the whole body."""
        return self._open_with(open_path(message), last=True)

    def open_with_file(self, message: Message) -> File | None:
        """Send the head before a file that the body begins with."""
        return self._open_with(open_file(message), last=not message.get("more_body", False))

    def extend_by_file(self, message: Message) -> File | None:
        """Let a file go on with the body."""
        last = not message.get("more_body", False)
        file = self._take(open_file(message), last=last)
        if file is None and last and self.trailers is None:
            self.peer.body(self.head.stream, b"", True)
        return file

    def _open_with(self, file: File, *, last: bool) -> File | None:
        count = file.count
        taken = self._take(file, last=last)
        ends = last and self.trailers is None
        if ends and self._left is None and (not self._bodiless or self.head.method == "HEAD"):
            self._held.append((b"content-length", b"%d" % count))
        self.peer.respond(self.head.stream, self.status, self._held, b"", ends and taken is None)
        return taken

    def _take(self, file: File, *, last: bool) -> File | None:
        """Count a file against the head; the file again, if there is something of it to send."""
        try:
            some = self._admit(file.count, last=last) and file.count > 0
        except MisuseError:
            file.source.close()
            raise
        if some:
            return file
        file.source.close()
        return None

    # Trailers

    def collect(self, message: Message) -> None:
        """Keep trailers until the last of them have come."""
        self.trailers = [*(self.trailers or ()), *check_trailers(message.get("headers") or ())]

    def trail(self, message: Message) -> None:
        """End the response with its trailers, or without them where the client would throw them away."""
        self.collect(message)
        if self.trailers and not self._bodiless and takes_trailers(self.head.headers):
            self.peer.trailers(self.head.stream, self.trailers)
        else:
            self.peer.body(self.head.stream, b"", True)

    # What goes before or beside the response

    def hint(self, message: Message) -> None:
        """Name links that the client will need (RFC 8297) while the head is not ready."""
        links = check_links(message.get("links"))
        if links:
            self.peer.inform(self.head.stream, EARLY_HINTS, links)

    def forget_hint(self, message: Message) -> None:
        """Nothing informs behind the final head; the specification lets applications try until the body ends."""
        check_links(message.get("links"))

    def promise(self, message: Message) -> None:
        """Promise the client an answer that it has not asked for."""
        extensions = self.scope.get("extensions")
        if not isinstance(extensions, dict) or PUSH not in extensions:
            raise MisuseError(f"{PUSH} is not among the extensions of this request's scope")
        target = make_target(message.get("path"), self.service.root_path)
        host = [field for field in self.head.headers if field[0] == b"host"]  # the same, as the specification says
        self.peer.push(self.head.stream, target, host + check_promise(message.get("headers") or ()))
