-- due_rows: build the query for the portal rows of one table that a course should hold. Its parameters: $1 is the
-- course ID, $2 the users whose rows are due although they are not enrolled (leaver_ids). It has the columns that
-- travel to a course which leaves `without` out. Two branches let the planner
-- estimate the first one.
-- Called:   by fill_course, differences, compare and user_copies, which execute the query.
-- Security: INVOKER; builds text.
create or replace function rollbook.due_rows(table_name text, without text[]) returns text
language sql stable
as $$
    select case t.role
        when 'membership' then format(
            'select %s from %s as m where m.%I = $1::%s',
            rollbook.column_list(columns, 'm'), t.source, t.course_column, rollbook.course_type()
        )
        else format(
            'select %1$s from %2$s as p where p.%3$I in ('
            'select m.%4$I from %5$s as m where m.%6$I = $1::%7$s) '
            'union all select %1$s from %2$s as p where p.%3$I = any ($2)',
            rollbook.column_list(columns, 'p'), t.source, t.user_column,
            membership.user_column, membership.source, membership.course_column, rollbook.course_type()
        )
    end
    from rollbook.copied_tables() as t
    inner join rollbook.copied_tables() as membership on membership.role = 'membership'
    cross join rollbook.course_columns(t.table_name, without) as columns
    where t.table_name = due_rows.table_name
$$;
comment on function rollbook.due_rows(text, text[]) is
    'Build the query for the portal rows of one table that a course should hold; its $1 is the course ID, its $2 the '
    'leavers'' user ids.';
