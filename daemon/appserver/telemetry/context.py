"""The request that the running code belongs to."""

from contextvars import ContextVar
from typing import Final

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("appserver_request_id", default=None)
"""Set for the time of a request; every record made meanwhile carries it, the application's own logging included."""
