-- lock_portal: lock the tables that are copied against TRUNCATE and changes of their columns, before anybody holds a
-- route.
-- Called:   by fill_course, repair_copies and repair_users.
-- Locks:    ACCESS SHARE on each, parents first.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.lock_portal() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'lock table %s in access share mode',
        (select string_agg(t.relation, ', ' order by t.ordinal) from rollbook.copied_tables() as t)
    );
end $$;
comment on function rollbook.lock_portal() is
    'Lock the tables that are copied against TRUNCATE and changes of their columns, before anybody holds a route.';
