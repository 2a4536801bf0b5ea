"""The page of the control socket: one file, which needs nothing from anywhere else."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files


@cache
def read_page() -> bytes:
    """The page, in UTF-8."""
    return files("appserver.asgi").joinpath("dashboard.html").read_bytes()


@cache
def make_policy() -> str:
    """Its Content-Security-Policy: its own script and style, by their hashes, and what this server answers."""
    page = read_page()
    hashes = {
        name: " ".join(f"'sha256-{b64encode(sha256(text).digest()).decode()}'" for text in find)
        for name, find in (
            ("script", re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)),
            ("style", re.findall(rb"<style>(.*?)</style>", page, re.DOTALL)),
        )
    }
    rules = (
        "default-src 'none'",
        f"script-src {hashes['script']}",
        f"style-src {hashes['style']}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return "; ".join(rules)
