"""An application that a function makes."""

from typing import TYPE_CHECKING

from appserver.asgi.types import Application

if TYPE_CHECKING:
    from tests.apps.behaviour import app
else:
    from behaviour import app  # as it is found with --app-dir


def make() -> Application:
    return app
