-- due_rows: the query for the portal rows of one table that a course should hold. In it $1 is the course id, $2 the
-- users due there who are not enrolled (leaver_ids). Two branches, so that the planner knows the size of the first one.
-- Called:   by fill_course, differences, compare and user_copies, which run it.
-- Security: INVOKER; builds text.
create or replace function rollbook.due_rows(table_name text) returns text
language sql stable
as $$
    select case table_name
        when 'student_courseenrollment'
            then format('select %s from portal.%I where course_id = $1', columns, table_name)
        else format(
            'select %1$s from portal.%2$I where %3$I in ('
            'select e.user_id from portal.student_courseenrollment as e where e.course_id = $1) '
            'union all select %1$s from portal.%2$I where %3$I = any ($2)',
            columns, table_name, case table_name when 'auth_user' then 'id' else 'user_id' end
        )
    end
    from array_to_string(rollbook.replicated_columns(table_name), ', ') as columns
$$;
comment on function rollbook.due_rows(text) is
    'The query for the portal rows of one table that a course should hold.';
