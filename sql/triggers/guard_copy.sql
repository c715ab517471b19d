-- guard_copy: nobody but the routing writes the rows and the replicated columns of a copy.
-- Fires:    BEFORE INSERT, DELETE, TRUNCATE or UPDATE OF a replicated column, once per statement, on the three tables
--           of each course, here and on course servers, WHEN current_user is not rollbook_owner (guard_statements
--           attaches it). The condition stands in the trigger, so routing never calls this function: PL/pgSQL would
--           keep a compiled one for every table.
--           Columns that a course adds for itself are free. Silent under session_replication_role = replica: there the
--           apply worker of a course server passes, and a superuser who asks for it by that name; verify finds what was
--           done then.
-- Locks:    nothing.
-- Security: INVOKER; current_user is rollbook_owner inside Rollbook's own functions only.
create or replace function rollbook.guard_copy() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '%.% is a copy: only the portal''s % may be written', tg_table_schema, tg_table_name, tg_table_name
        using errcode = 'RB001',
            hint = format(
                'Change portal.%I instead. Columns that the course added itself can be written.', tg_table_name
            );
end $$;
comment on function rollbook.guard_copy() is
    'Nobody but the routing writes the rows and the replicated columns of a copy.';
