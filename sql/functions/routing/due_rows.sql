-- due_rows: build the query for the portal rows of one table that a course should hold. Its parameters: $1 is the
-- course ID, $2 the users whose rows are due although they are not enrolled (leaver_ids). It has the columns that
-- travel to a course which leaves `without` out. Two branches let the planner
-- estimate the first one.
-- Called:   by fill_course, differences, compare and user_copies, which execute the query.
-- Security: INVOKER; builds text.
create or replace function rollbook.due_rows(table_name text, without text[]) returns text
language sql stable
as $$
    select case t.table_name
        when 'student_courseenrollment'
            then format('select %s from portal.%I where course_id = $1', columns, t.table_name)
        else format(
            'select %1$s from portal.%2$I where %3$I in ('
            'select e.user_id from portal.student_courseenrollment as e where e.course_id = $1) '
            'union all select %1$s from portal.%2$I where %3$I = any ($2)',
            columns, t.table_name, t.user_column
        )
    end
    from rollbook.copied_tables() as t
    cross join array_to_string(rollbook.course_columns(t.table_name, without), ', ') as columns
    where t.table_name = due_rows.table_name
$$;
comment on function rollbook.due_rows(text, text[]) is
    'Build the query for the portal rows of one table that a course should hold; its $1 is the course ID, its $2 the '
    'leavers'' user ids.';
