"""The logins by which servers subscribe, at the portal and at relays: who may too much there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rollbook.core.shape import name
from rollbook.core.shell import is_name
from rollbook.replication import answered
from rollbook.replication.readable import READER
from rollbook.system.doctor.finding import PORTAL, Check, Finding, attention
from rollbook.system.doctor.here import set_route

if TYPE_CHECKING:
    from rollbook.core.db import Conn

# `servers`: those that this database feeds. Whoever reads a slot of theirs now.
LOGINS = """
logins as (
    select v.name as server, v.is_relay, v.reader, r.*
    from jsonb_to_recordset(%(servers)s) as v (name text, is_relay boolean, reader text)
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
    coalesce('REPLICATION, and membership in ' || l.reader, 'REPLICATION, and SELECT on the copies of its courses')
        as wanted,
    k.fix
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
    where m.member = l.oid and m.roleid::regrole::text is distinct from l.reader and (
        starts_with(m.roleid::regrole::text, 'rollbook_') or starts_with(m.roleid::regrole::text, 'pg_')
    )
) as k
where not l.rolsuper
order by 1
"""
)

SUPERUSERS = (
    "with "
    + LOGINS
    + """
select
    l.server, l.rolname::text as role, l.is_relay, l.oid = 10 as is_first
from logins as l where l.rolsuper order by 1
"""
)

CHECK = Check("subscription login", TOO_MUCH)


def superusers(
    source: Conn, where: str, asked: Mapping[str, Any], routes: Mapping[str, str | None]
) -> Iterator[Finding]:
    """Return the subscriptions that log in as a superuser at the portal, or a relay; `routes`: theirs, by server.

    The first superuser stays one: another role takes over.
    """
    for row in source.execute(SUPERUSERS, asked):
        server = row["server"]
        if where != PORTAL and (server not in routes or not is_name(row["role"])):
            wanted = "a role with REPLICATION, and no superuser"
            yield attention("superuser", where, "a subscription logs in as a superuser", wanted, answered.look(where))
            continue
        role = name(f"{server}_stream" if row["is_first"] else row["role"])
        makes = (
            f"create role {role} login replication" if row["is_first"] else f"alter role {role} nosuperuser replication"
        )
        if where == PORTAL and not row["is_relay"]:
            rights = "SELECT on the copies of its courses"
            grants = (
                f"grant usage on schema rollbook to {role}; grant select on rollbook.heartbeat to {role}; "  # noqa: S608 (to be read)
                f"select rollbook.grant_course(c.course_id, '{role}') from rollbook.course as c "
                f"where '{server}' in (c.server, c.moving_to)"
            )
        else:
            reader = "rollbook_relay" if where == PORTAL else READER
            rights, grants = f"membership in {reader}", f"grant {reader} to {role}"
        steps = [f"{makes}; {grants}"]
        if row["is_first"] and (known := routes.get(server)):
            given = {key: str(text) for key, text in conninfo_to_dict(known).items() if key != "password"}
            route = make_conninfo(**given | {"user": role})
            text = route.replace("'", "''")
            steps += [
                f"on the portal: {set_route(server, 'subscription_dsn', route).rstrip(';')}",
                f"on server {server}: alter subscription rollbook_{server} connection '{text}'",
            ]
        yield attention(
            "superuser", where, f"the subscription of server {server} logs in as superuser {row['role']}",
            f"a role with REPLICATION, and {rights}", f"{'; then: '.join(steps)};",
        )  # fmt: skip
