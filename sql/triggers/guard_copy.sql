-- guard_copy: refuse to change the rows or the replicated columns of a copy; only the routing writes them.
-- Fires:    BEFORE INSERT, DELETE, TRUNCATE or UPDATE OF a replicated column, once per statement, on the three tables
--           of each course, here and on course servers, WHEN current_user is not rollbook_owner (guard_statements
--           creates the trigger). The condition is in the trigger, so routing never calls this function: PL/pgSQL would
--           keep a compiled copy for every table. Columns that a course adds are free. Silent under
--           session_replication_role = replica: this lets the apply worker of a course server pass, and a superuser who
--           sets it; verify finds what they changed.
-- Locks:    none.
-- Security: INVOKER; current_user is rollbook_owner inside Rollbook's own functions only.
create or replace function rollbook.guard_copy() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '%.% is a copy: write the portal''s % instead', tg_table_schema, tg_table_name, tg_table_name
        using errcode = '23R01', constraint = 'RB001',
            hint = format(
                'Change portal.%I. Columns that the course added can be written here.', tg_table_name
            );
end $$;
comment on function rollbook.guard_copy() is
    'Trigger function: refuse with 23R01 to write the rows or the replicated columns of a copy.';
