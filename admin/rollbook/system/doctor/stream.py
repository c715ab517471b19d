"""The stream of a course server: its subscription, origins, and what the server has of Rollbook."""

from __future__ import annotations

from rollbook.system.doctor.finding import Check

SUBSCRIPTION = """
with ours as (
    select s.subname, s.subenabled, s.subdisableonerr, s.subsynccommit, s.subpublications
    from pg_subscription as s
    where s.subname = %(stream)s
        and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
)
select
    format('subscription %%s is gone', %(stream)s::text) as found, 'a subscription that is enabled' as wanted,
    %(rebuild)s::text as fix
where not exists (select from ours)
union all
select
    format('subscription %%s is disabled, and the server is not paused', o.subname), 'enabled',
    'rollbook replication resume --server ' || %(name)s::text
from ours as o where not o.subenabled and not %(is_paused)s
union all
select format('subscription %%s %%s', o.subname, k.words), k.wanted, k.fix
from ours as o
cross join lateral (
    values
    (
        o.subdisableonerr, 'stops at each error, a lost connection too', 'disable_on_error = false',
        format('alter subscription %%I set (disable_on_error = false);', o.subname)
    ),
    (
        o.subsynccommit = 'off', 'does not flush what it confirms: a crash of the server loses it for good',
        'synchronous_commit = local',
        format('alter subscription %%I set (synchronous_commit = local);', o.subname)
    ),
    (
        o.subpublications <> array[o.subname::text], 'subscribes to ' || array_to_string(o.subpublications, ', '),
        o.subname::text,
        format('alter subscription %%1$I set publication %%1$I with (refresh = false);', o.subname)
    )
) as k (holds, words, wanted, fix)
where k.holds
union all
select
    format('subscription %%s is of another server entry or portal', s.subname), %(stream)s::text || ' alone',
    format('alter subscription %%1$I disable; alter subscription %%1$I set (slot_name = none); '
           'drop subscription %%1$I;', s.subname)
from pg_subscription as s
where starts_with(s.subname, 'rollbook_') and s.subname <> %(stream)s
    and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
order by 1
"""

RUNS_AS = """
select
    format('subscription %%s runs the triggers of courses as %%s', s.subname, s.subowner::regrole) as found,
    'run_as_owner = false' as wanted,
    format('alter subscription %%I set (run_as_owner = false);', s.subname) as fix
from pg_subscription as s
where s.subname = %(stream)s and s.subrunasowner
    and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
"""

# Since 18 conflicts are counted by kind.
MISSED = """
select
    format('%%s updates and deletes of the portal found no row', k.missing) as found,
    'the rows of the portal' as wanted,
    coalesce(%(repair)s::text || '; then: ', '')
        || format('on server %%s: select pg_stat_reset_subscription_stats(%%s);', %(name)s::text, s.oid) as fix
from pg_subscription as s
inner join pg_stat_subscription_stats as t on t.subid = s.oid
cross join lateral (
    select coalesce((to_jsonb(t) ->> 'confl_update_missing')::bigint, 0)
        + coalesce((to_jsonb(t) ->> 'confl_delete_missing')::bigint, 0) as missing
) as k
where s.subname = %(stream)s and k.missing > 0
    and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
"""

ORIGINS = """
select
    format('replication origin %%s belongs to no subscription', o.roname) as found, 'no origin without one' as wanted,
    format('select pg_replication_origin_drop(%%L);', o.roname) as fix
from pg_replication_origin as o
where o.roname ~ '^pg_[0-9]+(_[0-9]+)?$'
    and not exists (select from pg_subscription as s where s.oid::text = split_part(o.roname, '_', 2))
order by 1
"""

PREPARED = """
select
    'what the server has of Rollbook is of another version' as found, 'as this program ships it' as wanted,
    %(prepare)s::text as fix
where to_regnamespace('rollbook') is not null
    and obj_description(to_regnamespace('rollbook'), 'pg_namespace') is distinct from %(comment)s::text
"""

CHECKS = (
    Check("subscription", SUBSCRIPTION), Check("subscription", RUNS_AS, since=160000), Check("missed changes", MISSED),
    Check("origin", ORIGINS), Check("server version", PREPARED),
)  # fmt: skip
