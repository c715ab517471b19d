-- lock_courses: hold still the courses that a statement enrolls into or leaves, whether they exist yet or not.
-- A course that exists cannot be dropped before the caller's commit. For one that does not exist the caller and
-- create_course both write the latch row of that id, so the later one waits, or gets 40001 where its snapshot is older.
-- Called:   by join_courses and leave_courses, before they look into rollbook.course. The ids are distinct.
-- Locks:    KEY SHARE on rollbook.course rows; for unknown ids a write of their rollbook.course_latch row. In id order.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.lock_courses(course_ids text[]) returns void
language plpgsql
as $$
declare
    locked bigint;
begin
    perform from rollbook.course as c where c.course_id = any (course_ids) order by c.course_id for key share;
    get diagnostics locked = row_count;
    if locked = cardinality(course_ids) then
        return;
    end if;
    insert into rollbook.course_latch as latch (course_id)
    select unknown.course_id
    from unnest(course_ids) as unknown (course_id)
    where unknown.course_id <> 'default'  -- never a course, so nobody races with its creation
        and not exists (select from rollbook.course as c where c.course_id = unknown.course_id)
    order by unknown.course_id
    on conflict (course_id) do update set written = latch.written + 1;
    -- While we waited for the latch the course may have come into being: lock it too.
    perform from rollbook.course as c where c.course_id = any (course_ids) order by c.course_id for key share;
end $$;
comment on function rollbook.lock_courses(text[]) is
    'Hold still the courses that a statement enrolls into or leaves, whether they exist yet or not.';
