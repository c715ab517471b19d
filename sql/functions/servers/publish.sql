-- publish: make the publication of a stream list exactly the heartbeat and these tables, each with its column list.
-- Changes only what differs: a table whose list has changed is taken out and put in again, in one transaction, from
-- whose commit on the stream has the new list; the subscription needs no refresh. Nobody writes it meanwhile: a
-- transaction under way would be decoded by the old list, and the decoder might keep that one.
-- wanted:   [{"schema_name": ..., "table_name": ..., "columns": [...]}], as published_copies has them.
-- only_schema: only what is published of this schema is looked at; null = all.
-- reader:   a role that may read what is published, whose members subscribe: rollbook_relay on the portal,
--           rollbook_subscriber on a relay; null = nobody is granted anything.
-- Called:   on the portal by publish_courses; on a relay by the `rollbook` commands that change the courses of a server
--           behind it.
-- Returns:  the number of tables added and dropped.
-- Locks:    SHARE UPDATE EXCLUSIVE on the tables added; writers continue. SHARE ROW EXCLUSIVE where a list changes.
-- Security: INVOKER, because creating a publication requires the caller's CREATE right on the database, and altering it
--           requires its owner.
create or replace function rollbook.publish(
    stream_name text, wanted jsonb, only_schema text default null, reader text default null
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    added text[];
    dropped text[];
    changed text[];  -- listed with other columns
    granted record;
begin
    if not exists (select from pg_publication as p where p.pubname = stream_name) then
        execute format(
            'create publication %I for table rollbook.heartbeat (beat, sent_at, lsn, portal_identity, timeline) '
            'with (publish = ''insert, update, delete'')', stream_name
        );
    elsif not exists (  -- somebody dropped the table on a relay
        select from pg_publication_rel as r
        inner join pg_publication as p on p.oid = r.prpubid and p.pubname = stream_name
        where r.prrelid = to_regclass('rollbook.heartbeat')
    ) then
        execute format(
            'alter publication %I add table rollbook.heartbeat (beat, sent_at, lsn, portal_identity, timeline)',
            stream_name
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
            and (only_schema is null or c.relnamespace = to_regnamespace(quote_ident(only_schema)))
    ),
    wanted_table as (
        select w.schema_name, w.table_name, w.columns
        from jsonb_to_recordset(wanted) as w (schema_name text, table_name text, columns text[])
    )
    select
        array_agg(format('%I.%I', l.schema_name, l.table_name)) filter (
            where w.table_name is null or differs.are_others and l.table_name is not null
        ),
        array_agg(
            format('%I.%I (%s)', w.schema_name, w.table_name, rollbook.column_list(w.columns))
            order by w.schema_name, w.table_name
        ) filter (where l.table_name is null or differs.are_others and w.table_name is not null),
        array_agg(format('%I.%I', w.schema_name, w.table_name) order by w.schema_name, w.table_name) filter (
            where differs.are_others and l.table_name = w.table_name
        )
    into dropped, added, changed
    from listed as l
    full join wanted_table as w on w.schema_name = l.schema_name and w.table_name = l.table_name
    -- In the order of the table's columns there; what is published is a set.
    cross join lateral (select not (l.columns <@ w.columns and w.columns <@ l.columns) as are_others) as differs;
    if changed is not null then
        execute format('lock table %s in share row exclusive mode', array_to_string(changed, ', '));
    end if;
    if dropped is not null then
        execute format('alter publication %I drop table %s', stream_name, array_to_string(dropped, ', '));
    end if;
    if added is not null then
        execute format('alter publication %I add table %s', stream_name, array_to_string(added, ', '));
    end if;
    if reader is not null then
        for granted in
            select n.nspname, c.oid::regclass as name
            from pg_publication as p
            inner join pg_publication_rel as r on r.prpubid = p.oid
            inner join pg_class as c on c.oid = r.prrelid
            inner join pg_namespace as n on n.oid = c.relnamespace
            where p.pubname = stream_name and (only_schema is null or n.nspname in (only_schema, 'rollbook')) and not (
                has_schema_privilege(reader, n.oid, 'usage') and has_table_privilege(reader, c.oid, 'select')
            )
        loop
            execute format('grant usage on schema %I to %I', granted.nspname, reader);
            execute format('grant select on %s to %I', granted.name, reader);
        end loop;
    end if;
    return coalesce(cardinality(added), 0) + coalesce(cardinality(dropped), 0);
end $$;
comment on function rollbook.publish(text, jsonb, text, text) is
    'Make the publication of a stream list exactly the heartbeat and these tables, or look at one schema alone; let a '
    'role read what it lists; return the number of tables added and dropped.';
