"""What holds for all tests."""

import os
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(hookwrapper=True)  # of the old kind, for Debian 12's pytest
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    """On CI a check that cannot run is a failure: there, a skip would hide a promise that nobody has tested."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not take: {report.longrepr}"
