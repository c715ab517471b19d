"""What a server's stream requires on both sides, checked before anything is created."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors, sql

from rollbook.core.conninfo import masked, sentences
from rollbook.core.db import Conn, other_encoding
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.rows import Row, one
from rollbook.core.shell import course_word
from rollbook.replication import catalog
from rollbook.replication.link import Server, has_password, identity
from rollbook.replication.session import Session

ROOM = """
select
    current_setting('server_version_num')::int as version,
    current_setting('wal_level') as wal_level,
    current_setting('max_replication_slots')::int as slots,
    (select count(*) from pg_replication_slots) as used_slots,
    current_setting('max_wal_senders')::int as senders,
    (select count(*) from pg_stat_replication) as used_senders,
    r.rolreplication or r.rolsuper as may_replicate,
    has_database_privilege(current_database(), 'create') as may_create,
    exists (select from pg_roles as o where o.rolname = 'rollbook_owner' and pg_has_role(o.oid, 'usage')) as may_own
from pg_roles as r where r.rolname = current_user
"""

SERVER_ROOM = """
select
    current_setting('server_version_num')::int as version,
    coalesce(current_setting('max_active_replication_origins', true), current_setting('max_replication_slots'))::int
        as origins,
    (select count(*) from pg_replication_origin) as used_origins,
    current_setting('max_logical_replication_workers')::int as workers,
    (select count(*) from pg_subscription) as used_workers,
    current_setting('max_worker_processes')::int as processes,
    r.rolsuper or exists (
        select from pg_roles as c where c.rolname = 'pg_create_subscription' and pg_has_role(c.oid, 'usage')
    ) as may_subscribe,
    has_database_privilege(current_database(), 'create') as may_create,
    to_regclass('rollbook.course') is not null as is_portal,
    (
        select string_agg(s.subname, ', ') from pg_subscription as s
        where starts_with(s.subname, 'rollbook_') and s.subname <> %(stream)s
            and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
    ) as others
from pg_roles as r where r.rolname = current_user
"""

PROBE = "rollbook probe"  # the subscription that tries a route, and the publication that it looks for
MAY_RECORD = """
select bool_and(has_table_privilege('rollbook.server', w.privilege)) as yes
from unnest('{insert,update,delete}'::text[]) as w (privilege)
"""

IDENTITIES = """
select format('%%I.%%I', n.nspname, c.relname) as name
from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
where n.nspname = any(%s) and c.relname in (select t.table_name from rollbook.copied_tables() as t)
    and c.relreplident <> 'd'
order by 1
"""


def refuse_encoding(session: Session) -> None:
    """Raise RefusedError unless both databases are in UTF8. A collation may differ: rows are compared byte by byte."""
    for conn, what, why in (
        (session.portal, "the portal's database", "one text that is not UTF-8 would stop the stream of a server"),
        (session.conn, f"the database of server {session.server.name}",
         "the first name with a character that it lacks would stop the stream of all its courses"),
    ):  # fmt: skip
        if encoding := other_encoding(conn):
            raise RefusedError(
                f"{what} has the encoding {encoding}, not UTF8", why=why,
                fix=f"create database {conn.info.dbname}_utf8 encoding 'UTF8' template template0, and use that"
                if conn is session.conn else "dump it, and restore it into a database with encoding 'UTF8'",
            )  # fmt: skip


def refuse_identity(source: Conn, schemas: Sequence[str]) -> None:
    """Raise RefusedError for a copy whose replica identity somebody changed: published, it could not be updated."""
    for row in source.execute(IDENTITIES, [list(schemas)]):
        raise RefusedError(
            f"the replica identity of {row['name']} is not the primary key",
            why="once it is published, PostgreSQL refuses each change of it",
            fix=f"alter table {row['name']} replica identity default;",
        )


@dataclass(frozen=True)
class Room:
    """A limit of a server, and how much of it is used."""

    what: str
    setting: str
    limit: int
    used: int


def source_room(here: Row, name: str) -> list[Room]:
    """Return the limits of a source that servers need, from the row of ROOM; `name`: the portal, or a relay."""
    return [
        Room(f"replication slots of {name}", "max_replication_slots", here["slots"], here["used_slots"]),
        Room(f"WAL senders of {name}", "max_wal_senders", here["senders"], here["used_senders"]),
    ]


def server_room(there: Row, name: str) -> list[Room]:
    """Return the limits of a server, from the row of SERVER_ROOM."""
    origins = "max_active_replication_origins" if there["version"] >= 180000 else "max_replication_slots"
    return [
        Room(f"replication origins of server {name}", origins, there["origins"], there["used_origins"]),
        Room(f"logical replication workers of server {name}", "max_logical_replication_workers", there["workers"],
             there["used_workers"]),
        Room(f"worker processes of server {name}", "max_worker_processes", there["processes"], there["used_workers"]),
    ]  # fmt: skip


def alter_system(room: Room, value: int) -> str:
    """Return the statement that makes room; it takes a restart."""
    return f"alter system set {room.setting} = {value}"


def check_recorder(portal: Conn) -> None:
    """Raise UnreachableError for a role that may not record servers."""
    if not one(portal, MAY_RECORD)["yes"]:
        role = sql.Identifier(portal.info.user).as_string()
        raise UnreachableError(
            "this role may not record servers", why="whoever may decides to which server this program connects",
            fix=f"on the portal: grant insert, update, delete on rollbook.server to {role}",
        )  # fmt: skip


def check_room(session: Session) -> None:
    """Raise RefusedError with everything that is lacking and the statements that provide it."""
    source, conn, server = session.source, session.conn, session.server
    here, there = one(source, ROOM), one(conn, SERVER_ROOM, {"stream": server.stream})  # type: ignore[arg-type]
    if there["is_portal"]:
        raise RefusedError(
            f"the database of server {server.name} is a portal itself",
            why="copies flow one way, never in a ring",
            fix="name another database in --admin-dsn",
        )
    if session.upstream is not None and there["others"] == session.upstream.server.stream:
        raise RefusedError(
            f"the database of server {server.name} is that of its relay, {session.source_name}",
            why="a database receives copies from one server entry only",
            fix="name another database in --admin-dsn",
        )
    if there["others"]:
        raise RefusedError(
            f"the database of server {server.name} already receives copies, by subscription {there['others']}",
            why="a database receives copies from one server entry only",
            fix="attach the course to that server, or name another database in --admin-dsn",
        )
    for who, version in ((session.source_name, here["version"]), (f"server {server.name}", there["version"])):
        if version < 150000:
            raise RefusedError(f"{who} is older than PostgreSQL 15", fix="upgrade it")
    refuse_encoding(session)
    lacking: list[tuple[str, str, str]] = []  # fact, place and statement
    slot = catalog.slot(source, server)
    if slot:
        refuse_slot(session, slot)
    if here["wal_level"] != "logical":
        fact = f"wal_level of {session.source_name} is {here['wal_level']}"
        lacking.append((fact, session.source_name, "alter system set wal_level = 'logical'"))
    for place, room in rooms(session, here, there):
        need = 2 if room.setting == "max_logical_replication_workers" else 3
        if room.limit - room.used < need and slot is None:
            fact = f"{room.what}: {room.used} of {room.limit} are used"
            lacking.append((fact, place, alter_system(room, room.used + need + 7)))
    if lacking:
        lines = {place: [line for _, at, line in lacking if at == place] for _, place, _ in lacking}
        raise RefusedError(
            "there is no room for another server: " + "; ".join(fact for fact, _, _ in lacking),
            why="a server takes one slot, sender, origin and worker, and two more during a first copy",
            fix="; then: ".join(f"on {place}: {'; '.join(each)}; then restart it" for place, each in lines.items()),
        )
    where = "" if session.upstream is None else f" on {session.source_name}"
    for right, words, line in (
        (here["may_replicate"], f"this role may not create a replication slot{where}", "alter role ... replication"),
        (here["may_create"], f"this role may not create a publication{where}", "grant create on database ..."),
        (here["may_own"], f"this role may not act for rollbook_owner{where}", "grant rollbook_owner to ..."),
        (there["may_subscribe"] and there["may_create"],
         f"the role on server {server.name} may not create a subscription",
         "use a superuser, or from PostgreSQL 16 on grant pg_create_subscription and create on the database"),
    ):  # fmt: skip
        if not right:
            raise UnreachableError(words, fix=line)


def rooms(session: Session, here: Row, there: Row) -> list[tuple[str, Room]]:
    """Return each limit of a server and its source, after the place where it is set."""
    name = session.server.name
    return [
        *((session.source_name, room) for room in source_room(here, session.source_name)),
        *((f"server {name}", room) for room in server_room(there, name)),
    ]


def refuse_slot(session: Session, slot: catalog.Slot) -> None:
    """Raise RefusedError for a slot of the server's name that cannot feed it."""
    where, name = session.source_name, session.server.stream
    if slot.is_here is False:
        raise RefusedError(
            f"the slot {name} belongs to the database {slot.database} in the same cluster",
            fix="choose another name for the server",
        )
    if slot.plugin != "pgoutput":
        raise RefusedError(
            f"{where} has a slot {name} that is not Rollbook's",
            why=f"its plugin is {slot.plugin}, not pgoutput" if slot.plugin else "it is a physical slot",
            fix=f"on {where}: select pg_drop_replication_slot('{name}'); then the same command again",
        )


def refuse_earlier_slot(session: Session) -> None:
    """Raise RefusedError for a slot of the server's name at a source where Rollbook has not begun to make one.

    The record comes before the slot: whoever goes on with a command that was killed has one, and may take the slot.
    """
    slot, where, name = catalog.slot(session.source, session.server), session.source_name, session.server.stream
    if slot is None:
        return
    at = f"from pg_replication_slots where slot_name = '{name}'"
    end = f"select pg_terminate_backend(active_pid, 10000) {at}; " if slot.is_read else ""
    raise RefusedError(
        f"{where} has a slot {name} that is not Rollbook's",
        why="it was there before: somebody else has made it, or an earlier server of that name has left it"
        f"{'; a session reads it' if slot.is_read else ''}",
        fix=f"on {where}: {end}select pg_drop_replication_slot(slot_name) {at}; then the same command again",
    )


def check_copy_room(session: Session) -> None:
    """Raise RefusedError if one of the slots, senders, origins and workers that a first copy takes is not free."""
    here, there = one(session.source, ROOM), one(session.conn, SERVER_ROOM, {"stream": session.server.stream})  # type: ignore[arg-type]
    for place, room in rooms(session, here, there):
        if room.used >= room.limit:
            raise RefusedError(
                f"there is no room for a first copy: {room.what}: {room.used} of {room.limit} are used",
                why="it takes one slot, sender, origin and worker more",
                fix=f"free one; or: on {place}: {alter_system(room, room.used + 8)}; then restart it",
            )


def refuse_other_portal(session: Session) -> None:
    """Raise RefusedError if a server that is new to this portal has a subscription of its name already."""
    if session.subscription() is None:
        return
    server = session.server
    raise RefusedError(
        f"the database of server {server.name} already receives copies, by subscription {server.stream}",
        why="another portal created it, or this one before it lost its record of the server",
        fix=f"choose another database; or, if no portal uses it, run there: alter subscription {server.stream} "
        f"disable; alter subscription {server.stream} set (slot_name = none); drop subscription {server.stream}",
    )


def refuse_lost(session: Session) -> None:
    """Raise RefusedError if a stream that feeds courses has lost its slot or subscription.

    A new one would begin now, and nobody would know what these courses have missed.
    """
    portal, server = session.portal, session.server
    fed = [row.course for row in catalog.fed(portal, server) if row.state in ("ok", "unknown")]
    slot = catalog.slot(session.source, server)
    lost = "slot" if slot is None or slot.wal_status == "lost" else "subscription"
    if fed and (lost == "slot" or session.subscription() is None):
        raise RefusedError(
            f"the {lost} of server {server.name} is gone", why="its courses lack the changes committed since",
            fix=f"rollbook replication resync {' '.join(map(course_word, fed[:5]))}",
        )  # fmt: skip


def refuse_itself(session: Session) -> None:
    """Raise RefusedError if the server's database is the portal's own."""
    is_portal = one(session.conn, "select to_regproc('rollbook.portal_identity') is not null as yes")["yes"]
    if is_portal and identity(session.conn) == identity(session.portal):
        raise RefusedError(
            f"--admin-dsn of server {session.server.name} leads to the portal's own database",
            why="courses there need no server: rollbook course create creates their schema",
            fix="name the database of another server",
        )


def try_route(conn: Conn, server: Server) -> bool:
    """Let the server connect to its source as its subscription will; leaves nothing. Raises UnreachableError.

    Returns whether there is a publication of the probe's name where its route leads.
    """
    # A name that no stream can have; and not the stream's publication, whose tables need not exist yet.
    name = sql.Identifier(PROBE)
    missing: list[str] = []

    def take_warning(said: psycopg.errors.Diagnostic) -> None:
        missing.extend(["publication"] if said.sqlstate == "42704" else [])

    probe = sql.SQL("create subscription {} connection {} publication {} with ({})").format(
        name, sql.Literal(server.subscription_dsn), name,
        sql.SQL("create_slot = false, slot_name = none, enabled = false, copy_data = false"),
    )  # fmt: skip
    conn.add_notice_handler(take_warning)
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("set local client_min_messages = warning")
            conn.execute(probe)
    except (errors.ConnectionFailure, errors.QueryCanceled) as exc:
        raise unroutable(server, exc) from exc
    except errors.ProhibitedSqlStatementAttempted as exc:
        raise without_password(conn.info.user, server, exc) from exc
    finally:
        conn.remove_notice_handler(take_warning)
    return not missing


def check_route(session: Session) -> None:
    """Let the server connect to its source, and see that it is that source. Raises UnreachableError, RefusedError."""
    name = sql.Identifier(PROBE)
    session.source.execute(sql.SQL("drop publication if exists {}").format(name))  # of a killed command
    session.source.execute(sql.SQL("create publication {}").format(name))
    try:
        is_there = try_route(session.conn, session.server)
    finally:
        session.source.execute(sql.SQL("drop publication if exists {}").format(name))
    if not is_there:
        raise RefusedError(
            f"the subscription route of server {session.server.name} does not lead to {session.source_name}",
            why="it leads to another database",
            fix=f"add --subscription-dsn with the route by which server {session.server.name} reaches "
            f"{session.source_name}; the server resolves it",
        )  # fmt: skip


def unroutable(server: Server, exc: psycopg.Error) -> UnreachableError:
    """Return the error of a server that cannot connect to its source, with its reason."""
    source = "the portal" if server.through is None else f"its relay, server {server.through},"
    why = sentences(str(exc.diag.message_primary))
    fix = "correct --subscription-dsn: the server resolves it, with its own service file and password file"
    if re.search(r"no pg_hba\.conf entry|pg_hba\.conf rejects", why):
        where, page = ("the portal", "servers") if server.through is None else (f"server {server.through}", "relay")
        fix = (
            f"let that login in from that address in pg_hba.conf of {where}, before other lines: docs/{page}.md has "
            f"the lines; then on {where}: select pg_reload_conf(); then the same command again"
        )
    return UnreachableError(f"server {server.name} cannot reach {source} by its subscription route", why=why, fix=fix)


def without_password(role: str, server: Server, exc: psycopg.Error) -> UnreachableError:
    """Return the error of a role whose subscriptions must log in to their source by a password, and do not."""
    source = "the portal" if server.through is None else f"server {server.through}"
    if has_password(server.subscription_dsn or ""):
        page = "servers" if server.through is None else "relay"
        fact = f"{source} lets the login of --subscription-dsn in without asking for its password"
        fix = f"let pg_hba.conf of {source} ask that login for it (scram-sha-256): docs/{page}.md has the lines"
    else:
        fact = (
            f"role {role} of server {server.name} is not a superuser, so PostgreSQL wants password=... in "
            "--subscription-dsn"
        )
        fix = "put password=... there: neither passfile= nor service= will do"
    return UnreachableError(
        fact,
        why=masked(exc.diag.message_detail or str(exc.diag.message_primary)),
        fix=f"{fix}; or name a superuser of server {server.name} in --admin-dsn",
        sqlstate=exc.sqlstate,
    )


def check_schemas(session: Session, wanted: Sequence[str]) -> None:
    """Raise RefusedError if another role owns a schema with the name of one of these: it is never taken over."""
    for copy in catalog.copies(session.conn, session.copied, wanted, None):
        if copy.owner != "rollbook_owner":
            raise RefusedError(
                f"server {session.server.name} has a schema {copy.schema_name} that is not Rollbook's",
                why=f"it belongs to {copy.owner}",
                fix="rename it there, or drop it if nobody needs it",
            )
