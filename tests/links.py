"""The relative links of the documentation, in the checkout and in the package."""

import re
from pathlib import Path


def broken_links(page: Path) -> list[str]:
    """The relative links of a page, pictures too, that lead to no file or to no heading in it."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not re.match(r"[a-z]+:", target) and not _leads(page, target)]


def _leads(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    found = page.parent / path if path else page
    if not anchor or not found.exists():
        return found.exists()
    return anchor in {_slug(title) for title in re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)}


def _slug(title: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
