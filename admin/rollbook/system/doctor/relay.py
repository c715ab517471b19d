"""What a relay sends on, and the logins by which servers subscribe there: who may too much, and who too little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rollbook.replication.build import READER
from rollbook.replication.forward import differing
from rollbook.system.doctor.finding import Check, Finding, attention, resync
from rollbook.system.doctor.here import set_route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

# `servers`: those behind the relay. Whoever reads a slot of theirs now.
LOGINS = """
logins as (
    select v.name as server, r.*
    from jsonb_to_recordset(%(servers)s) as v (name text)
    inner join pg_replication_slots as s on s.slot_name = 'rollbook_' || v.name and s.database = current_database()
    inner join pg_stat_activity as a on a.pid = s.active_pid
    inner join pg_roles as r on r.oid = a.usesysid
)
"""

TOO_MUCH = (
    "with "  # noqa: S608 (constants)
    + LOGINS
    + """
select distinct
    format('login %%I of a subscription has %%s', l.rolname, k.words) as found,
    'REPLICATION, and membership in rollbook_subscriber' as wanted, k.fix
from logins as l
cross join lateral (
    select 'CREATEROLE' as words, format('alter role %%I nocreaterole;', l.rolname) as fix where l.rolcreaterole
    union all
    select 'CREATEDB', format('alter role %%I nocreatedb;', l.rolname) where l.rolcreatedb
    union all
    select 'BYPASSRLS', format('alter role %%I nobypassrls;', l.rolname) where l.rolbypassrls
    union all
    select 'membership in ' || m.roleid::regrole, format('revoke %%s from %%I;', m.roleid::regrole, l.rolname)
    from pg_auth_members as m
    where m.member = l.oid and m.roleid::regrole::text <> 'rollbook_subscriber' and (
        starts_with(m.roleid::regrole::text, 'rollbook_') or starts_with(m.roleid::regrole::text, 'pg_')
    )
) as k
where not l.rolsuper
order by 1
"""
)

TOO_LITTLE = (
    "with "
    + LOGINS
    + """
select
    format('login %%I of server %%s may not read %%s', l.rolname, l.server,
           string_agg(distinct n.nspname, ', ' order by n.nspname)) as found,
    'SELECT on what its publication lists, by rollbook_subscriber: a first copy fails' as wanted,
    format('grant rollbook_subscriber to %%I; then: rollbook server add %%s', l.rolname, l.server) as fix
from logins as l
inner join pg_publication as p on p.pubname = 'rollbook_' || l.server
inner join pg_publication_rel as r on r.prpubid = p.oid
inner join pg_class as c on c.oid = r.prrelid
inner join pg_namespace as n on n.oid = c.relnamespace
where not (has_schema_privilege(l.oid, n.oid, 'usage') and has_table_privilege(l.oid, c.oid, 'select'))
group by l.rolname, l.server
order by 1
"""
)

SUPERUSERS = (
    "with "
    + LOGINS
    + """
select
    l.server, l.rolname::text as role, l.oid = 10 as is_first, quote_ident(l.rolname) as quoted,
    quote_ident(l.server || '_stream') as another
from logins as l where l.rolsuper order by 1
"""
)

SHOWN = 3  # copies that a line names
CHECKS = (Check("subscription login", TOO_MUCH), Check("subscription login", TOO_LITTLE))


def column_lists(
    relay: Conn, where: str, server: str, sent: Sequence[Row], courses: Mapping[str, str]
) -> Iterator[Finding]:
    """Return that a relay sends copies on to a server with other columns than the portal sends.

    A table that is not listed is a check of its own. `sent`: rows of rollbook.published_copies; `courses`: their ids,
    by schema.
    """
    stream = f"rollbook_{server}"
    found, schemas = [], sorted({row["schema_name"] for row in sent})
    for (schema, table), (ours, theirs) in differing(sent, relay, stream, schemas).items():
        if ours is not None and theirs is not None:
            parts = (("without", ours - theirs), ("with", theirs - ours))
            words = " and ".join(f"{word} {', '.join(sorted(names))}" for word, names in parts if names)
            found.append((courses[schema], f"{table} of course {courses[schema]} {words}"))
    if found:
        rest = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        yield attention(
            "publication", where, f"publication {stream} lists {'; '.join(words for _, words in found[:SHOWN])}{rest}",
            "the columns that the portal sends", resync(list(dict.fromkeys(course for course, _ in found))),
        )  # fmt: skip


def superuser_logins(
    relay: Conn, where: str, asked: Mapping[str, Any], routes: Mapping[str, str | None]
) -> Iterator[Finding]:
    """Return the subscriptions that log in at a relay as a superuser; `routes`: by server, its subscription route.

    The first superuser stays one: another role takes over.
    """
    for row in relay.execute(SUPERUSERS, asked):
        role, server = row["another"] if row["is_first"] else row["quoted"], row["server"]
        makes = (
            f"create role {role} login replication" if row["is_first"] else f"alter role {role} nosuperuser replication"
        )
        fix = f"{makes}; grant {READER} to {role};"
        if row["is_first"] and (known := routes.get(server)):
            given = {key: str(text) for key, text in conninfo_to_dict(known).items() if key != "password"}
            route = make_conninfo(**given | {"user": role})
            text = route.replace("'", "''")
            fix = (
                f"{fix[:-1]}; then: on the portal: {set_route(server, 'subscription_dsn', route).rstrip(';')}; then: "
                f"on server {server}: alter subscription rollbook_{server} connection '{text}';"
            )
        yield attention(
            "superuser", where, f"the subscription of server {server} logs in as superuser {row['role']}",
            "a role with REPLICATION, and membership in rollbook_subscriber", fix,
        )  # fmt: skip
