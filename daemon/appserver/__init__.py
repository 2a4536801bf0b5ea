"""Application server daemon for Linux: ASGI applications under systemd, Supervisor or Circus."""

__version__ = "0.1.0"
