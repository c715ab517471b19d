"""Parse every file of sql/ and migrations/tables/ as PostgreSQL does, PL/pgSQL bodies included, without a server.

`python -m tests.tools.check_plpgsql`; part of `make lint`. Also holds each file of sql/ to the house rules: one object,
named as the file, with a header that says what the body cannot, and a comment in the catalog.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pglast
from pglast.parser import ParseError

from rollbook.core.shape import default, shaped

ROOT = Path(__file__).parents[2]
SQL = ROOT / "sql"
TABLES = ROOT / "migrations" / "tables"
ROW_TYPES = re.compile(
    r"\b(rollbook\.(course|comparison|finding|repaired|heartbeat|copy_step|lock_holder)|portal\.(auth|student)_[a-z]+)\b(\[\])?"
)
OBJECT = re.compile(r"^create or replace (function|view) rollbook\.(\w+)", re.MULTILINE)


def problems(path: Path) -> list[str]:
    """Return what is wrong with one file."""
    text = shaped(path.read_text(), default())
    found = []
    if not text.startswith(f"-- {path.stem}: "):
        found.append(f"must begin with `-- {path.stem}: ` and say what it does")
    try:
        pglast.parse_sql(text)
        for body in re.findall(r"create or replace function.*?^(?:end )?\$\$;", text, re.DOTALL | re.MULTILINE):
            if "language plpgsql" in body:
                # The parser knows no catalog, so it cannot look up our row types; `record` has the same syntax.
                pglast.parse_plpgsql(ROW_TYPES.sub("record", body))
    except ParseError as exc:
        found.append(f"does not parse: {exc}")
    if path.name == "grants.sql" or path.parent.name == "server" or TABLES in path.parents:  # scripts, not objects
        return found
    kind = "view" if path.parent.name == "views" else "function"
    if OBJECT.findall(text) != [(kind, path.stem)]:
        found.append(f"must hold exactly the {kind} rollbook.{path.stem}")
    if "\n-- Security:" not in text:
        found.append("the header does not say whose rights it has")
    if path.parent.name == "triggers" and "\n-- Fires: " not in text:
        found.append("the header does not say when it fires")
    if f"comment on {kind} rollbook.{path.stem}" not in text:
        found.append(f"no comment on {kind}")
    if "security definer" in text and "set search_path = pg_catalog, pg_temp" not in text:
        found.append("a definer function that does not pin its search_path")
    return found


def main() -> int:
    """Print the problems of all files and return 1 if there are any."""
    files = sorted(SQL.rglob("*.sql")) + sorted(TABLES.rglob("*.sql"))
    found = [f"{path.relative_to(ROOT)}: {problem}" for path in files for problem in problems(path)]
    print("\n".join(found) or f"{len(files)} files of sql/ and migrations/tables/ parse and keep the house rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
