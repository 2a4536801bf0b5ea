from pathlib import Path

import pytest

from appserver.errors import CredentialError
from appserver.system.credentials import find_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path


def test_a_path_is_left_as_it_is(folder: Path) -> None:
    assert find_file("/etc/web.key") == Path("/etc/web.key")
    assert find_file("web.key") == Path("web.key")


def test_a_credential_is_a_file_in_the_folder_of_the_service_manager(folder: Path) -> None:
    (folder / "web.key").touch()
    assert find_file("credential:web.key") == folder / "web.key"


def test_what_was_not_handed_over_is_told_with_what_was(folder: Path) -> None:
    with pytest.raises(CredentialError, match="no credential of that name; there are: none"):
        find_file("credential:web.key")
    (folder / "b").touch()
    (folder / "a").touch()
    with pytest.raises(CredentialError, match="credential:web.key: .* there are: a, b"):
        find_file("credential:web.key")


def test_without_the_service_manager_the_unit_is_told_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(CredentialError, match="LoadCredential=web.key:PATH"):
        find_file("credential:web.key")


@pytest.mark.parametrize("name", ["", ".", "..", "../web.key", "/etc/shadow", "a/b"])
def test_a_name_cannot_lead_out_of_the_folder(name: str, folder: Path) -> None:
    with pytest.raises(CredentialError, match="expected the name of a credential"):
        find_file(f"credential:{name}")
