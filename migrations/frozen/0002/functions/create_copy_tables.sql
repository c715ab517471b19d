-- create_copy_tables: the three copies in a course's schema. Columns, types and NOT NULL come from the portal through
-- the whitelist; the primary key is the portal's id. No sequences, no unique natural keys, no foreign keys of ours:
-- a subset cannot prove them, they can only block. A course may add what it likes beside the copied columns.
-- Called:   by fill_course, once a course.
-- Locks:    only what it makes.
-- Security: INVOKER, called with the rights of rollbook_owner, who becomes the owner.
create or replace function rollbook.create_copy_tables(schema_name text) returns void
language plpgsql
as $$
declare
    copied record;
begin
    for copied in
        select
            t.table_name,
            t.user_key,
            array_to_string(rollbook.replicated_columns(t.table_name), ', ') as columns,
            string_agg(
                format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
                || case when a.attcollation <> y.typcollation
                        then format(' collate %I.%I', cn.nspname, cl.collname) else '' end
                || case when a.attnotnull then ' not null' else '' end,
                ', ' order by array_position(rollbook.replicated_columns(t.table_name), a.attname::text)
            ) as definitions
        from (values
            ('auth_user', null), ('auth_userprofile', 'user_id'), ('student_courseenrollment', 'user_id')
        ) as t (table_name, user_key)
        inner join pg_attribute as a
            on a.attrelid = format('portal.%I', t.table_name)::regclass
            and a.attname = any (rollbook.replicated_columns(t.table_name))
        inner join pg_type as y on y.oid = a.atttypid
        left join pg_collation as cl on cl.oid = a.attcollation
        left join pg_namespace as cn on cn.oid = cl.collnamespace
        group by t.table_name, t.user_key
        order by t.table_name
    loop
        execute format(
            'create table %1$I.%2$I (%3$s, primary key (id))',
            schema_name, copied.table_name, copied.definitions
        );
        if copied.user_key is not null then
            execute format('create index on %I.%I (%I)', schema_name, copied.table_name, copied.user_key);
        end if;
        execute format(
            'create trigger rollbook_guard_copy before insert or delete or truncate or update of %3$s on %1$I.%2$I '
            'for each statement execute function rollbook.guard_copy()',
            schema_name, copied.table_name, copied.columns
        );
        execute format(
            'comment on table %1$I.%2$I is %3$L', schema_name, copied.table_name,
            format('Copy of the rows of portal.%s that are due in this course. Written by Rollbook only; columns '
                   'that the course adds are its own.', copied.table_name)
        );
    end loop;
end $$;
comment on function rollbook.create_copy_tables(text) is
    'The three copies in a course''s schema.';
