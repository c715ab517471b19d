"""The policy of `rollbook user erase`: a TOML file that names the tables whose rows a law makes one keep, and why."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollbook.core.errors import UsageError
from rollbook.core.rows import nearest
from rollbook.people.queries.privacy import Kept

if TYPE_CHECKING:
    from collections.abc import Collection

FORM = '[[keep]] with table = "portal.student_testcenteruser", reason = "the law", and perhaps until = 2031-12-31'
KEYS = ("table", "reason", "until")


def read_policy(file: str | None) -> list[Kept]:
    """Return what a policy file keeps; nothing without a file. Raises UsageError."""
    if file is None:
        return []
    try:
        content = tomllib.loads(Path(file).read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {file}", why=str(exc)) from exc
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(f"{file} is not TOML", why=str(exc), fix=FORM) from exc
    wrong(file, content, ("keep",))
    entries = content.get("keep", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{file}: keep is not a list of tables", fix=FORM)
    return [entry_of(file, number, entry) for number, entry in enumerate(entries, start=1)]


def entry_of(file: str, number: int, entry: dict[str, Any]) -> Kept:
    """Return one entry. Raises UsageError for an unknown key, and for a table or reason that is missing."""
    wrong(file, entry, KEYS)
    table, reason, until = (entry.get(key) for key in KEYS)
    if not (isinstance(table, str) and table and isinstance(reason, str) and reason.strip()):
        raise UsageError(f"{file}: keep number {number} needs a table and a reason", fix=FORM)
    if until is not None and type(until) is not date:
        raise UsageError(f"{file}: until of {table} is not a date", fix=FORM)
    return Kept(table if "." in table else f"portal.{table}", reason.strip(), until)


def wrong(file: str, found: dict[str, Any], known: Collection[str]) -> None:
    """Raise UsageError for a key that is not known."""
    for key in found:
        if key not in known:
            raise UsageError(f"{file}: unknown key {key}", why=nearest(key, known), fix=FORM)
