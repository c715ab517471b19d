-- readmit: take a schema that was restored from a dump back as a course, and make its copies current. What the course
-- has added stays. Copies of users who are no longer in the portal go; what the course's own rows still need of them is
-- refused (23R04), and nothing has changed.
-- kept:     {"schema_name": "...", "on_leave": "keep", "on_fault": "refuse", "without": [], "closed_at": null}
-- Called:   by `rollbook course restore`, in the transaction that restores the schema.
-- Returns:  the rows written in each table, as repair does.
-- Locks:    see readmit_course. While it waits for somebody it holds none of them for more than 100 ms: see take_turns.
-- Security: INVOKER: requires what create_course does, and the schema must be the caller's or rollbook_owner's.
create or replace function rollbook.readmit(course_id text, kept jsonb) returns setof rollbook.repaired
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('restore courses');
    perform rollbook.require_read_committed('readmit');
    return query
    select * from unnest(
        rollbook.take_turns(
            'the restoration', 'select rollbook.readmit_schema($1, $2::jsonb)::text', course_id, kept::text
        )::rollbook.repaired[]
    );
end $$;
comment on function rollbook.readmit(text, jsonb) is
    'Take a schema that was restored from a dump back as a course and make its copies current; return the rows written '
    'in each table. Raises RB003 for an invalid ID, RB005 if the course exists, RB009 above READ COMMITTED, RB019 if '
    'the role may not, RB020 if a copy cannot be written, RB022 if it waits too long for a lock, RB028 for a column '
    'that cannot be left out, RB054 if the schema belongs to another course.';
