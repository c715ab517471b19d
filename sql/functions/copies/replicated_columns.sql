-- replicated_columns: THE WHITELIST. The columns of a portal table that travel to a course, in the copy's order.
-- Everything that names replicated columns asks here: the copies' tables, their guards, routing, verify and repair.
-- Called:   by Rollbook's functions; null for a table that is not replicated.
-- Security: INVOKER; constant.
create or replace function rollbook.replicated_columns(table_name text) returns text[]
language sql immutable parallel safe
as $$
    select case table_name
        when 'auth_user' then array[
            'id', 'username', 'first_name', 'last_name', 'email', 'password',
            'is_staff', 'is_active', 'is_superuser', 'last_login', 'date_joined'
        ]
        when 'auth_userprofile' then array[
            'id', 'user_id', 'name', 'meta', 'courseware', 'language', 'location',
            'year_of_birth', 'gender', 'level_of_education', 'mailing_address', 'goals'
        ]
        when 'student_courseenrollment' then array['id', 'user_id', 'course_id', 'created']
    end
$$;
comment on function rollbook.replicated_columns(text) is
    'THE WHITELIST. The columns of a portal table that travel to a course, in the copy''s order.';
