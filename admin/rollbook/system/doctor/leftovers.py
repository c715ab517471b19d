"""What courses and servers left behind: schemas with persons' data that no stream feeds any more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rollbook.core.errors import UnreachableError
from rollbook.core.rows import typed
from rollbook.core.shell import course_word
from rollbook.replication import answered, catalog
from rollbook.replication.link import Server
from rollbook.replication.provision import clean_up_script
from rollbook.system.doctor.finding import PORTAL, Finding, attention, identifier, unknown

if TYPE_CHECKING:
    from rollbook.core.db import Conn

# Servers whose last entry says that something stayed there, and the route by which they were reached.
REMOVED = """
select h.object as name, h.before -> 'left_there' as left_there, r.admin_dsn
from (
    select distinct on (h.object) h.object, h.outcome, h.before
    from rollbook.history as h where h.command in ('server add', 'server remove') order by h.object, h.id desc
) as h
cross join lateral (
    select l.after ->> 'admin_route' as admin_dsn
    from rollbook.history as l
    where l.object = h.object and l.command = 'server add' and l.after ? 'admin_route'
    order by l.id desc limit 1
) as r
where h.outcome = 'removed' and h.before -> 'left_there' <> '[]'
    and not exists (select from rollbook.server_route as v where v.name = h.object)
order by 1
"""

# Of schemas that a subscription feeds another server entry takes care.
LEFT = """
select n.nspname::text as schema
from pg_namespace as n
where (pg_get_userbyid(n.nspowner) = 'rollbook_owner' or n.nspname = any (%(named)s)) and not exists (
    select from pg_subscription_rel as r
    inner join pg_class as c on c.oid = r.srrelid
    inner join pg_subscription as s on s.oid = r.srsubid and s.subname <> %(stream)s
    where c.relnamespace = n.oid
) and n.nspname not in ('portal', 'public')
order by 1
"""

STREAMS = """
select s.subname::text as name from pg_subscription as s
where s.subname = %s and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
"""


@dataclass(frozen=True)
class Removed:
    """A server that was removed while something of it stayed there."""

    name: str
    left_there: list[str]
    admin_dsn: str | None

    @property
    def schemas(self) -> list[str]:
        """Return the schemas that its removal left there."""
        return [found[1] for each in self.left_there if (found := re.match(r"schema (\S+)", each))]

    @property
    def server(self) -> Server:
        """Return it as it was."""
        return Server(self.name, self.admin_dsn, None, "")


@dataclass(frozen=True)
class Left:
    """What a removed server still has."""

    schemas: list[str]
    subscriptions: list[str]


def kept(conn: Conn, where: str, fed: Sequence[str], courses: dict[str, tuple[str, str | None]]) -> Iterator[Finding]:
    """Return the schemas of courses that nothing fills; `courses`: by schema, the course and its server."""
    for schema in catalog.kept_schemas(conn, fed):
        course, server = courses.get(schema, (None, None))
        drop = f"drop schema {identifier(schema)} cascade;"
        if where != PORTAL and not answered.is_known(drop):
            drop = answered.look(where)
        takes_up = f"rollbook course attach {course_word(course)} --to {where}; or: " if course and not server else ""
        yield attention(
            "left-over", where, f"schema {schema} may have copies of persons, which nothing keeps current", "none",
            f"{takes_up}{drop}",
        )  # fmt: skip


def removed_servers(portal: Conn) -> list[Removed]:
    """Return the servers that were removed while something of them stayed there."""
    return typed(Removed, portal, REMOVED)


def question(removed: Removed, conn: Conn) -> Left:
    """Ask a removed server what it still has."""
    schemas = [row["schema"] for row in conn.execute(LEFT, {"named": removed.schemas, "stream": removed.server.stream})]
    return Left(schemas, [row["name"] for row in conn.execute(STREAMS, [removed.server.stream])])


def of_removed(removed: Removed, answer: Any) -> list[Finding]:  # noqa: ANN401 (Left, or the error)
    """Return what a removed server still has; unknown where it does not answer."""
    where = removed.name
    if isinstance(answer, UnreachableError):
        left = ", ".join(removed.left_there)
        words = f"it was removed with {left}, and does not answer: {answer.why}"
        return [unknown("left-over", where, words, None)]
    schemas = [schema for schema in answer.schemas if schema != "rollbook"]
    if not schemas and not answer.subscriptions:
        return []
    script = " ".join(clean_up_lines(removed, schemas, answer))
    what = [f"subscription {name}" for name in answer.subscriptions] + [f"schema {schema}" for schema in schemas]
    return [attention("left-over", where, f"it was removed, and still has {', '.join(what)}", "nothing", script)]


def clean_up_lines(removed: Removed, schemas: Sequence[str], answer: Left) -> list[str]:
    """Return the SQL that cleans a removed server, of what is there."""
    lines = [line for line in clean_up_script(removed.server, []).splitlines() if removed.server.stream in line]
    places = [*schemas, *(schema for schema in answer.schemas if schema == "rollbook")]
    return [*(lines if answer.subscriptions else []), *(f"drop schema {identifier(name)} cascade;" for name in places)]
