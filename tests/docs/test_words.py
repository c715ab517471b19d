"""The check of words finds the bad ones and leaves good sentences alone."""

from __future__ import annotations

import pytest

from tests.tools.check_words import problems


@pytest.mark.parametrize(
    "line",
    [
        "what mends it",
        "the stream stands still",
        "X is no folder",
        "Unsaid: both.",
        "Be content with one that is there.",
    ],
)
def test_a_bad_word_is_found_with_its_place(line: str) -> None:
    assert problems("docs/x.md", f"fine\n{line}\n")[0].startswith("docs/x.md:2: ")


@pytest.mark.parametrize(
    "line",
    ["there is no course X", "no more than 5", "the stream is stopped", "RB stands for Rollbook", "mend  words: ok"],
)
def test_good_sentences_pass(line: str) -> None:
    assert problems("x", line) == []
