"""Which connections are open, for an operator who asks."""

import json
from collections.abc import Iterable
from heapq import nsmallest
from time import monotonic
from typing import Any

from appserver.net.endpoint import Endpoint


def list_connections(endpoints: Iterable[Endpoint], limit: int, size: int) -> dict[str, Any]:
    """Describe the oldest connections, the oldest first.

    Args:
        endpoints: Whose.
        limit: At most so many.
        size: And so many that they take no more than these bytes as JSON.

    Returns:
        `connections`, and in `left_out` the number of those that are not among them.
    """
    now = monotonic()
    everyone = [connection for endpoint in endpoints for connection in endpoint.connections]
    shown: list[dict[str, Any]] = []
    for connection in nsmallest(limit, everyone, key=lambda connection: connection.begun):
        description = connection.describe(now)
        size -= len(json.dumps(description)) + 2
        if size < 0:
            break
        shown.append(description)
    return {"connections": shown, "left_out": len(everyone) - len(shown)}
