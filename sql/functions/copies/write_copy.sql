-- write_copy: update one copy, in each of these courses, from the given portal row: write_copies for a single row, in a
-- third of the time. old_row, new_row: what the statement changed; a course that leaves all of that out is not written.
-- Called:   by the routing of a single changed user or profile.
-- Raises:   see write_copies.
-- Locks:    none; see write_copies.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.write_copy(
    schemas text[], table_name text, portal_row anyelement, old_row record, new_row record
) returns void
language plpgsql
as $$
declare
    columns constant text[] := rollbook.replicated_columns(table_name);
    key_column constant text := (
        select t.key_column from rollbook.copied_tables() as t where t.table_name = write_copy.table_name
    );
    -- Built once, as it takes longer than the update itself.
    assignment constant text := format(
        '.%1$I set (%2$s) = row(%3$s) where %4$I = ($1).%4$I',
        table_name, rollbook.column_list(columns), rollbook.column_list(columns, '($1)'), key_column
    );
    left_out text[];
    partial_columns text[];
    partial_assignment text;
    assigned_without text[];
    apart rollbook.course[];
    changed text[];
    target text;
    place text;
    refusing text;
    unfilled text;
begin
    loop
        apart := rollbook.courses_apart(schemas);
        begin
            if cardinality(apart) = 0 then
                foreach target in array schemas loop
                    execute 'update ' || quote_ident(target) || assignment using portal_row;
                end loop;
                return;
            end if;
            changed := array(
                select n.key
                from jsonb_each_text(to_jsonb(new_row)) as n
                inner join jsonb_each_text(to_jsonb(old_row)) as o on o.key = n.key
                where o.value collate "C" is distinct from n.value collate "C"
                    and n.key = any (columns)
            );
            for target, left_out in
                select s.name, a.without
                from unnest(schemas) as s (name)
                left join unnest(apart) as a on a.schema_name = s.name::name
                where a.schema_name is null or a.paused_at is null and (not changed <@ a.without or changed = '{}')
                order by a.without nulls first
            loop
                if left_out <> coalesce(assigned_without, '{}') then
                    assigned_without := left_out;
                    partial_columns := rollbook.course_columns(table_name, left_out);
                    partial_assignment := format(
                        '.%1$I set (%2$s) = row(%3$s) where %4$I = ($1).%4$I', table_name,
                        rollbook.column_list(partial_columns), rollbook.column_list(partial_columns, '($1)'), key_column
                    );
                end if;
                execute 'update ' || quote_ident(target)
                    || case when left_out is null then assignment else partial_assignment end using portal_row;
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
comment on function rollbook.write_copy(text[], text, anyelement, record, record) is
    'Update one copy, in each of these courses, from the given portal row, except in paused courses and in those that '
    'leave out all changed columns. Raises RB020 if a copy cannot be written, or pauses that course.';
