-- guard_copy: refuse to change the rows or the replicated values of a copy; only the routing writes them.
-- Fires:    on the copies of each course, here and on course servers: BEFORE INSERT, DELETE or TRUNCATE, once per
--           statement, and AFTER UPDATE, for each row: an ORM writes all columns, so what counts is whether a value
--           changes. AFTER, as what a BEFORE trigger of the course changes counts too. Both WHEN current_user is not
--           rollbook_owner (guard_statements creates them). The condition is in the triggers, so routing never calls
--           this function: PL/pgSQL would keep a compiled copy for every table. Columns that a course adds are free.
--           Silent under session_replication_role = replica: this lets the apply worker of a course server pass, and a
--           superuser who sets it; verify finds what they changed.
-- Arguments: for UPDATE, the columns that are compared, quoted for SQL. Byte by byte: a course may give a text a
--           collation in which different texts are equal.
-- Locks:    none.
-- Security: INVOKER; current_user is rollbook_owner inside Rollbook's own functions only.
create or replace function rollbook.guard_copy() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    is_changed boolean;
begin
    if tg_op = 'UPDATE' then
        execute format(
            'select record_image_ne(row(($1).%s), row(($2).%s))',
            array_to_string(tg_argv, ', ($1).'), array_to_string(tg_argv, ', ($2).')
        ) into is_changed using old, new;
        if not is_changed then
            return null;
        end if;
    end if;
    raise exception '%.% is a copy: write the portal''s % instead', tg_table_schema, tg_table_name, tg_table_name
        using errcode = '23R01', constraint = 'RB001',
            hint = 'Change the row in the portal. Columns that the course added can be written here.';
end $$;
comment on function rollbook.guard_copy() is
    'Trigger function: refuse with 23R01 to write the rows or to change the replicated values of a copy.';
