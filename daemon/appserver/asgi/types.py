"""The ASGI 3 types, as https://asgi.readthedocs.io/ names them."""

import inspect
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, TypeVar

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_F = TypeVar("_F", bound=Callable[..., Awaitable[None]])

# Says of a function that it is to be awaited, though it is no `async def`: asgiref's AsyncToSync, and so WsgiToAsgi,
# warns of others. Before Python 3.12 there is no public way to.
if sys.version_info >= (3, 12):
    mark_awaited = inspect.markcoroutinefunction
else:

    def mark_awaited(function: _F) -> _F:
        """Leave it as it is."""
        return function
