"""Parse every file of sql/ and migrations/tables/ as PostgreSQL does, PL/pgSQL bodies included, without a server.

`python -m tests.tools.check_plpgsql`; part of `make lint`. Also holds each file of sql/ to the house rules: one object,
named as the file, with a header that says what the body cannot, and a comment in the catalog. The triggers that spell
out replicated columns must name all of them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pglast
from pglast.parser import ParseError

ROOT = Path(__file__).parents[2]
SQL = ROOT / "sql"
TABLES = ROOT / "migrations" / "tables"
ROW_TYPES = re.compile(
    r"\b(rollbook\.(course|comparison|finding|repaired|heartbeat|copy_step|lock_holder)|portal\.(auth|student)_[a-z]+)\b(\[\])?"
)
SPELLED_OUT = {
    "route_user_update": "auth_user",
    "route_profile_update": "auth_userprofile",
    "route_enrollment_update": "student_courseenrollment",
}
OBJECT = re.compile(r"^create or replace (function|view) rollbook\.(\w+)", re.MULTILINE)


def whitelist(table: str) -> list[str]:
    """Return the replicated columns of a table, as sql/functions/shape/replicated_columns.sql has them."""
    text = (SQL / "functions" / "shape" / "replicated_columns.sql").read_text()
    listed = re.search(rf"when '{table}' then array\[(.*?)\]", text, re.DOTALL)
    return re.findall(r"'(\w+)'", listed[1]) if listed else []


def incomplete_lists(text: str, table: str) -> list[str]:
    """Return what is wrong with the comparisons of old and new row: each names all columns; the id may be left out."""
    spelled = [
        re.findall(r"\b[on]\.(\w+)", columns)
        for columns in re.findall(r"\brow\(([^()%]+)\)", text)
        if columns.count(",") > 1  # not the pair of keys
    ]
    columns = whitelist(table)
    if len(spelled) != 2:
        return [f"must compare the replicated columns of {table} of the old row with those of the new row"]
    return [
        f"spells out {', '.join(names)}, but {table} replicates {', '.join(columns)}"
        for names in spelled
        if names not in (columns, columns[1:] if table == "auth_user" else columns)
    ]


def problems(path: Path) -> list[str]:
    """Return what is wrong with one file."""
    text = path.read_text()
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
    if path.stem in SPELLED_OUT:
        found += incomplete_lists(text, SPELLED_OUT[path.stem])
    return found


def main() -> int:
    """Print the problems of all files and return 1 if there are any."""
    files = sorted(SQL.rglob("*.sql")) + sorted(TABLES.rglob("*.sql"))
    found = [f"{path.relative_to(ROOT)}: {problem}" for path in files for problem in problems(path)]
    print("\n".join(found) or f"{len(files)} files of sql/ and migrations/tables/ parse and keep the house rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
