"""The plan of an adoption: what the site has, what will be done to it, and what is in the way, all at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import IsolationLevel, errors, sql

from rollbook.core.errors import UnreachableError
from rollbook.core.rows import Row, one
from rollbook.system.adoption.fixes import apply
from rollbook.system.adoption.rules import DueColumn, find, read_due, rejects
from rollbook.system.adoption.site import find_site, our_tables, read_site
from rollbook.system.adoption.structure import blocked, places_in, structure
from rollbook.system.portal_tables import colliding_usernames

if TYPE_CHECKING:
    from rollbook.core.command import Author
    from rollbook.core.db import Conn
    from rollbook.system.adoption.fixes import Repaired
    from rollbook.system.adoption.rules import Fault
    from rollbook.system.adoption.run import Report
    from rollbook.system.adoption.site import Site, Table
    from rollbook.system.adoption.structure import Blocked, Step

COLUMNS = ("kind", "object", "rule", "rows", "ids", "detail", "lock", "is_online", "seconds", "fix")
# Bytes a second, for an estimate: PostgreSQL reads, sorts into an index, or rewrites a table.
READING, SORTING, REWRITING = 200_000_000, 50_000_000, 20_000_000

OWNER = """
select quote_ident(r.rolname) as owner, quote_ident(current_user) as caller, r.rolsuper as is_super
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace
inner join pg_roles as r on r.oid = c.relowner
where n.nspname = %s and c.relname = 'auth_user' and not pg_has_role(r.oid, 'usage')
"""


@dataclass(frozen=True)
class Plan:
    """What an adoption would do."""

    site: Site
    rows: dict[str, int]  # of each table that the site has
    due: list[DueColumn]
    steps: list[Step]
    blocked: list[Blocked]
    repaired: list[Repaired]
    faults: list[Fault]  # that are left after the repairs
    colliding: list[str]  # usernames that differ in case alone, which stay

    @property
    def is_stopped(self) -> bool:
        """Return whether anything is in the way."""
        return bool(self.blocked or self.faults)

    @property
    def verdict(self) -> str:
        """Return in a sentence whether the site can be adopted."""
        wrong = sum(fault.count for fault in self.faults)
        reasons = []
        if self.blocked:
            reasons.append(f"{len(self.blocked)} obstacle{'' if len(self.blocked) == 1 else 's'}")
        if self.faults:
            reasons.append(f"{wrong} fault{'' if wrong == 1 else 's'} in rows, of {len(self.faults)} kinds")
        name = f"the Django site in schema {self.site.schema}"
        return f"{name} cannot be adopted yet: {' and '.join(reasons)}" if reasons else f"{name} can be adopted"


def make_plan(
    conn: Conn, schema: str | None, *, in_place: bool, widen: bool, fixes: Sequence[str] = (),
    author: Author | None = None, rejects_file: str | None = None,
) -> Plan:  # fmt: skip
    """Return the plan, after the repairs, which are rolled back. `rejects_file` gets the faulty rows that are left.

    All of it is of one moment; with repairs, which lock rows, each statement is of its own.
    """
    conn.rollback()
    home = find_site(conn, schema)
    conn.rollback()
    conn.isolation_level = None if fixes else IsolationLevel.REPEATABLE_READ
    with owned(conn, home), conn.transaction(force_rollback=True):
        conn.execute("set local row_security = off")  # a policy that hides rows is an error, not an answer
        site = read_site(conn, home)
        stopped = blocked(conn, site.schema, in_place=in_place, widen=widen)
        steps = structure(conn, site.schema, in_place=in_place, widen=widen)
        repaired = apply(conn, site, fixes, author, keep=False)
        faults = find(conn, site)
        if rejects_file is not None:
            rejects(conn, site, rejects_file)
        rows = {name: count(conn, site, name) for name in site.tables}
        colliding = colliding_usernames(conn, places_in(conn, site.schema)["auth_user"])
        return Plan(site, rows, read_due(conn).columns, steps, stopped, repaired, faults, colliding)


@contextmanager
def owned(conn: Conn, schema: str) -> Iterator[None]:
    """Name the role that owns the site where this one may not read everything. The transaction is inside."""
    try:
        yield
    except errors.InsufficientPrivilege as exc:
        found = conn.execute(OWNER, [schema]).fetchone()
        if found is None:
            raise
        granted = f"in psql, as a DBA: grant {found['owner']} to {found['caller']};"
        raise UnreachableError(
            "permission is missing", why=exc.diag.message_primary,
            fix=f"run it as the role {found['owner']}" if found["is_super"] else granted,
        ) from exc  # fmt: skip


def count(conn: Conn, site: Site, table: str) -> int:
    """Return the rows of a table."""
    return int(one(conn, sql.SQL("select count(*) as rows from {}").format(site.name(table)))["rows"])


def line(kind: str, name: str, detail: str | None, **more: object) -> Row:
    """Return a line of the answer; what it does not have is null."""
    return {**dict.fromkeys(COLUMNS), "kind": kind, "object": name, "detail": detail, **more}


def plan_lines(plan: Plan) -> list[Row]:
    """Return the plan as lines of one shape."""
    site = plan.site
    lines = [line("table", name, described(plan, name), rows=plan.rows.get(name)) for name in our_tables()]
    for each in site.references:
        what = f"({', '.join(each.columns)}) refers to {each.target}, on delete {each.on_delete}"
        lines.append(line("reference", each.table, f"{what}: {'becomes cascade' if each.is_ours else 'stays'}"))
    for sequence in site.sequences:
        state = ": no number is left" if sequence.is_used_up else ": is advanced" if sequence.is_behind else ""
        lines.append(line("sequence", sequence.name, f"next {sequence.next}, largest {sequence.largest}{state}",
                          fix="--widen" if sequence.is_used_up else None))  # fmt: skip
    if plan.colliding:
        words = f"differ in case alone, and stay; no further one is made: {', '.join(plan.colliding[:5])}"
        lines.append(line("note", "auth_user.username", words, rows=len(plan.colliding)))
    lines += [line("dependent", each.object, f"{each.kind} of {each.table}: stays") for each in site.dependents]
    lines += [
        line("step", each.name, f"on {each.table}", lock=each.lock, is_online=each.is_online,
             seconds=round(seconds(each, site.tables.get(each.table)), 1))
        for each in plan.steps
    ]  # fmt: skip
    lines += [
        line("repair", f"{each.table}.{each.column}", f"--fix {each.fix}", rule=each.fix.partition("=")[0],
             rows=each.rows)
        for each in plan.repaired
    ]  # fmt: skip
    lines += [line("obstacle", each.object, each.reason, fix=each.fix) for each in plan.blocked]
    lines += [
        line("fault", f"{each.table}.{each.column}", None, rule=each.rule, rows=each.count,
             ids=each.first_ids, fix=each.remedy)
        for each in plan.faults
    ]  # fmt: skip
    return lines


def described(plan: Plan, name: str) -> str:
    """Return in words how the columns and keys of a table compare with ours."""
    table = plan.site.tables.get(name)
    if table is None:
        return "missing: is made"
    due = {column.name: column.type for column in plan.due if column.table == name}
    there = {column.name: column.type for column in table.columns.values()}
    other = [f"{column} {there[column]}" for column in due if column in there and there[column] != due[column]]
    parts = {
        "columns equal": str(sum(there.get(column) == kind for column, kind in due.items())),
        "other type": ", ".join(other),
        "missing": ", ".join(column for column in due if column not in there),
        "extra": ", ".join(column for column in there if column not in due),
        "keys": str(len(table.keys)),
    }
    return "; ".join(f"{title}: {text}" for title, text in parts.items() if text)


def seconds(step: Step, table: Table | None) -> float:
    """Return an estimate of a step's time, from the size of the table."""
    size = table.bytes if table else 0
    statement = f" {step.do.lower()} "
    if "rewritten" in step.lock:
        return size / REWRITING
    if " index " in statement:
        return size / SORTING
    return size / READING if " validate " in statement or " set not null" in statement else 0.0


def report_lines(report: Report) -> Iterator[Row]:
    """Return what an adoption, a rehearsal or an undo did, as lines of the same shape."""
    for each in report.rows:
        before = "made" if each.before is None else f"{each.before} before"
        yield line("table", f"{report.place}.{each.table}", before, rows=each.after)
    yield from (line("step", step, "done") for step in report.steps)
    yield from (line("column", each, "stays, and does not travel") for each in report.outside)
    yield from (line("reference", each, "kept") for each in report.followed)
    yield from (line("course", each, "created") for each in report.courses)
    yield from (line("setting", each, "for the application") for each in report.settings)
    yield from (line("left", each, "not done") for each in report.left)


def sections(lines: list[Row]) -> dict[str, list[Row]]:
    """Return the lines by kind for a reader, each with the columns that its kind has; steps by table."""
    parts = {}
    for kind in dict.fromkeys(each["kind"] for each in lines):
        found = [each for each in lines if each["kind"] == kind]
        names = [name for name in COLUMNS[1:] if any(each[name] is not None for each in found)]
        parts[f"{kind}s"] = [{name: each[name] for name in names} for each in found]
    if "lock" in next(iter(parts.get("steps", [])), {}):
        parts["steps"] = grouped(parts["steps"])
    return parts


def grouped(steps: list[Row]) -> list[Row]:
    """Return steps by table: how many, the strongest lock that one takes, and how long they take together."""
    tables: dict[str, list[Row]] = {}
    for step in steps:
        tables.setdefault(step["detail"].removeprefix("on "), []).append(step)
    return [
        {
            "table": table,
            "steps": len(group),
            "seconds": sum(step["seconds"] for step in group),
            "strongest_lock": brief(min((step["lock"] for step in group), key=strength)),
        }
        for table, group in tables.items()
    ]


def brief(lock: str) -> str:
    """Return a lock in few words, so that a line fits into 80 columns: `ACCESS EXCLUSIVE, rewritten`."""
    return re.sub(r" on both( tables)?|: nobody waits", "", lock).replace(" while the table is ", ", ")


def strength(lock: str) -> int:
    """Return the place of a lock, the strongest first; one that lasts while a table is rewritten is the worst."""
    return next(place for place, words in enumerate(("rewritten", "ACCESS", "ROW", "UPDATE", "")) if words in lock)
