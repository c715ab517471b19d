-- describe_holder: what is known of a session, or of a prepared transaction, that holds a lock, and how to end it.
-- Called:   by blockers and the view lock_wait. pid is null or 0 for a prepared transaction; xid is its transaction.
-- Security: INVOKER: PostgreSQL hides state and times of other roles' sessions from a caller without pg_read_all_stats.
create or replace function rollbook.describe_holder(pid integer, xid text) returns rollbook.lock_holder
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        nullif(describe_holder.pid, 0), coalesce(a.usename, p.owner)::text, a.application_name, p.gid, a.state,
        coalesce(a.xact_start, p.prepared), a.query_start,
        case when p.gid is not null
            then format('prepared transaction %L (role %s, prepared %s)', p.gid, p.owner, t.since)
        when a.pid is not null
            then format(
                'session %s (role %s, %s, %s, transaction since %s, last statement began %s)', a.pid, a.usename,
                coalesce('application ' || nullif(a.application_name, ''), 'no application name'),
                coalesce(a.state, 'state hidden'), t.since,
                coalesce(to_char(a.query_start, 'YYYY-MM-DD HH24:MI:SS TZ'), 'hidden')
            )
        else 'a session that is gone, or a prepared transaction of another database' end,
        case when p.gid is not null then format('rollback prepared %L;', p.gid)
        when a.pid is not null then format('select pg_terminate_backend(%s);', a.pid) end
    from (values (1)) as always
    left join pg_stat_activity as a on a.pid = describe_holder.pid
    left join pg_prepared_xacts as p on p.transaction::text = describe_holder.xid
    cross join lateral (
        select coalesce(to_char(coalesce(a.xact_start, p.prepared), 'YYYY-MM-DD HH24:MI:SS TZ'), 'hidden') as since
    ) as t
$$;
comment on function rollbook.describe_holder(integer, text) is
    'What is known of a session or prepared transaction that holds a lock, and how to end it.';
