-- describe_holder: what is known of a session, or of a prepared transaction, that holds a lock, and how to end it.
-- Called:   by blockers and the view lock_wait; the command line sends it as a query, to course servers too. pid is
--           null or 0 for a prepared transaction; xid is its transaction.
-- Returns:  the last statement without its literals, as these may be secrets.
-- Security: INVOKER: PostgreSQL hides state, times and statements of other roles' sessions from a caller without
--           pg_read_all_stats.
create or replace function rollbook.describe_holder(pid integer, xid text) returns rollbook.lock_holder
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        nullif($1, 0), coalesce(a.usename, p.owner)::text, a.application_name, p.gid, a.state,
        coalesce(a.xact_start, p.prepared), a.query_start,
        case when p.gid is not null
            then format('prepared transaction %L (role %s, prepared %s)', p.gid, p.owner, t.since)
        when a.pid is not null
            then format(
                'session %s (%s, %s, %s, transaction since %s, last statement began %s%s)', a.pid,
                coalesce('role ' || a.usename, a.backend_type),
                coalesce('application ' || nullif(a.application_name, ''), 'no application name'),
                coalesce(a.state, 'state hidden'), t.since,
                coalesce(to_char(a.query_start, 'YYYY-MM-DD HH24:MI:SS TZ'), 'hidden'), ': ' || nullif(t.words, '')
            )
        else 'a session that is gone, or a prepared transaction of another database' end,
        case when p.gid is not null then format('rollback prepared %L;', p.gid)
        when a.pid is not null then format('select pg_terminate_backend(%s);', a.pid) end
    from (values (1)) as always
    left join pg_stat_activity as a on a.pid = $1
    left join pg_prepared_xacts as p on p.transaction::text = $2
    cross join lateral (
        select
            coalesce(to_char(coalesce(a.xact_start, p.prepared), 'YYYY-MM-DD HH24:MI:SS TZ'), 'hidden') as since,
            left(regexp_replace(regexp_replace(
                case when a.query_start is not null then a.query end, '(''[^'']*'')+', '''...''', 'g'
            ), '[[:space:]]+', ' ', 'g'), 80) as words
    ) as t
$$;
comment on function rollbook.describe_holder(integer, text) is
    'What is known of a session or prepared transaction that holds a lock, and how to end it.';
