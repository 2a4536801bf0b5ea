"""The real log, written into memory and read back."""

import io
import json
from typing import Any

from appserver.telemetry.access import AccessLog
from appserver.telemetry.log import build


class Records:
    """What was logged, as a program that reads the JSON lines sees it."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.log = build("trace", "json", self._stream)
        self.access = AccessLog(self.log)

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def of(self, code: str) -> list[dict[str, Any]]:
        """The records of one event."""
        return [record for record in self.all() if record.get("event") == code]

    def answers(self) -> list[dict[str, Any]]:
        """The access records."""
        return [record for record in self.all() if "http_status" in record and "duration_us" in record]

    def tracebacks(self) -> list[str]:
        return [record["traceback"] for record in self.all() if "traceback" in record]
