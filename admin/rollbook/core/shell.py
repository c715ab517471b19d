"""Words of the commands that are printed: somebody will paste them into a shell."""

from __future__ import annotations

import shlex

from rollbook.core.values import UNSEEN

BEGINNERS = r"\\;$`"  # of commands, in psql or a shell, in quotes too; for a class of a regular expression


def quoted(word: str, *, always: bool = False) -> str:
    r"""Return a word for a shell that reads it back as it is. `always` puts quotes around a plain one too.

    A text with a line end or with what `visible` would escape becomes $'...', which bash, zsh and ksh read.
    """
    if "\n" in word or UNSEEN.search(word):
        escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n"}
        return f"$'{''.join(escapes.get(each) or escaped(each) for each in word)}'"
    plain = shlex.quote(word)
    return f"'{word}'" if always and plain == word else plain


def escaped(character: str) -> str:
    r"""Return a character, or its number as \u001b where it is not to be seen."""
    return f"\\U{ord(character):08x}" if UNSEEN.fullmatch(character) else character


def course_word(course: str) -> str:
    """Return a course id as a word of a command, always in quotes."""
    return quoted(course, always=True)


def is_name(text: str) -> bool:
    """Return whether what a server calls something may be part of what is printed to be executed."""
    return not (set(text) & {"\n", *BEGINNERS} or UNSEEN.search(text))
