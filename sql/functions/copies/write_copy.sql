-- write_copy: update one copy, in each of these courses, from the given portal row: write_copies for a single row.
-- Called:   by the routing of a single changed user or profile. A row of nulls, for a deleted row, updates nothing.
-- Raises:   see write_copies.
-- Locks:    none; see write_copies.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.write_copy(schemas text[], table_name text, portal_row anyelement) returns void
language plpgsql
as $$
declare
    target text;
    place text;
begin
    loop
        if exists (
            select from rollbook.course as c where c.schema_name = any (schemas::name[]) and c.paused_at is not null
        ) then
            schemas := array(
                select c.schema_name::text
                from rollbook.course as c
                where c.schema_name = any (schemas::name[]) and c.paused_at is null
            );
        end if;
        begin
            foreach target in array schemas loop
                perform rollbook.update_copy(target, table_name, portal_row);
            end loop;
            return;
        exception when others then
            if not rollbook.is_fault(sqlstate, target) then
                raise;
            end if;
            get stacked diagnostics place = pg_exception_context;
            perform rollbook.meet_fault(target, table_name, sqlstate, sqlerrm, place);
        end;
    end loop;
end $$;
comment on function rollbook.write_copy(text[], text, anyelement) is
    'Update one copy, in each of these courses, from the given portal row, except in paused courses. Raises RB020 if a '
    'copy cannot be written, or pauses that course.';
