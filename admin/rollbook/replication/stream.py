"""Making and unmaking a server's stream: publication, slot, subscription, and the schemas of its courses there.

Every step looks first and does what is lacking, so that a command that was stopped anywhere can be run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, sql

from rollbook.core.db import Conn, masked
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.migrating import SQL
from rollbook.core.rows import Row, one
from rollbook.replication.link import Server

TABLES = ("auth_user", "auth_userprofile", "student_courseenrollment")
SLOT_SECONDS = 10.0  # how long a slot's reader may take to let go

ROOM = """
select
    current_setting('wal_level') as wal_level,
    current_setting('max_replication_slots')::int as slots,
    (select count(*) from pg_replication_slots) as used_slots,
    current_setting('max_wal_senders')::int as senders,
    (select count(*) from pg_stat_replication) as used_senders,
    r.rolreplication or r.rolsuper as may_replicate,
    has_database_privilege(current_database(), 'create') as may_create,
    pg_has_role('rollbook_owner', 'usage') as may_own
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

SUBSCRIPTION = """
select
    s.oid, s.subenabled as enabled, s.subslotname as slot, s.subdisableonerr as stops_on_error, w.pid as worker,
    exists (
        select from pg_subscription_rel as r where r.srsubid = s.oid and r.srrelid = to_regclass('rollbook.heartbeat')
    ) as is_whole,
    coalesce(t.apply_error_count, 0) as apply_errors, coalesce(t.sync_error_count, 0) as sync_errors,
    to_jsonb(t) - array['subid', 'subname', 'apply_error_count', 'sync_error_count', 'stats_reset'] as conflicts
from pg_subscription as s
left join pg_stat_subscription_stats as t on t.subid = s.oid
left join lateral (
    select max(p.pid) as pid from pg_stat_subscription as p
    where p.subid = s.oid and p.relid is null and (to_jsonb(p) ->> 'leader_pid') is null
) as w on true
where s.subname = %s and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
"""

# Each copy of the courses as it stands on the server; `sync` is null where the stream does not feed it.
COPIES = """
select
    n.nspname as schema_name, t.name as table, c.oid is not null as is_there,
    pg_get_userbyid(n.nspowner) as owner, r.srsubstate::text as sync,
    exists (
        select from pg_trigger as g
        where g.tgrelid = c.oid and g.tgname = 'rollbook_guard_copy' and g.tgenabled = 'O'
    ) as guarded,
    array(
        select w.name from jsonb_array_elements_text(t.columns) with ordinality as w (name, position)
        where not exists (
            select from pg_attribute as a where a.attrelid = c.oid and a.attname = w.name and not a.attisdropped
        )
        order by w.position
    ) as lacking
from pg_namespace as n
cross join jsonb_each(%(whitelist)s) as t (name, columns)
left join pg_class as c on c.relnamespace = n.oid and c.relname = t.name and c.relkind = 'r'
left join pg_subscription_rel as r on r.srrelid = c.oid and r.srsubid = %(subscription)s
where n.nspname = any (%(schemas)s)
order by n.nspname, array_position(array['auth_user', 'auth_userprofile', 'student_courseenrollment'], t.name)
"""

WHITELIST = """
select jsonb_object_agg(t.name, to_jsonb(rollbook.replicated_columns(t.name))) as columns
from unnest(array['auth_user', 'auth_userprofile', 'student_courseenrollment']) as t (name)
"""

SCHEMA_STATEMENTS = """
select s.words
from unnest(%(tables)s::text[]) with ordinality as t (name, position)
cross join lateral (
    select 1, rollbook.copy_statements(%(schema)s, t.name)
    union all
    select 2, rollbook.guard_statements(%(schema)s, t.name)
) as s (part, words)
order by t.position, s.part
"""

# The guard alone, for a table that stands there without it.
GUARD_STATEMENTS = """
select s.words
from unnest(%(tables)s::text[]) as t (name)
cross join lateral (
    select 1, format('drop trigger if exists rollbook_guard_copy on %%I.%%I', %(schema)s::text, t.name)
    union all
    select 2, g.words from rollbook.guard_statements(%(schema)s, t.name) as g (words)
    where g.words ~ '(create|on) trigger'
) as s (part, words)
order by t.name, s.part
"""

PUBLISHED = """
select p.schemaname as schema_name, count(*) as tables from pg_publication_tables as p
where p.pubname = %s and p.schemaname <> 'rollbook' group by 1
"""

ATTACHED = """
select c.course_id as course, c.schema_name::text as schema_name, c.state, c.server
from rollbook.course as c where c.server = %s order by c.course_id
"""

# Local objects of the course in its schema on the server, and how many users' copies stand there.
LOCAL = """
select format('column %%s.%%s', c.relname, a.attname) as name
from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) and c.relkind = 'r'
    and not coalesce(%(whitelist)s::jsonb -> c.relname::text ? a.attname::text, true)
union all
select format('%%s %%s', case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence'
                            when 'f' then 'foreign table' when 'c' then 'type' else 'table' end, c.relname)
from pg_class as c
where c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c')
    and not %(whitelist)s::jsonb ? c.relname::text
union all
select format('function %%s', p.oid::regprocedure) from pg_proc as p
where p.pronamespace = to_regnamespace(quote_ident(%(schema)s))
union all
select format('type %%s', y.typname) from pg_type as y
where y.typnamespace = to_regnamespace(quote_ident(%(schema)s)) and y.typtype in ('d', 'e', 'r')
order by 1
"""

LEFT_SLOTS = """
select slot_name from pg_replication_slots
where slot_name = %(stream)s or starts_with(slot_name, 'pg_' || %(subscription)s::text || '_sync_')
"""


@dataclass
class Steps:
    """Statements in the order in which they run; with `dry` they are only noted."""

    dry: bool = False
    noted: list[tuple[str, str]] = field(default_factory=list)

    def run(self, conn: Conn, where: str, *statements: sql.Composed | sql.SQL | str) -> None:
        """Run statements, several of them in one transaction."""
        words = [sql.SQL(s) if isinstance(s, str) else s for s in statements]
        self.noted += [(where, shown(word).as_string(conn)) for word in words]
        if self.dry:
            return
        if len(words) == 1:
            conn.execute(words[0])
            return
        with conn.transaction():
            for word in words:
                conn.execute(word)


def shown(statement: sql.Composable) -> sql.Composable:
    """Return a statement with the passwords in its literals masked: once quoted again, they could not be told."""
    if isinstance(statement, sql.Composed):
        return sql.Composed([shown(part) for part in statement])
    if isinstance(statement, sql.Literal) and isinstance(statement._obj, str):
        return sql.Literal(masked(statement._obj))
    return statement


# --- what is there ----------------------------------------------------------------------------------------------------


def subscription(conn: Conn, to: Server) -> Row | None:
    """Return the subscription: oid enabled slot worker apply_errors sync_errors conflicts; None if there is none."""
    return conn.execute(SUBSCRIPTION, [to.stream]).fetchone()


def whitelist(portal: Conn) -> Any:  # noqa: ANN401
    """Return the replicated columns by table, as JSON for a question to a server."""
    from psycopg.types.json import Jsonb

    return Jsonb(one(portal, WHITELIST)["columns"])


def copies(conn: Conn, columns: Any, schemas: Sequence[str], found: Row | None) -> list[Row]:  # noqa: ANN401
    """Return the copies in these schemas of a server: schema_name table is_there owner sync guarded lacking."""
    asked = {"whitelist": columns, "schemas": list(schemas), "subscription": found["oid"] if found else None}
    return conn.execute(COPIES, asked).fetchall()


def attached(portal: Conn, to: Server) -> list[Row]:
    """Return the courses of a server: course schema_name state server."""
    return portal.execute(ATTACHED, [to.name]).fetchall()


def published(portal: Conn, to: Server) -> dict[str, int]:
    """Return how many tables of each schema the server's publication lists."""
    return {row["schema_name"]: row["tables"] for row in portal.execute(PUBLISHED, [to.stream])}


def slot_there(portal: Conn, to: Server) -> Row | None:
    """Return the server's slot: slot_name database active wal_status; None if there is none."""
    return portal.execute(
        "select slot_name, database, active, active_pid, wal_status, database = current_database() as is_here "
        "from pg_replication_slots where slot_name = %s",
        [to.stream],
    ).fetchone()


def local_objects(conn: Conn, columns: Any, schema_name: str) -> list[str]:  # noqa: ANN401
    """Return in words what a course has added to its schema on the server."""
    return [row["name"] for row in conn.execute(LOCAL, {"schema": schema_name, "whitelist": columns})]


def kept_schemas(conn: Conn, attached_schemas: Sequence[str]) -> list[str]:
    """Return the course schemas on the server that no stream feeds: kept when their courses were detached."""
    query = (
        "select n.nspname from pg_namespace as n where pg_get_userbyid(n.nspowner) = 'rollbook_owner' "
        "and n.nspname <> 'rollbook' and n.nspname <> all (%s) order by 1"
    )
    return [row["nspname"] for row in conn.execute(query, [list(attached_schemas)])]


# --- is there room ----------------------------------------------------------------------------------------------------


def check_room(portal: Conn, conn: Conn, to: Server) -> None:
    """Raise RefusedError, with all that is lacking and the lines that mend it, before anything is made."""
    here, there = one(portal, ROOM), one(conn, SERVER_ROOM, {"stream": to.stream})  # type: ignore[arg-type]
    if there["is_portal"]:
        raise RefusedError(
            f"the database of server {to.name} is a portal itself",
            why="copies flow one way, and never in a ring",
            fix="name another database in --admin-dsn",
        )
    if there["others"]:
        raise RefusedError(
            f"the database of server {to.name} is fed already, by subscription {there['others']}",
            why="one database takes one stream",
            fix="attach the course to that server, or name another database in --admin-dsn",
        )
    if there["version"] < 150000:
        raise RefusedError(f"server {to.name} is older than PostgreSQL 15", fix="upgrade it")
    lacking: list[tuple[str, str]] = []
    slot = slot_there(portal, to)
    if slot and not slot["is_here"]:
        raise RefusedError(
            f"the slot {to.stream} belongs to the database {slot['database']} in the same cluster",
            fix="choose another name for the server",
        )
    if here["wal_level"] != "logical":
        lacking.append(("wal_level of the portal is " + here["wal_level"], "alter system set wal_level = 'logical'"))
    for word, setting, limit, used, need in (
        ("replication slots of the portal", "max_replication_slots", here["slots"], here["used_slots"], 3),
        ("WAL senders of the portal", "max_wal_senders", here["senders"], here["used_senders"], 3),
        (f"replication origins of server {to.name}",
         "max_active_replication_origins" if there["version"] >= 180000 else "max_replication_slots",
         there["origins"], there["used_origins"], 3),
        (f"logical replication workers of server {to.name}", "max_logical_replication_workers",
         there["workers"], there["used_workers"], 2),
        (f"worker processes of server {to.name}", "max_worker_processes", there["processes"], there["used_workers"], 3),
    ):  # fmt: skip
        if limit - used < need and slot is None:
            lacking.append((f"{word}: {used} of {limit} are used", f"alter system set {setting} = {used + need + 7}"))
    if lacking:
        raise RefusedError(
            "there is no room for another stream: " + "; ".join(fact for fact, _ in lacking),
            why="a stream takes one slot, sender, origin and worker, and two more while it copies",
            fix="; ".join(line for _, line in lacking) + "; then restart that server",
        )
    for right, words, line in (
        (here["may_replicate"], "this role may not make a replication slot", "alter role ... replication"),
        (here["may_create"], "this role may not make a publication", "grant create on database ..."),
        (here["may_own"], "this role may not act for rollbook_owner", "grant rollbook_owner to ..."),
        (there["may_subscribe"] and there["may_create"], f"the role on server {to.name} may not make a subscription",
         "use a superuser, or from PostgreSQL 16 on grant pg_create_subscription and create on the database"),
    ):  # fmt: skip
        if not right:
            raise UnreachableError(words, fix=line)


def refuse_fed(conn: Conn, to: Server) -> None:
    """Raise RefusedError if the stream of a server that is new to this portal stands there: it is another's."""
    if subscription(conn, to) is None:
        return
    raise RefusedError(
        f"the database of server {to.name} is fed already, by subscription {to.stream}",
        why="another portal made it, or one that has forgotten this server",
        fix=f"choose another database; or, if no portal feeds it, there: alter subscription {to.stream} disable; "
        f"alter subscription {to.stream} set (slot_name = none); drop subscription {to.stream}",
    )


def refuse_gone(portal: Conn, conn: Conn, to: Server) -> None:
    """Raise RefusedError if a stream that feeds courses has lost its slot or subscription.

    A new one would begin now, and nobody would know what these courses have missed.
    """
    fed = [row["course"] for row in attached(portal, to) if row["state"] in ("ok", "unknown")]
    slot = slot_there(portal, to)
    lost = "slot" if slot is None or slot["wal_status"] == "lost" else "subscription"
    if fed and (lost == "slot" or subscription(conn, to) is None):
        raise RefusedError(
            f"the {lost} of server {to.name} is gone", why="its courses miss what was committed since",
            fix=f"rollbook replication resync {' '.join(repr(name) for name in fed[:5])}",
        )  # fmt: skip


def connection_of(to: Server) -> sql.Composed:
    """Return the CREATE SUBSCRIPTION of a stream up to its options."""
    return sql.SQL("create subscription {} connection {} publication {}").format(
        sql.Identifier(to.stream), sql.Literal(to.subscription_dsn), sql.Identifier(to.stream)
    )


def try_route(conn: Conn, to: Server) -> None:
    """Let the server connect to the portal, as its subscription will, and leave nothing. Raises UnreachableError."""
    # A name that no stream can bear; and not the stream's publication, whose tables need not be there yet.
    name = sql.Identifier("rollbook probe")
    probe = sql.SQL("create subscription {} connection {} publication {} with ({})").format(
        name, sql.Literal(to.subscription_dsn), name,
        sql.SQL("create_slot = false, slot_name = none, enabled = false, copy_data = false"),
    )  # fmt: skip
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(probe)
    except (errors.ConnectionFailure, errors.QueryCanceled) as exc:
        raise unroutable(to, exc) from exc


def unroutable(to: Server, exc: psycopg.Error) -> UnreachableError:
    """Return that the server does not get through to the portal, in its own words."""
    return UnreachableError(
        f"server {to.name} cannot reach the portal by its subscription route",
        why=masked(" ".join(str(exc.diag.message_primary).split())),
        fix="correct --subscription-dsn: it is read on the server, with the server's service file and password file",
    )


# --- making it --------------------------------------------------------------------------------------------------------


def version_of(conn: Conn) -> int:
    """Return the server's version, as 180006."""
    return conn.info.server_version


def build(portal: Conn, conn: Conn, to: Server, steps: Steps, *, copy: bool = True) -> None:
    """Make what the stream lacks: publication, slot, what a server needs, subscription. Twice is once."""
    steps.run(portal, "portal", sql.SQL("select rollbook.publish_courses({})").format(to.name))
    if slot_there(portal, to) is None:
        make_slot(portal, to, steps)
    prepare(conn, to, steps)
    found = subscription(conn, to)
    if found is not None:
        if not found["stops_on_error"]:  # a command was stopped within `refreshed`
            steps.run(
                conn, f"server {to.name}",
                sql.SQL("alter subscription {} set (disable_on_error = true)").format(sql.Identifier(to.stream)),
            )  # fmt: skip
        return
    options = ["create_slot = false", f"slot_name = '{to.stream}'", f"copy_data = {str(copy).lower()}",
               "disable_on_error = true", "streaming = on",
               # Without it a change is lost that was applied just before the connection broke and the server crashed:
               # the next worker confirms it, flushed or not.
               "synchronous_commit = local"]  # fmt: skip
    if min(version_of(portal), version_of(conn)) >= 170000:
        options.append("failover = true")
    statement = connection_of(to) + sql.SQL(" with ({})").format(sql.SQL(", ".join(options)))
    try:
        # Heartbeats that an earlier stream left there would stop the first copy of this one.
        steps.run(conn, f"server {to.name}", "delete from rollbook.heartbeat")
        steps.run(conn, f"server {to.name}", statement)
    except errors.ConnectionFailure as exc:
        raise unroutable(to, exc) from exc
    if not steps.dry:
        found = subscription(conn, to)
        assert found is not None  # noqa: S101 (made above)
        portal.execute("update rollbook.server set subscription = %s where name = %s", [found["oid"], to.name])


def make_slot(portal: Conn, to: Server, steps: Steps) -> None:
    """Make the slot: by function, since CREATE SUBSCRIPTION would hang where both databases are of one cluster."""
    failover = ", failover => true" if version_of(portal) >= 170000 else ""
    statement = f"select pg_create_logical_replication_slot('{to.stream}', 'pgoutput'{failover})"
    try:
        steps.run(portal, "portal", statement)
    except (errors.QueryCanceled, errors.LockNotAvailable) as exc:
        raise UnreachableError(
            f"the slot {to.stream} cannot be made yet", why=oldest_transaction(portal),
            fix="let that transaction end, then run the command again",
        ) from exc  # fmt: skip


def oldest_transaction(portal: Conn) -> str:
    """Return in words which transaction has written longest on the portal: what a new slot or first copy waits for."""
    row = portal.execute(
        "select pid, usename, round(extract(epoch from clock_timestamp() - xact_start)) as age from pg_stat_activity "
        "where backend_xid is not null and pid <> pg_backend_pid() order by xact_start limit 1"
    ).fetchone()
    if row is None:
        return "no transaction of the portal holds it up"
    return f"a transaction of {row['usename']} (pid {row['pid']}) on the portal is open for {row['age']} s"


def prepare(conn: Conn, to: Server, steps: Steps) -> None:
    """Make on the server what every course there needs: the owner, the place for heartbeats, the guard."""
    there = conn.execute("select to_regprocedure('rollbook.guard_copy()') is not null as ready").fetchone()
    if there and there["ready"]:
        return
    statements = [(SQL / "server" / "course_server.sql").read_text(), (SQL / "triggers" / "guard_copy.sql").read_text()]
    owned = "alter function rollbook.guard_copy() owner to rollbook_owner"
    public = "revoke execute on function rollbook.guard_copy() from public"
    steps.run(conn, f"server {to.name}", *statements, owned, public)


def check_schemas(portal: Conn, conn: Conn, to: Server, wanted: Sequence[Row]) -> None:
    """Raise RefusedError where somebody else has a schema of one of the courses' names: it is never taken over."""
    for row in copies(conn, whitelist(portal), [row["schema_name"] for row in wanted], None):
        if row["owner"] != "rollbook_owner":
            raise RefusedError(
                f"server {to.name} has a schema {row['schema_name']} that is not Rollbook's",
                why=f"it belongs to {row['owner']}",
                fix="rename or drop it there, if it may go",
            )


def make_schemas(portal: Conn, conn: Conn, to: Server, wanted: Sequence[Row], steps: Steps) -> list[str]:
    """Make what is lacking of the courses' schemas on the server, each course in one transaction; return the new."""
    new: list[str] = []
    there = copies(conn, whitelist(portal), [row["schema_name"] for row in wanted], None)
    for course in wanted:
        found = [row for row in there if row["schema_name"] == course["schema_name"]]
        standing = {row["table"]: row["guarded"] for row in found if row["is_there"]}
        absent = [name for name in TABLES if name not in standing]
        bare = {"tables": [name for name, guarded in standing.items() if not guarded], "schema": course["schema_name"]}
        if bare["tables"]:
            steps.run(
                conn, f"server {to.name}", *(row["words"] for row in portal.execute(GUARD_STATEMENTS, bare).fetchall())
            )
        if not absent:
            continue
        made = [] if found else [
            sql.SQL("create schema {} authorization rollbook_owner").format(sql.Identifier(course["schema_name"])),
            sql.SQL("comment on schema {} is {}").format(
                sql.Identifier(course["schema_name"]), sql.Literal(f"Rollbook: copies for course {course['course']}.")
            ),
        ]  # fmt: skip
        rows = portal.execute(SCHEMA_STATEMENTS, {"tables": absent, "schema": course["schema_name"]}).fetchall()
        owners = [
            sql.SQL("alter table {} owner to rollbook_owner").format(sql.Identifier(course["schema_name"], name))
            for name in absent
        ]
        steps.run(conn, f"server {to.name}", *made, *(sql.SQL(row["words"]) for row in rows), *owners)
        new += [] if found else [course["schema_name"]]
    return new


def refreshed(conn: Conn, to: Server, steps: Steps, *, copy: bool) -> None:
    """Let the subscription take up what the publication lists now, also one that stands still.

    A refresh takes an enabled subscription. So one that was stopped by an error is let go for the moment, and kept from
    stopping again before the refresh, which may take what stops it out of the stream.
    """
    where, name = f"server {to.name}", sql.Identifier(to.stream)
    refresh = sql.SQL("alter subscription {} refresh publication with (copy_data = {})").format(
        name, sql.SQL("true" if copy else "false")
    )
    found = subscription(conn, to)
    if found is None or found["enabled"]:  # none: a dry run
        steps.run(conn, where, refresh)
        return
    steps.run(conn, where, sql.SQL("alter subscription {} set (disable_on_error = false)").format(name))
    try:
        steps.run(conn, where, sql.SQL("alter subscription {} enable").format(name))
        steps.run(conn, where, refresh)
    finally:
        steps.run(conn, where, sql.SQL("alter subscription {} set (disable_on_error = true)").format(name))
        if to.paused_at is not None:
            steps.run(conn, where, sql.SQL("alter subscription {} disable").format(name))


def refresh(portal: Conn, conn: Conn, to: Server, steps: Steps) -> tuple[list[Row], bool]:
    """Let the subscription take up what the publication lists now.

    Returns the courses that are new to it, and whether PostgreSQL copies them. Where one of them has rows on the
    server already it does not, as their keys would stop it: the caller must then repair each.
    """
    found = subscription(conn, to)
    courses = {row["schema_name"]: row for row in attached(portal, to) if row["state"] != "detached"}
    there = copies(conn, whitelist(portal), list(courses), found)
    fresh = list(dict.fromkeys(row["schema_name"] for row in there if row["is_there"] and row["sync"] is None))
    empty = all(
        one(conn, sql.SQL("select not exists (select from {}) as empty").format(
            sql.Identifier(row["schema_name"], row["table"])
        ))["empty"]
        for row in there if row["is_there"] and row["sync"] is None
    )  # fmt: skip
    refreshed(conn, to, steps, copy=empty)
    return [courses[name] for name in fresh], empty


def enable(conn: Conn, to: Server) -> None:
    """Let the subscription go on."""
    conn.execute(sql.SQL("alter subscription {} enable").format(sql.Identifier(to.stream)))


def disable(conn: Conn, to: Server) -> None:
    """Let the subscription stop after the transaction under way."""
    conn.execute(sql.SQL("alter subscription {} disable").format(sql.Identifier(to.stream)))


def skip(conn: Conn, to: Server, finish_lsn: str) -> None:
    """Let the subscription leave out the transaction that ends there."""
    conn.execute(
        sql.SQL("alter subscription {} skip (lsn = {})").format(sql.Identifier(to.stream), sql.Literal(finish_lsn))
    )


def skip_unsent(portal: Conn, to: Server, finish_lsn: str) -> None:
    """Let the slot go past the transaction that ends there: the portal fails before the subscription could skip it."""
    portal.execute("select pg_replication_slot_advance(%s, %s::pg_lsn + 1)", [to.stream, finish_lsn])


def await_copies(conn: Conn, to: Server, schemas: Sequence[str], columns: Any, advance: Callable[[int], None],  # noqa: ANN401
                 seconds: float | None, waiting: Callable[[], None]) -> str:  # fmt: skip
    """Wait until PostgreSQL has copied the tables of these schemas. Returns `ready`, `disabled` or `copying` (late)."""
    began = said = time.monotonic()
    done = 0
    while True:
        found = subscription(conn, to)
        ready = sum(row["sync"] == "r" for row in copies(conn, columns, schemas, found))
        advance(ready - done)
        done = ready
        if ready == len(schemas) * len(TABLES):
            return "ready"
        if found is None or not found["enabled"]:
            return "disabled"
        if seconds is not None and time.monotonic() - began > seconds:
            return "copying"
        if time.monotonic() - said > 5:
            said = time.monotonic()
            waiting()
        time.sleep(0.05)


def publishing(to: Server, new: Sequence[str]) -> list[sql.Composed]:
    """Return the statements that publish what is attached; for a dry run with those that would attach `new`."""
    placed = sql.SQL("update rollbook.course set server = {}, state = 'copying' where course_id = any({})")
    publish = sql.SQL("select rollbook.publish_courses({})").format(to.name)
    return [*([placed.format(to.name, list(new))] if new else []), publish]


# --- unmaking it ------------------------------------------------------------------------------------------------------


def is_whole(conn: Conn, schema_name: str) -> bool:
    """Say whether a course's three copies stand on the server."""
    query = (
        "select count(*) as n from pg_class as c where c.relnamespace = to_regnamespace(quote_ident(%s)) "
        "and c.relname = any(%s) and c.relkind = 'r'"
    )
    return bool(one(conn, query, [schema_name, list(TABLES)])["n"] == len(TABLES))


def drop_subscription(conn: Conn, to: Server, steps: Steps) -> int | None:
    """Drop the subscription on the server, not its slot; return its oid, None if there was none."""
    found = subscription(conn, to)
    if found is None:
        return None
    name = sql.Identifier(to.stream)
    steps.run(
        conn, f"server {to.name}",
        sql.SQL("alter subscription {} disable").format(name),
        sql.SQL("alter subscription {} set (slot_name = none)").format(name),
        sql.SQL("drop subscription {}").format(name),
    )  # fmt: skip
    return int(found["oid"])


def drop_slots(portal: Conn, to: Server, oid: int | None, steps: Steps) -> None:
    """Drop the server's slot, and what its first copies may have left. Whoever still reads it is sent away."""
    for row in portal.execute(LEFT_SLOTS, {"stream": to.stream, "subscription": oid or 0}).fetchall():
        statement = sql.SQL("select pg_drop_replication_slot({})").format(row["slot_name"])
        if steps.dry:
            steps.run(portal, "portal", statement)
            continue
        end = time.monotonic() + SLOT_SECONDS
        while True:
            portal.execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots "
                "where slot_name = %s and active_pid is not null", [row["slot_name"]],
            )  # fmt: skip
            try:
                steps.run(portal, "portal", statement)
                break
            except errors.UndefinedObject:
                break
            except errors.ObjectInUse:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)


def drop_portal_side(portal: Conn, to: Server, oid: int | None, steps: Steps) -> None:
    """Drop slot and publication, let go of the courses, forget the server."""
    drop_slots(portal, to, oid, steps)
    steps.run(
        portal, "portal",
        sql.SQL("drop publication if exists {}").format(sql.Identifier(to.stream)),
        sql.SQL(
            "delete from rollbook.verification where course_id in "
            "(select c.course_id from rollbook.course as c where c.server = {})"
        ).format(to.name),
        sql.SQL("update rollbook.course set server = null, state = 'ok' where server = {}").format(to.name),
        sql.SQL("delete from rollbook.server where name = {}").format(to.name),
    )  # fmt: skip


def drop_server_side(conn: Conn, to: Server, steps: Steps) -> None:
    """Take away what `prepare` made; schemas that were kept stay, without their guards."""
    steps.run(conn, f"server {to.name}", "drop schema if exists rollbook cascade")
    try:
        steps.run(conn, f"server {to.name}", "drop role if exists rollbook_owner")
    except (errors.DependentObjectsStillExist, errors.InsufficientPrivilege):
        return  # kept schemas, or another database of that cluster, need it
