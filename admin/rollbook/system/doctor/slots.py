"""Replication slots, and what is published through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rollbook.core.rows import as_json
from rollbook.system.doctor.finding import Check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

# The servers that each source feeds, and those that are about to come behind a relay; `courses` as a command names
# them. The portal feeds a relay with the courses of all servers behind it.
SERVERS = """
select
    v.name, v.subscription, coalesce(k.source, '') as source, v.paused_at is not null as is_paused, k.is_moving,
    h.courses,
    case when k.source is null then format('select rollbook.publish_courses(%L)', v.name) end as publish,
    exists (select from rollbook.server as b where v.name in (b.through, b.moving_through)) as is_relay,
    case
        when k.source is not null then 'rollbook_subscriber'
        when not exists (select from rollbook.course as c where v.name in (c.server, c.moving_to)) then 'rollbook_relay'
    end as reader
from rollbook.server_route as v
cross join lateral (
    select v.through as source, false as is_moving
    union all
    select v.moving_through, true where v.moving_through is distinct from v.through and v.moving_through is not null
    union all
    select null, true where v.moving_direct and v.through is not null
) as k
cross join lateral (
    select string_agg(rollbook.shell_quote(c.course_id), ' ' order by c.course_id) as courses
    from rollbook.course as c
    where exists (
        select from rollbook.server_route as b
        where (v.name in (b.name, b.through) or v.name = b.moving_through and not b.moving_direct)
            and (b.name = c.server and c.state <> 'detached' or b.name = c.moving_to)
    )
) as h
order by 1
"""

# As rollbook.published_copies, for who may not read rollbook.server.
COPIES = """
select v.name as server, c.schema_name::text as schema_name, t.table_name, rollbook.shell_quote(c.course_id) as course
from rollbook.server_route as v
inner join rollbook.course as c on exists (
    select from rollbook.server_route as b
    where (v.name in (b.name, b.through) or v.name = b.moving_through and not b.moving_direct)
        and (b.name = c.server and c.state <> 'detached' or b.name = c.moving_to)
)
cross join rollbook.copied_tables() as t
"""

# The slots of the whole cluster: each keeps WAL of all its databases. `servers`: those that this database feeds.
SLOTS = """
with servers as (
    select v.*
    from jsonb_to_recordset(%(servers)s)
        as v (name text, subscription oid, is_paused boolean, is_moving boolean, courses text, publish text)
)
select
    format('slot %%s %%s', s.slot_name, k.words) as found, k.wanted, k.fix
from pg_replication_slots as s
left join servers as v on s.slot_name = 'rollbook_' || v.name and s.database = current_database()
cross join lateral (
    select coalesce(pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)), 'nothing') as held
) as h
cross join lateral (
    values
    (
        v.name is not null and s.wal_status = 'lost', 'is lost: its server lacks what was committed since',
        'a slot that holds what the server lacks', coalesce('rollbook replication resync ' || v.courses,
                                                           'rollbook server remove ' || v.name || ' --yes')
    ),
    (
        v.name is not null and s.wal_status <> 'lost'
        and (s.wal_status = 'unreserved'
             or s.safe_wal_size < pg_size_bytes(current_setting('max_slot_wal_keep_size')) / 4),
        format('holds %%s and is near its bound of %%s', h.held, current_setting('max_slot_wal_keep_size')),
        'the server reads it, or the bound is higher while it is down',
        format('alter system set max_slot_wal_keep_size = ''%%s MB''; select pg_reload_conf();',
               greatest(2 * pg_size_bytes(current_setting('max_slot_wal_keep_size')),
                        4 * pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint) / 1048576)
    ),
    (
        v.name is not null and s.wal_status <> 'lost' and not s.active and not v.is_paused
        and not v.is_moving,
        format('is read by nobody and holds %%s', h.held), 'server ' || v.name || ' reads it',
        'rollbook server ping ' || v.name
    ),
    (
        v.name is null and not s.active and not s.temporary and not exists (  -- the slot of a first copy
            select from servers as f
            where s.slot_name ~ ('^pg_' || f.subscription || '_sync_[0-9]+_[0-9]+$')
                and s.database = current_database()
        ),
        format('belongs to no server of this portal%%s, is read by nobody and holds %%s',
               ' (database ' || nullif(s.database, current_database()) || ')', h.held),
        'a reader, or no slot', format('select pg_drop_replication_slot(%%L);', s.slot_name)
    )
) as k (holds, words, wanted, fix)
where k.holds
union all
select
    format('slot rollbook_%%s of server %%1$s is gone', v.name), 'a slot that holds what the server lacks',
    coalesce('rollbook replication resync ' || v.courses, 'rollbook server remove ' || v.name || ' --yes')
from servers as v
where not v.is_moving
    and not exists (select from pg_replication_slots as s where s.slot_name = 'rollbook_' || v.name)
order by 1
"""

# By table, as rollbook.publish_courses makes it, and on a relay rollbook.publish; `copies`: what each server receives.
PUBLICATIONS = """
with ours as (
    select v.name as server, 'rollbook_' || v.name as stream, v.courses, v.publish, v.is_moving, p.*
    from jsonb_to_recordset(%(servers)s) as v (name text, is_moving boolean, courses text, publish text)
    left join pg_publication as p on p.pubname = 'rollbook_' || v.name
),
listed as (
    select o.server, o.stream, n.nspname::text as schema_name, c.relname::text as table_name,
        format('%%I.%%I', n.nspname, c.relname) as name, r.prqual is not null as is_filtered
    from ours as o
    inner join pg_publication_rel as r on r.prpubid = o.oid
    inner join pg_class as c on c.oid = r.prrelid
    inner join pg_namespace as n on n.oid = c.relnamespace
),
wanted as (
    select
        o.server, o.stream, 'rollbook' as schema_name, 'heartbeat' as table_name, o.courses, o.publish, o.is_moving,
        null as course
    from ours as o where o.oid is not null
    union all
    select o.server, o.stream, c.schema_name, c.table_name, o.courses, o.publish, o.is_moving, c.course
    from ours as o
    inner join jsonb_to_recordset(%(copies)s) as c (server text, schema_name text, table_name text, course text)
        on c.server = o.server
    where o.oid is not null
)
select
    format('publication %%s of server %%s is gone', o.stream, o.server) as found,
    'the copies of its courses' as wanted,
    coalesce('rollbook replication resync ' || o.courses, o.publish || ';', 'rollbook server add ' || o.server) as fix
from ours as o where o.oid is null and not o.is_moving
union all
select format('publication %%s publishes %%s', o.stream, concat_ws(', ',
        case when o.pubtruncate then 'TRUNCATE, which empties copies at once' end,
        case when not (o.pubinsert and o.pubupdate and o.pubdelete) then 'not all of INSERT, UPDATE and DELETE' end)),
    'insert, update, delete',
    format('alter publication %%I set (publish = ''insert, update, delete'');', o.stream)
from ours as o where o.oid is not null and (o.pubtruncate or not (o.pubinsert and o.pubupdate and o.pubdelete))
union all
select
    format('publication %%s lists all tables, of all persons', o.stream), 'the copies of its courses, each by name',
    format('drop publication %%I', o.stream) || coalesce('; ' || o.publish, '')
        || coalesce('; then: rollbook replication resync ' || o.courses, ';')
from ours as o where o.puballtables
union all
select
    format('publication %%s lists all of schema %%s', o.stream, s.pnnspid::regnamespace), 'copies, each by name',
    format('alter publication %%I drop tables in schema %%s;', o.stream, s.pnnspid::regnamespace)
from ours as o inner join pg_publication_namespace as s on s.pnpubid = o.oid
union all
select
    format('publication %%s lists %%s, which is not a copy of a course on server %%s', l.stream, l.name, l.server),
    'the copies of its courses alone', format('alter publication %%I drop table %%s;', l.stream, l.name)
from listed as l
where not exists (
    select from wanted as w
    where w.server = l.server and w.schema_name = l.schema_name and w.table_name = l.table_name
)
union all
select
    format('publication %%s lists %%s with a filter: rows that it hides are missing on server %%s',
           l.stream, l.name, l.server),
    'no filter', format('alter publication %%I drop table %%s', l.stream, l.name)
        || coalesce('; ' || w.publish || coalesce('; then: rollbook replication repair ' || w.course, ';'),
                    '; then: rollbook replication resync ' || coalesce(w.course, w.courses),
                    '; then: rollbook server add ' || w.server)
from listed as l
inner join wanted as w on w.server = l.server and w.schema_name = l.schema_name and w.table_name = l.table_name
where l.is_filtered
union all
select
    format('publication %%s does not list %%s', w.stream, string_agg(w.table_name, ', ')
           || coalesce(' of course ' || w.course, '')),
    'all copies of its courses', coalesce('rollbook replication resync ' || coalesce(w.course, w.courses),
                                          w.publish || ';', 'rollbook server add ' || w.server)
from wanted as w
where not w.is_moving and not exists (
    select from listed as l
    where l.server = w.server and l.schema_name = w.schema_name and l.table_name = w.table_name
) and not exists (select from ours as o where o.server = w.server and o.puballtables)
group by w.server, w.stream, w.course, w.courses, w.publish
union all
select
    format('publication %%I belongs to no server', p.pubname), 'none without a server',
    format('drop publication %%I;', p.pubname)
from pg_publication as p
where starts_with(p.pubname, 'rollbook_') and p.pubname not in (select o.stream from ours as o)
order by 1
"""

# A published table that has no key, or whose list of columns lacks it.
IDENTITIES = """
select
    format('%%s is published by %%I, %%s: each UPDATE and DELETE of it fails', t.name, p.pubname, k.words) as found,
    'a replica identity that is published' as wanted, k.fix
from pg_publication as p
inner join pg_publication_tables as l on l.pubname = p.pubname
inner join pg_namespace as n on n.nspname = l.schemaname
inner join pg_class as c on c.relnamespace = n.oid and c.relname = l.tablename
left join pg_publication_rel as r on r.prpubid = p.oid and r.prrelid = c.oid
cross join lateral (select format('%%I.%%I', l.schemaname, l.tablename) as name) as t
left join pg_index as i on i.indrelid = c.oid
    and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary end
cross join lateral (
    select array_agg(a.attname) as missing from pg_attribute as a
    where a.attrelid = c.oid and a.attnum = any (i.indkey::smallint[])
        and r.prattrs is not null and a.attnum <> all (r.prattrs::smallint[])
) as m
cross join lateral (
    values
    (
        c.relreplident = 'n' or c.relreplident in ('d', 'i') and i.indexrelid is null,
        case c.relreplident when 'n' then 'and has no replica identity' else 'and has no primary key' end,
        format('alter table %%s replica identity %%s;', t.name,
               case when exists (select from pg_index as k where k.indrelid = c.oid and k.indisprimary)
                   then 'default' else 'full' end)
    ),
    (
        c.relreplident in ('d', 'i') and m.missing is not null,
        'whose list of columns lacks ' || array_to_string(m.missing, ', '),
        format('alter publication %%I drop table %%s; alter publication %%1$I add table %%2$s (%%3$s);', p.pubname,
               t.name, (select string_agg(quote_ident(a.name), ', ')
                        from unnest(l.attnames::text[] || m.missing::text[]) as a (name)))
    )
) as k (holds, words, fix)
where k.holds and (p.pubupdate or p.pubdelete)
order by 1
"""

CHECKS = (Check("slot", SLOTS), Check("publication", PUBLICATIONS), Check("identity", IDENTITIES))


class Fed:
    """Which servers each source feeds, and with what: read from the portal once."""

    def __init__(self, portal: Conn) -> None:
        self.servers: list[Row] = portal.execute(SERVERS).fetchall()
        self.copies: list[Row] = portal.execute(COPIES).fetchall()

    def by(self, source: str | None) -> Sequence[str]:
        """Return the names of the servers that a source feeds, or is about to; None: the portal."""
        return [row["name"] for row in self.servers if row["source"] == (source or "")]

    def asked(self, source: str | None) -> Mapping[str, Any]:
        """Return what the queries ask a source with; None: the portal."""
        names = set(self.by(source))
        return {
            "servers": as_json([row for row in self.servers if row["source"] == (source or "")]),
            "copies": as_json([row for row in self.copies if row["server"] in names]),
        }
