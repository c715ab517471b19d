-- refuse_removal: a foreign key of a course's own forbids to delete copies.
-- Called:   by delete_copies and check_deferred_keys, with what the error reports: its detail, and the table of the
--           key, which a trigger of the course's that raises the same error may leave empty.
-- Raises:   23R04, with the course and that table.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.refuse_removal(
    schema_name text, table_name text, reason text, referring_schema text, referring_table text
) returns void
language plpgsql
as $$
declare
    place constant text := case
        when referring_table = '' then format('%I', schema_name) else format('%I.%I', referring_schema, referring_table)
    end;
begin
    raise exception 'course % has rows of its own that refer to %, in %',
            (select c.course_id from rollbook.course as c where c.schema_name = refuse_removal.schema_name), table_name,
            place
        using errcode = '23R04', constraint = 'RB004', detail = reason,
            hint = format(
                'Remove those rows in %s first, or let their foreign key cascade; or pause the course with '
                'rollbook.pause_course.', place
            );
end $$;
comment on function rollbook.refuse_removal(text, text, text, text, text) is
    'Refuse to delete copies to which rows of the course''s own refer: 23R04, with the course and the table.';
