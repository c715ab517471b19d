"""What a username, a name and an e-mail address may be: username_fault, name_fault, email_fault; and how they are
stored: normal_username, normal_name, normal_email, normal_text. hidden_character and character_word name what has no
place.
"""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

import pytest

from rollbook.core.values import UNSEEN
from tests.sql.helpers import Db, run, value

ZERO_WIDTH, RIGHT_TO_LEFT = "U+200B (zero width space)", "U+202E (direction mark)"
NO_PLACE = "{} has no place in a username: it has letters and digits, and @ . + - _"
USERNAMES: dict[str, str | None] = {
    **dict.fromkeys(["ada", "A", "7", "ada.lovelace@example.org", "a+b-c_d", "_x", "x" * 150, "Łucja", "иван", "名前"]),
    **dict.fromkeys(["हिन्दी", "\ufb01nn", "ada7", "Ünal", "ελένη", "سارة"]),
    "": "a username is needed",
    "x" * 151: "a username has at most 150 characters (it has 151)",
    "a b": NO_PLACE.format("U+0020 (space)"),
    "ada\t": NO_PLACE.format("U+0009 (tab)"),
    "a\u00a0b": NO_PLACE.format("U+0020 (space)"),
    "o'neil": NO_PLACE.format("' (U+0027)"),
    "a/b": NO_PLACE.format("/ (U+002F)"),
    "ada\u200b": NO_PLACE.format(ZERO_WIDTH),
    "\u202eada": NO_PLACE.format(RIGHT_TO_LEFT),
    "a\u00addb": NO_PLACE.format("U+00AD (soft hyphen)"),
    "ada\U0001f600": NO_PLACE.format("\U0001f600 (U+1F600)"),
    "a\ufffdb": NO_PLACE.format("U+FFFD (replacement character)"),
    "id:7": "a username does not begin with id:, which refers to a user in another way",
    "email:a@b": "a username does not begin with email:, which refers to a user in another way",
    "username\uff1aada": "a username does not begin with username:, which refers to a user in another way",
    "@ada": "a username does not begin with @, which the command line reads as a file",
    "-ada": "a username does not begin with -, which the command line reads as an option",
    **dict.fromkeys(
        ["\u0430nna", "ann\u03b1", "ива\u03bd"],
        "a username has letters of one script: those of Latin, Greek and Cyrillic look alike",
    ),
}
NAMES: dict[str, str | None] = {
    **dict.fromkeys(["", "Ada Foo", "Jose\u0301", "O’Neil", "山田\u3000太郎", "李明", "葛\U000e0100飾", "x" * 255]),
    **dict.fromkeys(["می\u200cخواهم", "क\u094d\u200dष", "ന\u0d4d\u200d ന"]),
    **dict.fromkeys(["A", " A ", " ", "\u00a0\u2009"], "a name has at least two characters"),
    "x" * 256: "a name has at most 255 characters (it has 256)",
    "Ada\u200bFoo": f"{ZERO_WIDTH} has no place in a name",
    "Ada\u200dFoo": "U+200D (zero width joiner) has no place in a name",
    "می\u200c\u200cخ": "U+200C (zero width non-joiner) has no place in a name",
    "Ada \u202eFoo": f"{RIGHT_TO_LEFT} has no place in a name",
    "Ada\nFoo": "U+000A (line break) has no place in a name",
    "Ada\x1b[1m": "U+001B (control character) has no place in a name",
    "Ada\ufe0f": "U+FE0F (invisible) has no place in a name",
}
EMAILS: dict[str, str | None] = {
    **dict.fromkeys(["", "ada@example.org", "\u00a0ada@example.org ", "Ada@EXAMPLE.org", "jose\u0301@example.org"]),
    **dict.fromkeys(["ada", "@example.org", "ada@", "a@b@c"], "this is not an e-mail address"),
    "ada\u200b@example.org": f"{ZERO_WIDTH} has no place in an e-mail address",
    "ada\u202e@example.org": f"{RIGHT_TO_LEFT} has no place in an e-mail address",
    "a da@example.org": "U+0020 (space) has no place in an e-mail address",
    "a\u2009da@example.org": "U+2009 (space) has no place in an e-mail address",
    "x" * 243 + "@example.org": "an e-mail address has at most 254 characters (it has 255)",
}


@pytest.mark.parametrize(("kind", "table"), [("username", USERNAMES), ("name", NAMES), ("email", EMAILS)])
def test_the_reason_is_told_in_words(portal: Db, kind: str, table: dict[str, str | None]) -> None:
    found = run(portal, "select v.text, rollbook.{f}(v.text) from unnest(%s::text[]) as v (text)", list(table),
                f=f"{kind}_fault")  # fmt: skip
    assert dict(found) == table
    assert value(portal, "select rollbook.{f}(null)", f=f"{kind}_fault") == (
        "a username is needed" if kind == "username" else None
    )


@pytest.mark.parametrize(
    ("function", "given", "stored"),
    [
        ("normal_username", "Jose\u0301\ufb01", "José" + "fi"),
        ("normal_username", " ada ", " ada "),
        ("normal_name", "\u00a0\u2009Jose\u0301  Foo\n\u3000", "José  Foo"),
        ("normal_name", "\t Ada Foo \r\n", "Ada Foo"),
        ("normal_name", "\ufb01nn", "\ufb01nn"),
        ("normal_email", " Jose\u0301@EXAMPLE.org\u00a0", "José@EXAMPLE.org"),
        ("normal_text", None, None),
    ],
)
def test_texts_are_composed_and_trimmed(portal: Db, function: str, given: str | None, stored: str | None) -> None:
    assert value(portal, "select rollbook.{f}(%s)", given, f=function) == stored


def points(test: Any) -> list[str]:
    """All characters that pass a test; those that PostgreSQL cannot hold, and that Unicode has not assigned, apart."""
    return [
        c
        for c in map(chr, range(1, sys.maxunicode + 1))
        if unicodedata.category(c) not in ("Cs", "Cn") and unicodedata.is_normalized("NFKC", c) and test(c)
    ]


def faulty(db: Db, function: str, texts: list[str]) -> set[str]:
    """The texts that a function refuses."""
    query = "select v.text from unnest(%s::text[]) as v (text) where rollbook.{f}(v.text) is not null"
    return {row[0] for row in run(db, query, texts, f=function)}


def test_a_username_has_the_letters_and_digits_of_django_and_nothing_that_hides(portal: Db) -> None:
    fillers = "\u115f\u1160"  # Unicode has these for letters, and they cannot be seen
    letters = points(lambda c: c not in fillers and unicodedata.category(c) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd"))
    assert {hex(ord(c)) for c in faulty(portal, "username_fault", letters)} == set()
    others = points(lambda c: unicodedata.category(c)[0] in "CZ" and c not in "\u00ad")
    assert set(others) - faulty(portal, "username_fault", others) == set()
    common = [c for c in points(lambda c: c.isascii() and not c.isalnum()) if c not in "_.+"]
    assert set(common) - faulty(portal, "username_fault", common) == set()


def test_what_the_program_would_have_to_show_as_an_escape_is_in_no_name(portal: Db) -> None:
    unseen = [c for c in map(chr, range(1, sys.maxunicode + 1)) if UNSEEN.fullmatch(c)]
    assert {hex(ord(c)) for c in set(unseen) - faulty(portal, "hidden_character", [*unseen])} == set()
    texts = [f"Ada{c}Foo" for c in unseen]
    assert set(texts) - faulty(portal, "name_fault", texts) == set()


def test_a_character_is_named_by_what_it_is(portal: Db) -> None:
    words = {"Ł": "Ł (U+0141)", "\u200e": "U+200E (direction mark)", "\U0001f600": "\U0001f600 (U+1F600)",
             "\x07": "U+0007 (control character)", "\u00a0": "U+00A0 (no-break space)"}  # fmt: skip
    query = "select v.text, rollbook.character_word(v.text) from unnest(%s::text[]) as v (text)"
    assert dict(run(portal, query, list(words))) == words
