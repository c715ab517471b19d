"""Gather the pages of the site in build/site-source, from which `make docs` builds: python -m tests.tools.site.

Links that leave docs/ follow: to the page that a file becomes, or to its text below source/.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
SOURCE = BUILD / "site-source"
# What is a page of the site without being in docs/.
PAGES = {
    "README.md": "index.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md", "examples/django/README.md": "example.md",
}  # fmt: skip
LINK = re.compile(r"(?P<start>\]\(|\b(?:src|href)=\")(?P<target>[^)\s\"#:]*)(?P<anchor>#[^)\s\"]*)?(?=[)\"])")
FENCE = re.compile(r"^(```.*?^```[^\n]*\n)", re.DOTALL | re.MULTILINE)


def documents() -> list[Path]:
    """Return each Markdown file that becomes a page, relative to the repository."""
    return [Path(name) for name in PAGES] + [path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md"))]


def prose(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a Markdown text in parts, each with whether it is prose and not a fenced block."""
    for index, part in enumerate(FENCE.split(text)):
        yield part, index % 2 == 0


def place(path: Path) -> Path:
    """Return where a file of the repository is in the site."""
    if name := PAGES.get(path.as_posix()):
        return Path(name)
    return path.relative_to("docs") if path.parts[0] == "docs" else Path("source", f"{path}.txt")


def gathered(path: Path, text: str) -> tuple[str, set[Path]]:
    """Return a page's text with the links of the site, and the files that it links to."""
    linked = set()

    def moved(link: re.Match[str]) -> str:
        if not link["target"]:
            return link[0]
        target = Path(os.path.normpath(path.parent / link["target"]))
        linked.add(target)
        where = os.path.relpath(place(target), place(path).parent)
        return f"{link['start']}{where}{link['anchor'] or ''}"

    return "".join(LINK.sub(moved, part) if is_prose else part for part, is_prose in prose(text)), linked


def main() -> None:
    """Write all pages, and the files that they show or link to."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE, ignore=shutil.ignore_patterns("*.md", "*.toml"))
    shutil.copy(ROOT / "docs" / "zensical.toml", BUILD)  # whose site_dir must be below it
    pages = documents()
    for path in pages:
        text, linked = gathered(path, (ROOT / path).read_text())
        files = {place(path): text} | {place(it): (ROOT / it).read_text() for it in linked if it not in pages}
        for name, content in files.items():
            (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
            (SOURCE / name).write_text(content)


if __name__ == "__main__":
    main()
