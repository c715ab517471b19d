-- copied_tables: the portal tables that are copied to courses, in the order in which rows are inserted: parents first.
-- user_column holds the user's id: it decides in which courses a row is due.
-- Called:   wherever all three tables are processed. Routing names its tables directly, because each has a path of its
--           own.
-- Security: INVOKER; constant.
create or replace function rollbook.copied_tables()
returns table (table_name text, user_column text, ordinal integer)
language sql immutable parallel safe
as $$
    values ('auth_user', 'id', 1), ('auth_userprofile', 'user_id', 2), ('student_courseenrollment', 'user_id', 3)
$$;
comment on function rollbook.copied_tables() is
    'The portal tables that are copied to courses: name, column with the user''s id, and ordinal (parents first).';
