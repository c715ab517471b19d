"""For migrations: where their files are, and how to run plain SQL through Alembic, online and offline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

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

# Migrations hold this lock alone; each transaction of a command that writes shares it.
MIGRATION_LOCK = "pg_catalog.hashtext('rollbook migrations')"

# A lock that is not free within this time is given up, with the revision: who writes waits no longer than this for it.
LOCK_SECONDS = 0.5
LOCK_TIMEOUT: LiteralString = "set local lock_timeout = '500ms'"

# Between what a statement of a writer calls first and last, no code may change: until the commit none is under way on a
# table whose changes are routed, and no course is created or dropped. For two seconds a moment is looked for in which
# none is, without a wait of anybody. Where there is none, new writers are held back, half as long as PostgreSQL waits
# before it looks for a deadlock, so that none becomes the victim of one.
BARRIER = """
do $$
declare
    before constant text := current_setting('lock_timeout');
    began constant timestamptz := clock_timestamp();
    places constant text[] := array(
        select t.place::text
        from (
            select distinct g.tgrelid::regclass as place
            from pg_trigger as g where g.tgname ~ '^rollbook_(route|hold|refuse|check|note)_' and not g.tgisinternal
            union all select 'rollbook.course_set'::regclass
        ) as t
        left join rollbook.copied_tables() as c on rollbook.portal_table(c.table_name) = t.place
        order by c.ordinal nulls last, t.place::text  -- as applications write: accounts first
    );
    is_patient boolean;
    until timestamptz;
    place text;
begin
    loop
        is_patient := clock_timestamp() > began + interval '2 seconds';
        until := clock_timestamp() + current_setting('deadlock_timeout')::interval / 2;
        begin
            foreach place in array places loop
                perform set_config('lock_timeout', greatest(
                    1, extract(epoch from until - clock_timestamp()) * 1000)::integer || 'ms', true);
                execute format('lock table %s in share row exclusive mode', place)
                    || case when is_patient then '' else ' nowait' end;
            end loop;
            exit;
        exception when lock_not_available then
            if is_patient then
                raise exception '% is written all the time, or by a transaction that stays open', place
                    using errcode = 'lock_not_available', detail = (
                        select string_agg(distinct d.holder, ', ')
                        from pg_locks as l cross join lateral rollbook.describe_holder(l.pid, null) as d
                        where l.relation = place::regclass and l.granted and l.pid <> pg_backend_pid()
                            and l.mode not in ('AccessShareLock', 'RowShareLock')
                    );
            end if;
            perform pg_sleep(0.01);
        end;
    end loop;
    perform set_config('lock_timeout', before, true);
end $$;
"""

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

TRIGGER_STATEMENT = re.compile(r"^(?:create or replace|comment on) trigger\s", re.MULTILINE)

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


def object_scripts(directory: Path) -> list[str]:
    """Return what the files hold, in an order in which writers wait for a moment: functions lock no table.

    Then the barrier, and what locks: triggers, views, and the grants on them.
    """
    from rollbook.core.shape import statements

    free: list[str] = []
    locking: list[str] = []
    for path in object_files(directory):
        kind, text = path.relative_to(directory).parts[0], path.read_text()
        if kind == "triggers":
            parts = statements(text)
            hooks = [part for part in parts if TRIGGER_STATEMENT.search(part)]
            locking.append("".join(hooks))
            text = "".join(part for part in parts if part not in hooks)
        (free if kind in ("functions", "triggers") else locking).append(text)
    return [*free, BARRIER, *locking]


def run_sql(*scripts: str) -> None:
    """Run scripts of several statements unchanged: colons are not parameters. All get the shape that is there now."""
    from alembic import op  # 0.8 s, only for migrations
    from sqlalchemy import text

    from rollbook.core.shape import OF, Shape, default, shaped, tables

    context = op.get_context()
    given = context.config.attributes.get("shape") if context.config else None
    if context.as_sql:
        shape = given or default()
        for script in scripts:  # unchanged: text() would double %
            context.impl.static_output(shaped(script, shape).strip().removesuffix(";") + ";\n")
        return
    bind = op.get_bind()
    if given is None and bind.exec_driver_sql("select to_regclass('rollbook.shape_table') is not null").scalar():
        given = Shape(tables(dict(row._mapping) for row in bind.exec_driver_sql(OF)))
    where = dict(tuple(row) for row in bind.exec_driver_sql(PLACES.replace("%", "%%")))
    shape = given or default()
    for script in scripts:
        op.execute(text(re.sub(r"(?<!\\):", r"\\:", rendered(script, shape, where))))


def run_tables(revision: str, *names: str) -> None:
    """Run migrations/tables/REVISION/NAME.sql, in this order."""
    for name in names:
        run_sql((MIGRATIONS / "tables" / revision / f"{name}.sql").read_text())


def apply_objects(revision: str) -> None:
    """Create the functions, triggers, views and grants that a revision ships.

    A released revision has a frozen copy, migrations/frozen/REVISION, of the files that it changed; a revision that is
    not released yet takes `sql/` as it is. Writers wait from here to the commit: call it last.
    """
    frozen = MIGRATIONS / "frozen" / revision
    scripts = object_scripts(frozen if frozen.is_dir() else SQL)
    run_sql("set local check_function_bodies = off", *scripts, "set local check_function_bodies = on")
