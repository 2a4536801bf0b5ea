"""A real browser: headless Chromium."""

import os
import signal
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from tests.integration.servers import PATIENCE, clean_environment

# What it would ask the rest of the world for has nothing to do here.
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)
STARTING: Final = 60.0
"""Seconds that it may take to start on a busy machine."""


@contextmanager
def browsing(url: str, folder: Path, *words: str) -> Iterator[None]:
    """The browser with a page open."""
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["chromium", *FLAGS, *words, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", url],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=clean_environment(HOME=str(folder)),
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # it is several processes
        process.wait(PATIENCE)


def trust(certificate: Path) -> str:
    """The word that makes it take a certificate which no authority that it knows has issued.

    Where it is told to ignore all errors of certificates, it ignores what comes over such a connection, too.
    """
    key = load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={b64encode(digest).decode()}"
