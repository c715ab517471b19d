-- write_copy: update one copy, in each of these courses, from the given portal row: write_copies for a single row, in a
-- third of the time. changed: the columns that the statement changed; they and the key are quoted for SQL. No other
-- column is named, as PostgreSQL takes longer to parse and plan an update of all than to execute it. The copy is
-- complete: each statement that changes the row writes its route and carries what it changed.
-- Called:   by the routing of a single changed user or profile.
-- Raises:   see write_copies.
-- Locks:    none; see write_copies.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.write_copy(
    schemas text[], table_name text, key_column text, key bigint, portal_row anyelement, changed text[]
) returns void
language plpgsql
as $$
declare
    assignment constant text := concat(
        '.', quote_ident(table_name), ' set (', array_to_string(changed, ', '),
        ') = row(($1).', array_to_string(changed, ', ($1).'), ') where ', key_column, ' = $2'
    );
    apart rollbook.course[];
    course rollbook.course;
    travelling text[];
    target text;
    place text;
    refusing text;
    unfilled text;
begin
    loop
        apart := rollbook.courses_apart(schemas);
        begin
            foreach target in array schemas loop
                if apart = '{}' then
                    execute 'update ' || quote_ident(target) || assignment using portal_row, key;
                    continue;
                end if;
                select a.* into course from unnest(apart) as a where a.schema_name = target::name;
                continue when course.paused_at is not null;
                travelling := array(
                    select c.name from unnest(changed) as c (name)
                    where not exists (
                        select from unnest(course.without) as w (name)
                        where c.name in (
                            quote_ident(w.name),
                            case when starts_with(w.name, table_name || '.')
                                then quote_ident(substr(w.name, length(table_name) + 2)) end
                        )
                    )
                );
                continue when travelling = '{}';
                execute format(
                    'update %I.%I set (%s) = row(($1).%s) where %s = $2', target, table_name,
                    array_to_string(travelling, ', '), array_to_string(travelling, ', ($1).'), key_column
                ) using portal_row, key;
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
comment on function rollbook.write_copy(text[], text, text, bigint, anyelement, text[]) is
    'Update the changed columns of one copy, in each of these courses, from the given portal row, except in paused '
    'courses and in those that leave out all of them. Raises RB020 if a copy cannot be written, or pauses that course.';
