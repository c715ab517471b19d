-- create_course: create a course's schema with its three copies, copy the students who are already enrolled, return the
-- schema.
-- All or nothing. From its commit on, Rollbook copies every enrollment with this course ID.
-- without:  the columns that do not travel to it: in its copies they are its own, with the portal's default, or else
--           nullable. null = those of rollbook.shape, the installation's default.
-- Called:   by a DBA, in psql or through `rollbook course create`.
-- Locks:    see register_course and fill_course; enrollments with this course ID wait for the commit. While it waits
--           for somebody it holds none of them for more than 100 ms: see take_turns.
-- Security: INVOKER, because creating a schema requires the caller's own CREATE right on the database and membership in
--           rollbook_owner, which will own the schema; the rest runs as rollbook_owner.
create or replace function rollbook.create_course(
    course_id text, on_leave text default 'keep', without text[] default null
) returns name
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('create courses');
    return rollbook.take_turns(
        'the creation', format('select rollbook.build_course($1, $2, %L::text[])', without), course_id, on_leave
    );
end $$;
comment on function rollbook.create_course(text, text, text[]) is
    'Create a course: its schema with the three copied tables, filled with the students who are already enrolled; '
    'return the schema. on_leave says what happens to user and profile when an enrollment ends: keep (they stay and '
    'stay current) or remove. without lists columns that do not travel (null: the '
    'installation''s default). Raises RB003 for an invalid ID or on_leave, RB005 if the course exists, RB019 if the '
    'role may not create courses, RB022 if it waits too long for a lock, RB028 for a column that '
    'cannot be left out.';
