"""The reference says what the program and sql/ say."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.tools.reference import PAGES, REFERENCE, commands, man_page


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_is_not_stale(name: str) -> None:
    assert (REFERENCE / name).read_text() == PAGES[name](), "stale: run `make reference` and commit the result"


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_the_manual_pages_format_without_warnings() -> None:
    pages = "".join(man_page(page) for page in commands())
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-c"], input=pages, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "rollbook-user-create" in done.stdout.replace("‐", "-").replace("−", "-")
