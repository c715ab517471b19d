-- courses_apart: the courses of these schemas that are paused or leave columns out.
-- Called:   by write_copies and write_copy, after the routes are written: resume_course and update_course write them
--           too, so whoever comes later sees the course as it is then. Volatile, for a snapshot of its own.
-- Reads:    by index, as lock_courses does.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.courses_apart(schemas text[]) returns rollbook.course[]
language plpgsql
set enable_seqscan = off
as $$
begin
    return array(
        select c
        from rollbook.course as c
        where c.schema_name = any (schemas::name[]) and (c.paused_at is not null or c.without <> '{}')
    );
end $$;
comment on function rollbook.courses_apart(text[]) is
    'The courses of these schemas that are paused or leave columns out; the copies of others are written as a whole.';
