-- repair_course: the second half of a repair: make the rows of some users in one course equal to the portal, and fix
-- their routes.
-- by_key:   whether the rows of these users are looked up one by one, or the course is compared as a whole: worth it
--           where many differ.
-- Called:   by repair_copies and repair_users, which have written and locked the routes of these users: from then on no
--           writer can change what is compared here.
-- Returns:  course_id, table_name, inserted, updated, deleted, for each table in which it wrote a row.
-- Raises:   RB020.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.repair_course(course rollbook.course, user_ids bigint[], by_key boolean)
returns setof rollbook.repaired
language plpgsql
as $$
declare
    tables constant text[] := array(select t.table_name from rollbook.copied_tables() as t order by t.ordinal);
    step record;
    result rollbook.repaired;
    results rollbook.repaired[] := '{}';
    place text;
    refusing text;
    unfilled text;
begin
    begin
        for step in
            select t.table_name, t.key_column, d.finding, array_agg(d.row_id) as row_ids
            from (
                select w.table_name, w.finding, w.row_id
                from rollbook.differences(
                    course,
                    array(select r.user_id from rollbook.route as r where r.schemas @> array[course.schema_name::text])
                ) as w
                where not by_key and w.user_id = any (user_ids)
                union all
                select k.table_name, k.finding, k.row_id
                from rollbook.compare_users(user_ids, array[course.course_id]) as k
                where by_key and k.finding in ('missing', 'changed', 'extra') and k.table_name <> 'route'
                    and k.user_id = any (user_ids)
            ) as d
            inner join rollbook.copied_tables() as t on t.table_name = d.table_name
            group by t.table_name, t.key_column, t.role, t.ordinal, d.finding
            -- Delete extra children; fix the other rows, parents first; delete extra users when nothing refers to them.
            order by
                case when d.finding <> 'extra' then 1 when t.role = 'person' then 2 else 0 end,
                t.ordinal * case d.finding when 'extra' then -1 else 1 end
        loop
            result := (course.course_id, step.table_name, 0, 0, 0);
            case step.finding
                when 'extra' then
                    result.deleted := rollbook.delete_copies(
                        course.schema_name, step.table_name, step.key_column, step.row_ids
                    );
                    perform rollbook.check_deferred_keys(course.schema_name, step.table_name);
                when 'changed' then
                    result.updated := rollbook.update_copies(
                        course.schema_name, step.table_name, step.key_column, step.row_ids, course.without
                    );
                when 'missing' then
                    result.inserted := rollbook.put_copies(
                        course.schema_name, step.table_name, step.key_column, step.row_ids, course.without
                    );
            end case;
            results := results || result;
        end loop;
    exception when others then
        if not rollbook.is_fault(sqlstate, course.schema_name) then
            raise;
        end if;
        get stacked diagnostics
            place = pg_exception_context, refusing = constraint_name, unfilled = column_name;
        perform rollbook.meet_fault(
            course.schema_name, step.table_name, sqlstate, sqlerrm, place, refusing, unfilled,
            is_routing => false
        );
    end;

    update rollbook.route as r
    set schemas = case
        when e.user_id is null and course.on_leave = 'remove' then array_remove(r.schemas, course.schema_name::text)
        when e.user_id is not null and not r.schemas @> array[course.schema_name::text]
            then r.schemas || course.schema_name::text
        else r.schemas
    end
    from rollbook.persons() as u
    left join rollbook.memberships_of(course.course_id) as e on e.user_id = u.id
    where u.id = r.user_id and r.user_id = any (user_ids);
    delete from rollbook.route as r
    where r.user_id = any (user_ids) and not exists (select from rollbook.persons() as u where u.id = r.user_id);

    return query
    select course.course_id, w.table_name, sum(w.inserted)::bigint, sum(w.updated)::bigint, sum(w.deleted)::bigint
    from unnest(results) as w
    group by w.table_name
    order by min(array_position(tables, w.table_name));
end $$;
comment on function rollbook.repair_course(rollbook.course, bigint[], boolean) is
    'Second half of a repair: make the rows of these users in one course equal to the portal and fix their routes; '
    'return the rows written in each table. Raises RB020 if a copy cannot be written.';
