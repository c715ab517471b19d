-- publish_courses: make the publication of one course server list exactly the heartbeat and the copies of its attached
-- courses, and of those that move to it, table by table, each with its column list. Changes only what differs: a table
-- whose list has changed is taken out and put in again, in one transaction, from whose commit on the stream has the new
-- list; the subscription needs no refresh.
-- only_course_id: only the copies of this course are looked at, so that a change of each course in turn is not
--           quadratic; null = all of the server.
-- Called:   by `rollbook server add` and `rollbook course attach`, `detach`, `move`, after the tables exist on the
--           server; for a single course by reshape_course and finish_copies.
-- Returns:  the number of tables added and dropped.
-- Locks:    SHARE UPDATE EXCLUSIVE on the tables added; writers continue.
-- Security: INVOKER, because creating a publication requires the caller's CREATE right on the database, and altering it
--           requires its owner.
create or replace function rollbook.publish_courses(server_name text, only_course_id text default null)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    stream_name constant text := 'rollbook_' || server_name;
    relations oid[];  -- the copies of the only course
    added text[];
    dropped text[];
begin
    if not exists (select from pg_publication as p where p.pubname = stream_name) then
        execute format(
            'create publication %I for table rollbook.heartbeat (beat, sent_at, lsn, portal_identity, timeline) '
            'with (publish = ''insert, update, delete'')', stream_name
        );
    end if;
    if only_course_id is not null then
        relations := array(
            select to_regclass(format('%I.%I', c.schema_name, t.table_name))
            from rollbook.course as c
            cross join rollbook.copied_tables() as t
            where c.course_id = only_course_id
        );
    end if;
    with listed as (
        select
            n.nspname::text as schema_name, c.relname::text as table_name,
            array(
                select a.attname::text from pg_attribute as a
                where a.attrelid = c.oid and a.attnum = any (r.prattrs::smallint[])
            ) as columns
        from pg_publication as p
        inner join pg_publication_rel as r on r.prpubid = p.oid
        inner join pg_class as c on c.oid = r.prrelid
        inner join pg_namespace as n on n.oid = c.relnamespace
        where p.pubname = stream_name and n.nspname <> 'rollbook'
            and (relations is null or r.prrelid = any (relations))
    ),
    wanted as (
        select
            c.schema_name::text as schema_name, t.table_name,
            rollbook.course_columns(t.table_name, c.without) as columns
        from rollbook.course as c
        cross join rollbook.copied_tables() as t
        where ((c.server = server_name and c.state <> 'detached') or c.moving_to = server_name)
            and (only_course_id is null or c.course_id = only_course_id)
    )
    select
        array_agg(format('%I.%I', l.schema_name, l.table_name)) filter (
            where w.table_name is null or differs.are_others and l.table_name is not null
        ),
        array_agg(
            format('%I.%I (%s)', w.schema_name, w.table_name, rollbook.column_list(w.columns))
            order by w.schema_name, w.table_name
        ) filter (where l.table_name is null or differs.are_others and w.table_name is not null)
    into dropped, added
    from listed as l
    full join wanted as w on w.schema_name = l.schema_name and w.table_name = l.table_name
    -- In the order of the table's columns there; what is published is a set.
    cross join lateral (select not (l.columns <@ w.columns and w.columns <@ l.columns) as are_others) as differs;
    if dropped is not null then
        execute format('alter publication %I drop table %s', stream_name, array_to_string(dropped, ', '));
    end if;
    if added is not null then
        execute format('alter publication %I add table %s', stream_name, array_to_string(added, ', '));
    end if;
    return coalesce(cardinality(added), 0) + coalesce(cardinality(dropped), 0);
end $$;
comment on function rollbook.publish_courses(text, text) is
    'Make the publication of one course server list exactly the heartbeat and the copies of its attached courses, or '
    'look at one of these courses alone; return the number of tables added and dropped.';
