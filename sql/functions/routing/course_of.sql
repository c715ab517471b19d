-- course_of: the ID of the course to which a schema belongs.
-- Called:   by put_copies.
-- Reads:    by index, as lock_courses does.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.course_of(schema_name text) returns text
language plpgsql stable
set enable_seqscan = off
as $$
begin
    return (select c.course_id from rollbook.course as c where c.schema_name = course_of.schema_name::name);
end $$;
comment on function rollbook.course_of(text) is
    'The ID of the course to which a schema belongs; null for other schemas.';
