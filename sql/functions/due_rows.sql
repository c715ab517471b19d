-- due_rows: the query for the portal rows of one table that a course should hold. In it $1 is the course id, $2 the
-- users due there besides the enrolled (those who left a `keep` course).
-- Called:   by fill_course, differences and compare, which run it.
-- Security: INVOKER; builds text.
create or replace function rollbook.due_rows(table_name text) returns text
language sql stable
as $$
    select format(
        'select %s from portal.%I where %s',
        array_to_string(rollbook.replicated_columns(table_name), ', '), table_name,
        case table_name
            when 'student_courseenrollment' then 'course_id = $1'
            else case table_name when 'auth_user' then 'id' else 'user_id' end
                || ' in (select e.user_id from portal.student_courseenrollment as e where e.course_id = $1'
                || ' union all select unnest($2))'
        end
    )
$$;
comment on function rollbook.due_rows(text) is
    'The query for the portal rows of one table that a course should hold.';
