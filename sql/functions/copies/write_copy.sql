-- write_copy: update one copy, in each of these courses, from the given portal row: write_copies for a single row, in a
-- third of the time.
-- Called:   by the routing of a single changed user or profile.
-- Raises:   see write_copies.
-- Locks:    none; see write_copies.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.write_copy(schemas text[], table_name text, portal_row anyelement) returns void
language plpgsql
as $$
declare
    columns constant text := array_to_string(rollbook.replicated_columns(table_name), ', ');
    -- Built once, as it takes longer than the update itself.
    assignment constant text := format(
        '.%I set (%s) = row(%s) where id = ($1).id', table_name, columns, '($1).' || replace(columns, ', ', ', ($1).')
    );
    paused text[];
    target text;
    place text;
    refusing text;
    unfilled text;
begin
    loop
        paused := rollbook.paused_schemas(schemas);
        begin
            foreach target in array schemas loop
                continue when target = any (paused);
                execute 'update ' || quote_ident(target) || assignment using portal_row;
            end loop;
            return;
        exception when others then
            if not rollbook.is_fault(sqlstate, target) then
                raise;
            end if;
            get stacked diagnostics
                place = pg_exception_context, refusing = constraint_name, unfilled = column_name;
            perform rollbook.meet_fault(
                target, table_name, sqlstate, sqlerrm, place, refusing, unfilled
            );
        end;
    end loop;
end $$;
comment on function rollbook.write_copy(text[], text, anyelement) is
    'Update one copy, in each of these courses, from the given portal row, except in paused courses. Raises RB020 if a '
    'copy cannot be written, or pauses that course.';
