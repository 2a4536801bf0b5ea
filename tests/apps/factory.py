"""An application that a function makes."""

from behaviour import app

from appserver.asgi.types import Application


def make() -> Application:
    return app
