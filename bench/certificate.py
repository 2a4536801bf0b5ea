"""The certificate of the servers: ECDSA P-256, which most sites have and which is the cheapest to sign with."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two PEM files; the key is PKCS #8, the only form that granian takes."""

    path: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """Make one that is signed by itself, with openssl(1).

    Raises:
        OSError: openssl is not installed.
        subprocess.CalledProcessError: It failed.
    """
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    name = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    subprocess.run(
        ["openssl", "req", "-x509", *curve, *name, "-days", "2", "-out", made.path, "-keyout", made.key],
        check=True,
        capture_output=True,
    )
    return made
