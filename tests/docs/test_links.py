"""Links between pages lead somewhere, to the anchor too, here and in the site; its navigation has every page."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.tools.site import LINK, ROOT, documents, place, prose


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub and the site name them."""
    text = "".join(part for part, is_prose in prose((ROOT / path).read_text()) if is_prose)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return frozenset(f"#{slug}" for slug in found)


def navigation(entries: list[Any]) -> Iterator[Path]:
    for entry in entries:
        for target in entry.values():
            yield from navigation(target) if isinstance(target, list) else [Path(target)]


@pytest.mark.parametrize("path", documents(), ids=str)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    dead = []
    for part, is_prose in prose((ROOT / path).read_text()):
        for link in LINK.finditer(re.sub(r"`[^`\n]*`", "", part)) if is_prose else ():
            target = Path(os.path.normpath(path.parent / link["target"])) if link["target"] else path
            is_there = (ROOT / target).is_file()
            if not is_there or (link["anchor"] and target.suffix == ".md" and link["anchor"] not in anchors(target)):
                dead.append(link[0])
    assert dead == []


def test_the_navigation_has_every_page_once() -> None:
    config = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())
    assert sorted(navigation(config["project"]["nav"])) == sorted(map(place, documents()))


def test_lists_begin_after_a_blank_line() -> None:
    """GitHub makes a list of what follows a sentence at once, the site would not."""
    run_on = re.compile(r"^(?![-*|#>] |\d+\. |\s|\|).+\n(?:- |1\. )", re.MULTILINE)
    assert [
        (path, found[0])
        for path in documents()
        for part, is_prose in prose((ROOT / path).read_text())
        for found in (run_on.finditer(part) if is_prose else ())
    ] == []
