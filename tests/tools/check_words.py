"""Keep the worst words out of help texts, messages, SQL, comments and docs. `python -m tests.tools.check_words`.

Part of `make lint`. CONTRIBUTING.md has the word list for writers; this is the part that a regex can find. A line that
must have such a word ends in `words: ok`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = (
    "admin/rollbook/**/*.py", "sql/**/*.sql", "migrations/*.py", "migrations/versions/*.py",
    "migrations/tables/**/*.sql", "docs/**/*.md", ".github/**/*", "*.md", "Makefile", ".ci/run",
)  # fmt: skip
# Told apart from its context, each of these is wrong, or so seldom right that `words: ok` is no burden.
WORDS = {
    r"mend(s|ed|ing)?": "fix",
    r"(stands?|stood) still|at which .{1,30} stands": "stopped, stopped at",
    r"(stands?|standing) in the way|row in the way": "conflict, conflicting row",
    r"unsaid": "Default: ...",
    r"be content": "Succeed without change if ...",
    r"bears?|borne": "has",
    r"(?<!there )(?<!where )(is|was|are|were|be) no(?! longer| more) [a-z]+": "is not a ...",
    r"folders?": "directory",
    r"(is|are|was|were|be|been) (told|said|noted)": "reported, printed, recorded",
    r"stands? (in|on|at|there|below|above|beside|between|here|as)|where .{1,20} stands": "is",
    r"so (many|much) (of|seconds|rows)|wait so long|or so much": "N, P %",
    r"(is|are) dead": "no longer works",
    r"in vain": "without success",
    r"has not (got it|arrived there)": "has not confirmed it, did not catch up",
    r"(whatever the|in) capitals|capitals apart": "case-insensitive, upper case",
    r"set going|let go( of)?|lets? .{1,20} go on": "re-enable, detach, resume",
    r"anew": "again; recreate",
    r"no more(?! than)": "no longer",
    r"who is (no(?! longer)|not(?! of this bundle)|missing|in|there)": "name the subject: users who ..., a ...",
    r"what (is|was|were) (given|said|asked)|what is not given": "omitted options, the value",
    r"past the (rules|guards?|triggers?)|or past\b": "bypassing",
    r"no (encoding|object|candidate|zip|folder|administrator|server yet)": "not a ...",
    r"says? no": "forbids",
}
PATTERN = re.compile(r"\b(?:" + "|".join(f"(?P<w{n}>{word})" for n, word in enumerate(WORDS)) + r")\b", re.IGNORECASE)
BETTER = list(WORDS.values())
# The word list quotes what it replaces; the reference and the changelog repeat or record other texts.
EXEMPT = ("CONTRIBUTING.md", "docs/reference/")


def problems(name: str, text: str) -> list[str]:
    """Return `file:line: word -> better word` for each bad word of a text."""
    return [
        f"{name}:{number}: {match.group()!r} -> {BETTER[int(str(match.lastgroup)[1:])]}"
        for number, line in enumerate(text.splitlines(), 1)
        if not line.endswith("words: ok")
        for match in PATTERN.finditer(line)
    ]


def main() -> int:
    """Print the bad words of all files, or of those whose path begins as an argument, and return 1 if there are any."""
    files = sorted({path for place in PLACES for path in ROOT.glob(place) if path.is_file()})
    names = {path.relative_to(ROOT).as_posix(): path for path in files}
    wanted = tuple(sys.argv[1:]) or ("",)
    checked = {name: path for name, path in names.items() if name.startswith(wanted) and not name.startswith(EXEMPT)}
    found = [line for name, path in checked.items() for line in problems(name, path.read_text())]
    print("\n".join(found) or f"{len(checked)} files have none of the {len(WORDS)} words")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
