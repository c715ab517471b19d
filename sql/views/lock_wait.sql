-- lock_wait: who waits for a lock in this database, since when, for what, and who holds it: a row for each pair.
-- Called:   by a DBA; by the command line from a second session while a statement of its own waits.
-- Security: the caller's rights decide what PostgreSQL shows of other roles' sessions: pids, roles and applications
--           always; state and times with pg_read_all_stats.
create or replace view rollbook.lock_wait as
select
    w.pid as waiting_pid,
    w.usename::text as waiting_role,
    w.application_name as waiting_application,
    coalesce(
        'table ' || l.relation::regclass::text, 'a row that transaction ' || l.transactionid::text || ' wrote',
        l.locktype
    ) as waits_for,
    l.waitstart as waiting_since,
    h.pid,
    h.role,
    h.application,
    h.gid,
    h.state,
    h.since,
    h.query_start,
    h.holder,
    h.remedy
from pg_locks as l
inner join pg_stat_activity as w on w.pid = l.pid and w.datname = current_database()
cross join lateral (select distinct b.pid from unnest(pg_blocking_pids(l.pid)) as b (pid)) as blocking
cross join lateral rollbook.describe_holder(blocking.pid, case when blocking.pid = 0 then coalesce(
    l.transactionid::text,
    (
        select min(split_part(held.virtualtransaction, '/', 2))
        from pg_locks as held
        where held.pid is null and held.granted and held.relation = l.relation and held.database = l.database
    )
) end) as h
where not l.granted;
comment on view rollbook.lock_wait is
    'Who waits for a lock in this database, for what, and who holds it. One row for each pair.';
comment on column rollbook.lock_wait.waiting_pid is 'The session that waits.';
comment on column rollbook.lock_wait.waiting_role is 'Its role.';
comment on column rollbook.lock_wait.waiting_application is 'Its application name.';
comment on column rollbook.lock_wait.waits_for is 'The table, or the transaction that wrote the row.';
comment on column rollbook.lock_wait.waiting_since is 'Since when it waits; null for a moment after it began.';
comment on column rollbook.lock_wait.pid is 'The session that holds the lock; null = a prepared transaction.';
comment on column rollbook.lock_wait.role is 'The role of the holder.';
comment on column rollbook.lock_wait.application is 'The application name of the holder.';
comment on column rollbook.lock_wait.gid is 'The name of the prepared transaction, if it is one.';
comment on column rollbook.lock_wait.state is 'What the holder does, such as idle in transaction; null = hidden.';
comment on column rollbook.lock_wait.since is 'Since when the holder''s transaction is open; null = hidden.';
comment on column rollbook.lock_wait.query_start is 'When its last statement began; null = hidden.';
comment on column rollbook.lock_wait.holder is 'The holder in one phrase.';
comment on column rollbook.lock_wait.remedy is 'The statement that ends the holder.';
