"""The two tables of an adoption in schema public: what was done with its undo, and what was repaired.

Whoever can write the first decides what `schema adopt --undo` runs; the second holds personal data. So nobody but their
owner has a right on them, default privileges and a later GRANT ALL notwithstanding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rollbook.core.errors import RefusedError
from rollbook.core.rows import as_json, typed
from rollbook.system import portal_tables

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.system.adoption.structure import Step

STEPS, FIXES = NAMES = ("public.rollbook_adoption", "public.rollbook_adoption_fix")

RECORD = """
create table if not exists public.rollbook_adoption (
    position integer generated always as identity primary key,
    step text not null unique,
    undo text,
    detail jsonb,
    at timestamptz not null default clock_timestamp(),
    role text not null default session_user
);
comment on table public.rollbook_adoption is
    'What rollbook schema adopt did to the tables of the site, and the statements that undo it, latest first.';
"""

# A superuser may act for every role: what another one has written must not run with a superuser's rights.
FOUND = """
select
    s.name, quote_ident(pg_get_userbyid(c.relowner)) as owner, quote_ident(current_user) as caller,
    c.relowner = r.oid or o.rolsuper or not r.rolsuper and pg_has_role(c.relowner, 'usage') as is_trusted,
    array(
        select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
        from aclexplode(c.relacl) as a where a.grantee <> c.relowner
        union
        select distinct case x.grantee when 0 then 'public' else x.grantee::regrole::text end
        from pg_attribute as t, aclexplode(t.attacl) as x where t.attrelid = c.oid and x.grantee <> c.relowner
        order by 1
    ) as others
from unnest(%s::text[]) as s (name)
inner join pg_class as c on c.oid = to_regclass(s.name)
inner join pg_roles as o on o.oid = c.relowner
cross join (select * from pg_roles where rolname = current_user) as r
order by s.name
"""


@dataclass(frozen=True)
class Begun:
    """An adoption that was begun."""

    schema: str
    in_place: bool
    rows: dict[str, int]
    is_moved: bool  # Rollbook is installed over the tables
    is_done: bool


@dataclass(frozen=True)
class Rights:
    """Who owns one of the tables, and who else has a right on it."""

    name: str
    owner: str
    caller: str
    is_trusted: bool  # what it holds may run with this session's rights
    others: list[str]

    @property
    def revoked(self) -> str:
        """Return the statement that takes all rights from all others."""
        return f"revoke all on {self.name} from {', '.join(self.others)} cascade;"


def rights(conn: Conn, *names: str) -> list[Rights]:
    """Return the owner and the rights of those of these tables that are there."""
    return typed(Rights, conn, FOUND, [list(names or NAMES)])


def seal(conn: Conn, name: str) -> None:
    """Take all rights on a table that was just made from everybody but its owner: default privileges give some."""
    require_trusted(conn, name)
    for found in rights(conn, name):
        if found.others:
            conn.execute(found.revoked.encode())


def require_trusted(conn: Conn, *names: str) -> None:
    """Refuse a table that another role has made before us."""
    for found in rights(conn, *names):
        if not found.is_trusted:
            raise RefusedError(
                f"{found.name} belongs to {found.owner}", why="whoever writes it decides what an undo runs",
                fix=f"run it as the role {found.owner}; or read the table, and in psql: "
                f"alter table {found.name} owner to {found.caller};",
            )  # fmt: skip


def require_sealed(conn: Conn) -> None:
    """Refuse a record of steps that others may have written."""
    require_trusted(conn)
    for found in rights(conn, STEPS):
        if found.others:
            raise RefusedError(
                f"{', '.join(found.others)} may write or read {found.name}",
                why="whoever writes it decides what an undo runs",
                fix=f"read its column undo, then in psql: {found.revoked}",
            )


def record(conn: Conn, step: Step) -> None:
    """Record a step and how it is undone; what is done again after a stop keeps its place."""
    note(conn, step.name, step.undo)


def note(conn: Conn, step: str, undo: str | None = None, detail: dict[str, Any] | None = None) -> None:
    """Record what is done."""
    conn.execute(
        "insert into public.rollbook_adoption (step, undo, detail) values (%s, %s, %s) on conflict (step) do nothing",
        [step, undo, detail and as_json(detail)],
    )


def begun(conn: Conn) -> Begun | None:
    """Return the adoption that this database has, done or not; None where there is none."""
    if not portal_tables.is_adopted(conn):
        return None
    require_sealed(conn)
    rows = {row["step"]: row["detail"] for row in conn.execute("select step, detail from public.rollbook_adoption")}
    if "begun" not in rows:
        return None
    return Begun(**rows["begun"], is_moved="moved" in rows, is_done="done" in rows)
