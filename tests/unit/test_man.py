"""The manual pages keep up with the code, and are what man(1) expects."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from appserver.arguments import read
from appserver.ctl import COMMANDS, make_parser
from appserver.errors import Exit
from appserver.settings import TABLE, load

ROOT = Path(__file__).parents[2]
MAN = ROOT / "packaging" / "man"
GENERATOR = ROOT / "tools" / "generate_man.py"
PAGES = ("appserver.1", "appserverctl.1", "appserver.toml.5")

pytestmark = pytest.mark.skipif(not GENERATOR.exists(), reason="the tests stand here without the rest of the checkout")


def section(page: str, title: str) -> str:
    """The source of a section."""
    _, _, rest = (MAN / f"{page}.rst").read_text().partition(f"\n{title}\n{'=' * len(title)}\n")
    assert rest, f"{page} has no section {title!r}"
    return re.split(r"\n[A-Z @]+\n=+\n", rest)[0]


def examples(page: str) -> Iterator[str]:
    """What is shown as it would be typed."""
    for block in re.findall(r"::\n\n((?: {4}.*\n|\n)+)", section(page, "EXAMPLES")):
        yield re.sub(r"^ {4}", "", block, flags=re.MULTILINE).replace("\\\n", "")


def shown(page: str) -> str:
    """A page as a terminal shows it."""
    words: list[str | Path] = ["man", "--local-file", "--warnings=w", MAN / page]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={"MANWIDTH": "500", "PATH": "/usr/bin"}
    )
    assert done.stderr == ""
    return done.stdout


def test_what_is_generated_is_fresh(tmp_path: Path) -> None:
    subprocess.run([sys.executable, GENERATOR, tmp_path], check=True)
    assert sorted(page.name for page in tmp_path.iterdir()) == sorted(PAGES)
    for page in PAGES:
        assert (MAN / page).read_text() == (tmp_path / page).read_text(), "run tools/generate_man.py"


def test_each_setting_is_an_option_and_a_key() -> None:
    options, keys = shown("appserver.1"), shown("appserver.toml.5")
    for row in TABLE:
        for flag in row.flags if row.positional else [flag for flag in row.flags if flag.startswith("--")][:1]:
            assert re.search(rf"^ +.*(?<![\w-]){re.escape(flag)}(?![\w-])", options, re.MULTILINE), flag
        if row.name != "config":
            assert re.search(rf"^ +{row.name} \(", keys, re.MULTILINE), row.name


def test_each_command_has_its_options() -> None:
    page = shown("appserverctl.1")
    for name, command in COMMANDS.items():
        (line,) = re.findall(rf"^ +{name}(?: [\[A-Z].*)?$", page, re.MULTILINE)
        assert [option for option, _ in command.options if option.startswith("--")] == re.findall(r"--[a-z]+", line)


def test_every_exit_code_is_told() -> None:
    assert set(re.findall(r"^\*\*(\d)\*\*$", section("appserver.1", "EXIT STATUS"), re.MULTILINE)) == {
        str(code.value) for code in Exit
    }


def test_what_is_shown_as_an_example_can_be_done() -> None:
    lines = [
        line for page in ("appserver.1", "appserverctl.1") for text in examples(page) for line in text.splitlines()
    ]
    done = 0
    for line in lines:
        for words in map(shlex.split, line.split("&&")):
            if words[:1] == ["appserver"]:
                load(words[1:], {})
            elif words[:1] == ["appserverctl"]:
                read(make_parser(words[1]), words[2:])
            else:
                continue
            done += 1
    assert done >= 8


def test_what_is_shown_as_a_file_can_be_read(tmp_path: Path) -> None:
    texts = list(examples("appserver.toml.5"))
    assert len(texts) == 3
    for text in texts:
        (tmp_path / "shop.toml").write_text(text)
        origins = load(["--config", str(tmp_path / "shop.toml")], {}).origins
        assert {name for name, origin in origins.items() if origin.startswith("file ")} == tomllib.loads(text).keys()


def test_a_page_names_no_option_that_is_not_there() -> None:
    known = {flag for row in TABLE for flag in row.flags} | {"--version", "--help", "--json", "-h"}
    for page in PAGES:
        named = set(re.findall(r"\*\*(--?[a-z][\w-]*)\*\*", (MAN / f"{page}.rst").read_text()))
        assert named <= known
