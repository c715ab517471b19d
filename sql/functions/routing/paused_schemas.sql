-- paused_schemas: which of these schemas belong to courses that are paused.
-- Called:   by write_copies and write_copy, after the routes are written: resume_course writes them too, so whoever
--           comes later sees the course resumed. Volatile, for a snapshot of its own.
-- Reads:    by index, as lock_courses does.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.paused_schemas(schemas text[]) returns text[]
language plpgsql
set enable_seqscan = off
as $$
begin
    return array(
        select c.schema_name::text
        from rollbook.course as c
        where c.schema_name = any (schemas::name[]) and c.paused_at is not null
    );
end $$;
comment on function rollbook.paused_schemas(text[]) is
    'Which of these schemas belong to courses that are paused: their copies are not written.';
