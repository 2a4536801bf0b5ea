"""What holds for all tests."""

import os
import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Hypothesis gives each example 200 ms and the making of some examples a second: that measures the machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Take back what a shell gives to its background jobs: with it, no program of the tests could be interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)  # of the old kind, for Debian 12's pytest
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    """On CI a check that cannot run is a failure: there, a skip would hide a promise that nobody has tested."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not take: {report.longrepr}"
