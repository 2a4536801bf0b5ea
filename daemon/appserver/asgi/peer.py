"""The client's side of a stream, as a cycle sees it."""

from collections.abc import Coroutine
from typing import Any, Final, NoReturn, Protocol

from appserver.wire.engine import Headers


class Peer(Protocol):
    """The client's side of a stream, as the cycle needs it; `net.connection` is one."""

    def choked(self, stream: int) -> bool:
        """The client takes no more for now: `writable()` ends when it does."""
        ...

    def writable(self, stream: int) -> Coroutine[Any, Any, None]:
        """Wait until more may be written.

        Raises:
            ClientDisconnectedError: The client went away meanwhile.
        """
        ...

    def proceed(self, stream: int) -> None:
        """The application begins to read: a client that waits for 100 Continue may send."""
        ...

    def consumed(self, stream: int, count: int) -> None:
        """The application has read so many bytes of body."""
        ...

    def accept(self, stream: int, headers: Headers) -> None:
        """Give the client the WebSocket that it asked for; `body()` sends its bytes."""
        ...

    def remind(self, stream: int, when: float) -> None:
        """Call the cycle's `tick()` at a time of the monotonic clock, or up to a second later."""
        ...

    def respond(self, stream: int, status: int, headers: Headers, body: bytes, end: bool) -> None:
        """Send the head of the response and the first bytes of its body."""
        ...

    def body(self, stream: int, data: bytes, end: bool) -> None:
        """Send more of the body."""
        ...

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """Send an interim response (1xx); dropped where the client cannot take it."""
        ...

    def trailers(self, stream: int, headers: Headers) -> None:
        """End the response with trailer fields; without them where the client cannot take them."""
        ...

    def push(self, stream: int, path: bytes, headers: Headers) -> None:
        """Send an answer that the client has not asked for; nothing happens where it does not want that."""
        ...

    def send_file(self, stream: int, file: int, offset: int, count: int) -> Coroutine[Any, Any, int]:
        """Send some bytes of a file as more of the body; the end is told by `body()`.

        Args:
            stream: Its response has begun.
            file: A descriptor of a regular file.
            offset: Of the first byte in the file.
            count: At most so many bytes, more than 0.

        Returns:
            How many have left the process; 0 where the file ends before `offset`.

        Raises:
            ClientDisconnectedError: The client is gone.
            OSError: The file cannot be read.
        """
        ...

    def reset(self, stream: int) -> None:
        """Cut the response short so that the client notices."""
        ...


class _Done(Coroutine[Any, Any, None]):
    """An awaitable that is over: what `send()` returns when there is nothing to wait for.

    One for all, instead of a coroutine a message. It is a `Coroutine`, not only awaitable, so that
    `asyncio.create_task(send(…))` and anyio's task groups take it.
    """

    __slots__ = ()

    def __await__(self) -> Any:
        return iter(())

    def send(self, value: Any) -> NoReturn:  # noqa: ARG002
        raise StopIteration

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> NoReturn:  # noqa: ARG002
        raise typ if val is None else val

    def close(self) -> None:
        pass


DONE: Final = _Done()
