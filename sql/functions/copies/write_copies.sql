-- write_copies: write the copies that a statement of the portal changed, course after course, in the order of the
-- steps. Courses that are paused are left out. All of it is one subtransaction: if a copy cannot be written, meet_fault
-- refuses the portal's statement, or pauses the course; then the steps are executed again without it.
-- Called:   by all routing of more than a single row; write_copy is for that. Repair writes by itself.
-- Raises:   RB020, and errors that are not the course's.
-- Locks:    none; the caller has written the users' routes.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.write_copies(steps rollbook.copy_step[]) returns void
language plpgsql
as $$
declare
    apart rollbook.course[];
    course rollbook.course;
    step rollbook.copy_step;
    lessened text[];  -- the tables that lost rows
    referred oid;
    place text;
    refusing text;
    unfilled text;
begin
    if steps = '{}' then
        return;
    end if;
    loop
        apart := rollbook.courses_apart(array(select s.schema_name from unnest(steps) as s));
        lessened := '{}';
        begin
            foreach step in array steps loop
                course := null;
                if cardinality(apart) > 0 then
                    select a.* into course from unnest(apart) as a where a.schema_name = step.schema_name::name;
                    continue when course.paused_at is not null;
                end if;
                case step.action
                    when 'put' then
                        perform rollbook.put_copies(
                            step.schema_name, step.table_name, step.key_column, step.keys,
                            coalesce(course.without, '{}')
                        );
                    when 'update' then
                        perform rollbook.update_copies(
                            step.schema_name, step.table_name, step.key_column, step.keys,
                            coalesce(course.without, '{}')
                        );
                    when 'delete' then
                        perform rollbook.delete_copies(step.schema_name, step.table_name, step.key_column, step.keys);
                        lessened := lessened || format('%I.%I', step.schema_name, step.table_name);
                end case;
            end loop;
            if lessened <> '{}' then
                for referred in
                    select distinct t.tgrelid from pg_trigger as t
                    where t.tgrelid = any (lessened::regclass[]::oid[]) and t.tgisinternal
                loop
                    select n.nspname, c.relname into step.schema_name, step.table_name
                    from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
                    where c.oid = referred;
                    perform rollbook.check_deferred_keys(step.schema_name, step.table_name);
                end loop;
            end if;
            return;
        exception when others then
            if not rollbook.is_fault(sqlstate, step.schema_name) then
                raise;
            end if;
            get stacked diagnostics
                place = pg_exception_context, refusing = constraint_name, unfilled = column_name;
            perform rollbook.meet_fault(
                step.schema_name, step.table_name, sqlstate, sqlerrm, place, refusing, unfilled
            );
        end;
    end loop;
end $$;
comment on function rollbook.write_copies(rollbook.copy_step[]) is
    'Write the copies that a statement of the portal changed, except in paused courses. Raises RB020 if a copy cannot '
    'be written, or pauses that course.';
