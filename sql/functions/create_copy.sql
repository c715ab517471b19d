-- create_copy: one copy's table in a course's schema, bare. Columns, types and NOT NULL come from the portal through
-- the whitelist. No defaults, no sequences, no unique natural keys, no foreign keys of ours: a subset cannot prove
-- them, they can only block. A course may add what it likes beside the copied columns.
-- Called:   by fill_course; guard_copies completes it once it is filled.
-- Security: INVOKER, called with the rights of rollbook_owner, who becomes the owner.
create or replace function rollbook.create_copy(schema_name text, table_name text) returns void
language plpgsql
as $$
declare
    definitions text;
    commented record;
begin
    select
        string_agg(
            format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
            || case when a.attcollation <> y.typcollation then ' collate ' || a.attcollation::regcollation else '' end
            || case when a.attnotnull then ' not null' else '' end,
            ', ' order by w.position
        )
    into definitions
    from unnest(rollbook.replicated_columns(table_name)) with ordinality as w (column_name, position)
    inner join pg_attribute as a
        on a.attrelid = format('portal.%I', table_name)::regclass and a.attname = w.column_name
    inner join pg_type as y on y.oid = a.atttypid;
    execute format('create table %I.%I (%s)', schema_name, table_name, definitions);
    execute format(
        'comment on table %I.%I is %L', schema_name, table_name,
        format('Copy of the rows of portal.%s that are due in this course. Written by Rollbook alone; columns that the '
               'course adds are its own.', table_name)
    );
    for commented in
        select a.attname, col_description(a.attrelid, a.attnum) as words
        from pg_attribute as a
        where a.attrelid = format('portal.%I', table_name)::regclass
            and a.attname = any (rollbook.replicated_columns(table_name))
    loop
        execute format(
            'comment on column %I.%I.%I is %L', schema_name, table_name, commented.attname,
            'As in the portal: ' || coalesce(commented.words, 'no comment there.')
        );
    end loop;
end $$;
comment on function rollbook.create_copy(text, text) is
    'One copy''s table in a course''s schema, bare.';
