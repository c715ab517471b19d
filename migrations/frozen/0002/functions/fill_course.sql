-- fill_course: the second half of create_course, done as rollbook_owner: make the copies' tables in the new schema and
-- copy the students who are enrolled already.
-- Locks:    a write of the rollbook.route row of each of them, in user-id order. register_course holds the latch, so the
--           course's enrollments stand still until commit.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.fill_course(new_course_id text) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    waiting record;
begin
    perform rollbook.create_copy_tables(rollbook.course_schema(new_course_id));
    select array_agg(e.user_id) as user_ids, array_agg(e.course_id::text) as course_ids, array_agg(e.id) as ids
    into waiting
    from portal.student_courseenrollment as e
    where e.course_id = new_course_id;
    if waiting.ids is not null then
        perform rollbook.join_courses(waiting.user_ids, waiting.course_ids, waiting.ids);
    end if;
end $$;
comment on function rollbook.fill_course(text) is
    'The second half of create_course, done as rollbook_owner: make the copies'' tables in the new schema and copy the students who are enrolled already.';
