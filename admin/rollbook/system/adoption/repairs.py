"""The named repairs of rows that break a rule: what `--fix RULE=WORD` may say. None is made unless it is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollbook.core.errors import UsageError
from rollbook.core.rows import nearest


@dataclass(frozen=True)
class Repair:
    """A repair of one rule. In `value`, {column} is the column, {width} its width and {default} its default."""

    does: str
    value: str | None  # None: the row is deleted
    but_first: str | None = None  # of rows that share a key, the first in this order is left as it is


REPAIRS: dict[str, dict[str, Repair]] = {
    "username": {
        "underscore": Repair(
            "white space and control characters become _; an empty name becomes user_ID",
            "case when coalesce({column}, '') = '' then 'user_' || id "
            "else left(regexp_replace({column}, '[[:space:][:cntrl:]]+', '_', 'g'), {width}) end",
        ),
        "underscore-id": Repair(
            "the same, and _ID at the end, so that no two are equal",
            "case when coalesce({column}, '') = '' then 'user_' || id "
            "else left(regexp_replace({column}, '[[:space:][:cntrl:]]+', '_', 'g'), {width} - 1 - length(id::text)) "
            "|| '_' || id end",
        ),
    },
    "taken": {
        "id-younger": Repair(
            "all but the lowest id get _ID at the end of the name",
            "left({column}, {width} - 1 - length(id::text)) || '_' || id", "id",
        ),
    },
    "email": {
        "blank-younger": Repair("the account with the lowest id keeps the e-mail address", "''", "id"),
        "blank-older": Repair("the account with the highest id keeps the e-mail address", "''", "id desc"),
        "blank-idle": Repair(
            "the account that logged in last keeps the e-mail address", "''", "last_login desc nulls last, id",
        ),
    },
    "email-form": {"blank": Repair("an e-mail address that is not one becomes empty", "''")},
    "meta": {
        "empty": Repair("what is not a JSON object becomes empty", "''"),
        "wrap": Repair("what is not a JSON object is kept as the text of was in one",
                       "json_build_object('was', {column})::text"),
    },
    "year": {"null": Repair("the year becomes unknown", "null")},
    "gender": {
        "null": Repair("the gender becomes unknown", "null"),
        "letter": Repair("the first letter, if it is m, f or o; else unknown",
                         "substring(lower({column}) from '^[[:space:]]*([mfo])')"),
    },
    "level": {
        "null": Repair("the level becomes unknown", "null"),
        "other": Repair("the level becomes other", "'other'"),
    },
    "key": {"renew": Repair("a new activation key", "{default}")},
    "course": {"delete": Repair("the row without a course ID is deleted", None)},
    "allowed": {"delete": Repair("the permission for what is not an e-mail address is deleted", None)},
    "request": {"delete": Repair("the requested change is deleted", None)},
    "group": {
        "id": Repair(
            "an empty name becomes group_ID, a long one is cut and ends in _ID",
            "left(coalesce(nullif({column}, ''), 'group'), {width} - 1 - length(id::text)) || '_' || id",
        ),
    },
    "orphans": {"delete": Repair("a row that refers to nothing is deleted", None)},
    "duplicates": {
        "delete-younger": Repair("all but the lowest id are deleted", None, "id"),
        "delete-older": Repair("all but the highest id are deleted", None, "id desc"),
    },
    "null": {"default": Repair("null becomes the portal's default", "{default}")},
    "length": {"cut": Repair("a text is cut to the portal's width", "left({column}, {width})")},
}  # fmt: skip


def remedy(rule: str, tried: str = "") -> str:
    """Return what repairs a rule: an option, with the other words that the rule has; `tried` is a word that failed."""
    words = [word for word in REPAIRS.get(rule, {}) if word != tried]
    if not words:
        return "correct these rows in the site; --rejects FILE lists them"
    others = f" (or {', '.join(words[1:])})" if words[1:] else ""
    return f"--fix {rule}={words[0]}{others}"


def parsed(fixes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the rules and words of RULE=WORD, each also several with commas. Raises UsageError for an unknown one."""
    known = [f"{rule}={word}" for rule, words in REPAIRS.items() for word in words]
    asked = [each.strip() for text in fixes for each in text.split(",") if each.strip()]
    for fix in asked:
        if fix not in known:
            rule = fix.partition("=")[0]
            words = [f"{rule}={word}" for word in REPAIRS.get(rule, {})]
            choice = f"--fix {' or '.join(words)}" if words else f"--fix RULE=WORD; the rules: {', '.join(REPAIRS)}"
            raise UsageError(f"there is no repair {fix}", why=nearest(fix, known), fix=choice)
    pairs = list(dict.fromkeys((fix.partition("=")[0], fix.partition("=")[2]) for fix in asked))
    for rule, word in pairs:
        if both := [other for name, other in pairs if name == rule and other != word]:
            raise UsageError(f"--fix {rule}={word} and {rule}={both[0]} exclude each other", fix="choose one of them")
    return pairs
