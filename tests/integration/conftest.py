"""Fixtures of the integration tests: real processes on this host."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.servers import Starter


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Starter]:
    """Starts servers; at the end each must stop on SIGTERM, with the exit code expected and no traceback."""
    starter = Starter(tmp_path)
    try:
        yield starter
    finally:
        starter.finish()
