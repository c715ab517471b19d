"""For migrations: where their files are, and how to run plain SQL through Alembic, online and offline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.shape import Shape

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE if (PACKAGE / "migrations").is_dir() else PACKAGE.parents[1]  # installed wheel, or working copy
MIGRATIONS = ROOT / "migrations"
SQL = ROOT / "sql"

# A database is built from sql/ in this order: views need functions; bodies are checked when all exist.
KINDS = ("functions", "triggers", "views")
VERSION_TABLE = "rollbook_revision"

# Where a site was adopted in place, portal.X is a view: X -> the name of the table under it, as SQL spells it.
Places = Mapping[str, str]
PLACES = """
select v.relname::text as name, format('%I.%I', s.nspname, t.relname) as place
from pg_catalog.pg_class as v
inner join pg_catalog.pg_namespace as n on n.oid = v.relnamespace and n.nspname = 'portal'
inner join pg_catalog.pg_rewrite as r on r.ev_class = v.oid
inner join pg_catalog.pg_depend as d
    on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
inner join pg_catalog.pg_class as t on t.oid = d.refobjid and t.relkind in ('r', 'p')
inner join pg_catalog.pg_namespace as s on s.oid = t.relnamespace
where v.relkind = 'v'
group by 1, 2
"""

# Where SQL needs the table itself: triggers, policies and their comments, tg_relid, foreign keys, versions of rows.
REAL = re.compile(
    r"(\b(?:trigger|policy)\s[^;]*?\son\s+|\breferences\s+)portal\.(\w+)|'portal\.(\w+)'(?=::regclass)"
    r"|(\bfrom\s+)portal\.(\w+)(?= as (\w+)\s[^;]*?\b\6\.xmax)",
    re.IGNORECASE,
)


def known_revisions() -> list[str]:
    """Return the revisions of this program, oldest first, without importing Alembic."""
    return sorted(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def places(conn: Conn) -> dict[str, str]:
    """Return the names of schema portal that are views, each with the table under it; empty unless adopted in place."""
    return {str(row["name"]): str(row["place"]) for row in conn.execute(PLACES)}


def placed(script: str, places: Places) -> str:
    """Return SQL with the real tables where it needs them; everything else reads and writes the views."""

    def place(found: re.Match[str]) -> str:
        before, name, quoted, origin, row, _ = found.groups()
        if (name or quoted or row) not in places:
            return found[0]
        if quoted:
            return "'{}'".format(places[quoted].replace("'", "''"))
        return f"{before or origin}{places[name or row]}"

    return REAL.sub(place, script) if places else script


def rendered(script: str, shape: Shape, places: Places) -> str:
    """Return SQL as it runs in a database with this shape and these places."""
    from rollbook.core.shape import shaped

    return placed(shaped(script, shape), places)


def object_files(directory: Path) -> list[Path]:
    """Return the files of `sql/` or of a frozen revision in the order in which they are applied, grants last."""
    files = [path for kind in KINDS for path in sorted((directory / kind).rglob("*.sql"))]
    return files + list(directory.glob("grants.sql"))


def run_sql(script: str) -> None:
    """Run a script of several statements unchanged: colons are not parameters."""
    from alembic import op  # 0.8 s, only for migrations
    from sqlalchemy import text

    from rollbook.core.shape import OF, Shape, default, shaped, tables

    context = op.get_context()
    given = context.config.attributes.get("shape") if context.config else None
    if context.as_sql:
        script = shaped(script, given or default())
        context.impl.static_output(script.strip().removesuffix(";") + ";\n")  # unchanged: text() would double %
        return
    bind = op.get_bind()
    if given is None and bind.exec_driver_sql("select to_regclass('rollbook.shape_table') is not null").scalar():
        given = Shape(tables(dict(row._mapping) for row in bind.exec_driver_sql(OF)))
    where = dict(tuple(row) for row in bind.exec_driver_sql(PLACES.replace("%", "%%")))
    script = rendered(script, given or default(), where)
    op.execute(text(re.sub(r"(?<!\\):", r"\\:", script)))


def run_tables(revision: str, *names: str) -> None:
    """Run migrations/tables/REVISION/NAME.sql, in this order."""
    for name in names:
        run_sql((MIGRATIONS / "tables" / revision / f"{name}.sql").read_text())


def apply_objects(revision: str) -> None:
    """Create the functions, triggers, views and grants that a revision ships.

    A released revision has a frozen copy, migrations/frozen/REVISION, of the files that it changed; a revision that is
    not released yet takes `sql/` as it is.
    """
    frozen = MIGRATIONS / "frozen" / revision
    run_sql("set local check_function_bodies = off")
    for path in object_files(frozen if frozen.is_dir() else SQL):
        run_sql(path.read_text())
    run_sql("set local check_function_bodies = on")
