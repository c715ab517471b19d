-- comparison_source: the FROM clause that puts what a course should hold (p) beside what it holds (c), by id, whole rows.
-- Exact: no hashes, so NULL against empty and one character count. In it $1 is the course id, $2 the users due there
-- besides the enrolled (those who left a `keep` course).
-- Called:   by differences and compare.
-- Security: INVOKER; builds text.
create or replace function rollbook.comparison_source(schema_name text, table_name text) returns text
language sql stable
as $$
    select format(
        '(select %3$s from portal.%2$I where %4$s) as p full join %1$I.%2$I as c on c.id = p.id',
        schema_name, table_name, array_to_string(rollbook.replicated_columns(table_name), ', '),
        case table_name
            when 'student_courseenrollment' then 'course_id = $1'
            else case table_name when 'auth_user' then 'id' else 'user_id' end
                || ' in (select e.user_id from portal.student_courseenrollment as e where e.course_id = $1'
                || ' union all select unnest($2))'
        end
    )
$$;
comment on function rollbook.comparison_source(text, text) is
    'The FROM clause that puts what a course should hold (p) beside what it holds (c), by id, whole rows.';
