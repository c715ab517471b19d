-- blockers: the sessions, and prepared transactions, that hold what creating, dropping, pausing or resuming a course
-- has to lock: the set of courses, the course and its latch, routes of its users, tables of its schema.
-- Called:   by refuse_wait, after a wait that was too long; by a DBA before one.
-- Security: INVOKER: sees of other sessions what the caller may see; with pg_read_all_stats, everything.
create or replace function rollbook.blockers(course_id text) returns setof rollbook.lock_holder
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with written (xid) as (
        select c.xmax::text from rollbook.course as c where c.course_id = blockers.course_id
        union
        select l.xmax::text from rollbook.course_latch as l where l.course_id = blockers.course_id
        union
        select r.xmax::text
        from rollbook.route as r
        where r.schemas && array(
                select c.schema_name::text from rollbook.course as c where c.course_id = blockers.course_id
            )
            or r.user_id in (
                select m.user_id from rollbook.memberships_of(blockers.course_id) as m
            )
    ),
    held as (
        select distinct l.pid, case when l.pid is null then split_part(l.virtualtransaction, '/', 2) end as xid
        from pg_locks as l
        left join pg_class as c on l.locktype = 'relation' and c.oid = l.relation
        left join rollbook.course as course on course.course_id = blockers.course_id
        where l.granted and l.pid is distinct from pg_backend_pid()
            and (
                l.locktype = 'transactionid' and l.transactionid::text in (select w.xid from written as w)
                or l.database = (select d.oid from pg_database as d where d.datname = current_database())
                and (
                    c.oid = 'rollbook.course_set'::regclass
                    or c.oid = 'rollbook.course_latch'::regclass and l.mode = 'RowExclusiveLock'
                    or c.relnamespace = (
                        select n.oid from pg_namespace as n where n.nspname = course.schema_name
                    )
                )
            )
    )
    select (rollbook.describe_holder(held.pid, held.xid)).* from held
$$;
comment on function rollbook.blockers(text) is
    'The sessions that hold what creating, dropping, pausing or resuming this course has to lock, and how to end each.';
