-- meet_fault: a copy cannot be written: pause the course if its on_fault is `pause`, else refuse the statement.
-- Called:   by write_copies and write_copy, when what they wrote is undone. By repair_copies and resume_course with
--           is_routing false: there nothing is paused.
-- Raises:   RB020, with the course, the table and the ways out: the statement that removes what refuses the row, if
--           the error leads to it, or repair, if a part of the copies is gone; or to pause the course. place,
--           constraint_name and column_name are what the error reports. Its words are repeated where they can hold
--           names only (classes 0A, 23, 3F, 42, 44, 55): elsewhere they may quote the row, and with it a password hash.
--           Its detail is never repeated: it quotes the row.
-- Locks:    to pause, the course's rollbook.course row: waits for a transaction that pauses it too.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.meet_fault(
    schema_name text, table_name text, state text, words text, place text, constraint_name text, column_name text,
    is_routing boolean default true
) returns void
language plpgsql
as $$
declare
    course constant rollbook.course := (
        select c from rollbook.course as c where c.schema_name = meet_fault.schema_name::name
    );
    obstacle_fix constant text := rollbook.obstacle_fix(
        schema_name, table_name, state, place, constraint_name, column_name, '{O,A}'
    );
    is_gone constant boolean := exists (
        select from rollbook.copied_tables() as t where rollbook.copy_fault(schema_name, t.table_name) is not null
    );
    way_out constant text := case
        when is_gone then format('Run: select * from rollbook.repair(%L); it recreates what is gone.', course.course_id)
        when state in ('22001', '22003') then
            'A value is too large for a column there: rollbook schema check prints the line that makes it as in the portal.'
        when obstacle_fix is not null then format('Run: %s; or change it.', obstacle_fix)
        else format('Change what forbids it in schema %I%s.', schema_name, (
            select ', such as ' || string_agg(o, ', ') from rollbook.local_objects(schema_name) as o
            where strpos(o, meet_fault.table_name) > 0
        ))
    end;
    reason constant text := format('%s (SQLSTATE %s)', case
        when left(state, 2) = any ('{0A,23,3F,42,44,55}'::text[]) then words
        else 'an error in ' || coalesce(substring(place from '^(?:PL/pgSQL|SQL) function [^\n]*'), 'the course')
            || ', whose words may quote the row and are left out'
    end, state);
begin
    if is_routing and course.on_fault = 'pause' then
        update rollbook.course as c
        set paused_at = clock_timestamp(), paused_by = session_user,
            pause_reason = format('%s: %s', meet_fault.table_name, reason)
        where c.course_id = course.course_id and c.paused_at is null;
        raise warning 'course % is paused: its % cannot be written: %', course.course_id, table_name, reason
            using hint = 'See rollbook.course_status.';
        return;
    end if;
    raise exception 'course % cannot be written: %.%', course.course_id, schema_name, table_name
        using errcode = 'RB020', detail = reason, hint = way_out || case when is_routing then format(
            ' Or pause the course, and the portal goes on without it: select rollbook.pause_course(%L); or: rollbook '
            'course pause %s', course.course_id, rollbook.shell_quote(course.course_id)
        ) else ' Then try again.' end;
end $$;
comment on function rollbook.meet_fault(text, text, text, text, text, text, text, boolean) is
    'A copy cannot be written: pause the course if its on_fault is pause, else refuse the statement with RB020.';
