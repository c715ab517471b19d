"""What a first copy needs at its source: the login of the subscription may read the copies there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.shell import course_word, quoted
from rollbook.replication import catalog, link
from rollbook.replication.session import Session

READER = "rollbook_subscriber"  # of what a relay publishes: whoever subscribes there is a member
RELAY_READER = "rollbook_relay"  # of what the portal publishes to relays: their logins are members

# Whoever reads the slot now. A publication grants a relay, and a server behind one, what it lists: before that, being a
# member of the role that it grants to is enough. `reader`: that role; null: what can be read now counts.
UNREADABLE = """
select r.rolname::text as login, array_agg(s.name order by s.position) as schemas
from pg_replication_slots as l
inner join pg_stat_activity as a on a.pid = l.active_pid
inner join pg_roles as r on r.oid = a.usesysid
cross join unnest(%(schemas)s::text[]) with ordinality as s (name, position)
left join pg_namespace as n on n.nspname = s.name
where l.slot_name = %(slot)s and l.database = current_database()
    and not exists (
        select from pg_roles as g
        where g.rolname in (%(reader)s, 'pg_read_all_data') and pg_has_role(r.oid, g.oid, 'usage')
    )
    and (
        case when n.oid is null then %(reader)s::text is not null
            else not has_schema_privilege(r.oid, n.oid, 'usage') end
        or exists (
            select from pg_class as c
            where c.relnamespace = n.oid and c.relname = any (%(tables)s) and c.relkind = 'r'
                and not has_table_privilege(r.oid, c.oid, 'select')
        )
    )
group by 1
"""


@dataclass(frozen=True)
class Unreadable:
    """Copies that the login of a subscription may not read at its source, and what grants that."""

    login: str
    schemas: list[str]
    fix: str


def unreadable(session: Session, schemas: Sequence[str], *, is_published: bool = True) -> Unreadable | None:
    """Return what the login of a server's subscription lacks to copy these schemas, None if that is nothing.

    A login that is not connected now is not known. `is_published`: what a publication grants has been granted.
    """
    portal, source, server = session.portal, session.source, session.server
    reader = None
    if session.upstream is not None:
        reader = READER
    elif link.list_behind(portal, server):
        reader = RELAY_READER
    found = source.execute(UNREADABLE, {
        "slot": server.stream, "schemas": list(schemas), "tables": session.copied.names,
        "reader": None if is_published else reader,
    }).fetchone()  # fmt: skip
    if found is None:
        return None
    role = sql.Identifier(found["login"]).as_string()
    if session.upstream is not None:
        fix = f"on server {session.upstream.server.name}: grant {READER} to {role}"
        fix += f"; then: rollbook server add {server.name}" if is_published else ""
    elif reader is not None:
        fix = f"on the portal: grant {reader} to {role}"
        fix += f"; select rollbook.publish_courses('{server.name}')" if is_published else ""
    else:
        courses = [catalog.course_of(portal, name) or name for name in found["schemas"]]
        fix = "; then: ".join(f"rollbook course grant {course_word(name)} {quoted(found['login'])}" for name in courses)
    return Unreadable(found["login"], found["schemas"], fix)


def refuse_unreadable(session: Session, schemas: Sequence[str]) -> None:
    """Raise RefusedError if a first copy of one of these schemas could not begin, before anything is published."""
    there: dict[str, list[catalog.Copy]] = {}
    for copy in session.copies(*schemas):
        there.setdefault(copy.schema_name, []).append(copy)
    copied = {name for name, each in there.items() if all(copy.sync and not copy.is_due for copy in each)}
    lacking = unreadable(session, [name for name in schemas if name not in copied], is_published=False)
    if lacking is not None:
        courses = [catalog.course_of(session.portal, name) or name for name in lacking.schemas]
        more = f" and {len(courses) - 1} more" if len(courses) > 1 else ""
        raise RefusedError(
            f"the login {lacking.login} of server {session.server.name} may not read the copies of {courses[0]}{more}",
            why=f"the first copy reads them on {session.source_name} by this login", fix=lacking.fix,
        )  # fmt: skip
