-- reopen_course: one attempt of resume_course: lock the course, recreate what is gone, repair, verify.
-- Called:   by take_turns.
-- Locks:    see release_course.
-- Security: INVOKER, as resume_course.
create or replace function rollbook.reopen_course(course_id text) returns rollbook.repaired[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant name := rollbook.release_course(course_id);
    is_broken constant boolean := exists (
        select from rollbook.copied_tables() as t where rollbook.copy_fault(schema_name, t.table_name) is not null
    );
    results rollbook.repaired[];
begin
    if is_broken then
        perform rollbook.restore_copies(course_id);
    end if;
    results := array(select r from rollbook.repair_copies(array[course_id]) as r);
    perform rollbook.finish_copies(course_id);
    if exists (select from rollbook.verify(course_id)) then
        raise exception 'course % still differs from the portal after its repair', course_id
            using errcode = 'RB020', hint = format('See what: select * from rollbook.verify(%L);', course_id);
    end if;
    return results;
end $$;
comment on function rollbook.reopen_course(text) is
    'One attempt of resume_course: lock the course, recreate what is gone, repair, verify.';
