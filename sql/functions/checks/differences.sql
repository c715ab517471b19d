-- differences: every row in the three copies of one course that differs from the portal.
-- Exact: it compares whole rows by id, without hashes; null and empty differ, and so does a single character.
-- missing: due in the course, but absent. changed: present, but some replicated columns differ (`columns` names them).
-- extra: present, but not due.
-- Called:   by verify and repair, in the caller's snapshot.
-- Raises:   RB008 if a copy lacks a table or column.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.differences(course rollbook.course, routed_ids bigint[])
returns table (table_name text, finding text, row_id bigint, user_id bigint, columns text[])
language plpgsql stable
as $$
declare
    leaver_ids constant bigint[] := rollbook.leaver_ids(course, routed_ids);
    copied record;
    fault text;
    whitelist text[];
begin
    for copied in select * from rollbook.copied_tables() as t order by t.ordinal loop
        fault := rollbook.copy_fault(course.schema_name, copied.table_name);
        if fault is not null then
            raise exception 'course % cannot be compared: %', course.course_id, fault
                using errcode = 'RB008', hint = format(
                    case when course.paused_at is null
                        then 'Recreate it: select * from rollbook.repair(%L);'
                        else 'Resume it, which recreates it: select * from rollbook.resume_course(%L);'
                    end, course.course_id
                );
        end if;
        whitelist := rollbook.course_columns(copied.table_name, course.without);
        return query execute format(
            'select %1$L, '
            'case when c.%8$I is null then ''missing'' when p.%8$I is null then ''extra'' else ''changed'' end, '
            'coalesce(p.%8$I, c.%8$I)::bigint, coalesce(p.%2$I, c.%2$I)::bigint, '
            'case when p.%8$I = c.%8$I then array_remove(array[%3$s], null) end '
            'from (%4$s) as p full join %5$I.%1$I as c on c.%8$I = p.%8$I '
            'where row(%6$s) is distinct from row(%7$s)',
            copied.table_name,
            copied.user_column,
            (select string_agg(format('case when p.%1$I is distinct from c.%1$I then %1$L end', w), ', ')
             from unnest(whitelist) as w),
            rollbook.due_rows(copied.table_name, course.without),
            course.schema_name,
            rollbook.column_list(whitelist, 'p'),
            rollbook.column_list(whitelist, 'c'),
            copied.key_column
        ) using course.course_id, leaver_ids;
    end loop;
end $$;
comment on function rollbook.differences(rollbook.course, bigint[]) is
    'Every row in the three copies of one course that is missing, changed (with the columns) or extra. routed_ids: '
    'the users whose routes lead to the course. Raises RB008 if a copy lacks a table or column.';
