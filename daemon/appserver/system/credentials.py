"""Credentials that the service manager hands over: `credential:NAME` in a setting (systemd.exec(5), LoadCredential=).

A credential is a file in a folder that only this service can read, in memory that is never swapped, and decrypted by
the host's own key where the unit says so. So the key of a certificate need not be readable for the service's user.
"""

import os
import re
from pathlib import Path
from typing import Final

from appserver.errors import CredentialError

PREFIX: Final = "credential:"
FOLDER_VARIABLE: Final = "CREDENTIALS_DIRECTORY"

# systemd.exec(5): a file's name; no path, so that a setting cannot lead out of the folder.
_NAME: Final = re.compile(r"(?!\.\.?$)[^/\0]{1,255}")


def find_file(text: str) -> Path:
    """The file behind a setting's value: a path as it is, or the credential that `credential:NAME` names.

    Raises:
        CredentialError: The service manager has handed over no credentials, or none of that name.
    """
    if not text.startswith(PREFIX):
        return Path(text)
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise CredentialError(f"{text}: expected the name of a credential, as in LoadCredential=NAME:PATH")
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise CredentialError(
            f"{text}: $CREDENTIALS_DIRECTORY is not set: this is not started by a unit with LoadCredential={name}:PATH "
            f"(by hand: systemd-run --pipe --wait --collect -p LoadCredential={name}:PATH COMMAND)"
        )
    path = Path(folder, name)
    if not path.exists():
        names = ", ".join(sorted(os.listdir(folder))) if Path(folder).is_dir() else ""  # noqa: PTH208 - names are wanted
        raise CredentialError(f"{text}: the unit hands over no credential of that name; there are: {names or 'none'}")
    return path
