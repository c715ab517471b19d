-- lock_courses: lock the courses that a statement enrolls into or leaves, whether they exist yet or not.
-- An existing course cannot be dropped before the caller's commit. For an unknown course the caller and create_course
-- both write the latch row of its ID, so the later one waits, or gets 40001 if its snapshot is older.
-- Called:   by join_courses and leave_courses, before they read rollbook.course. The IDs are distinct.
-- Locks:    KEY SHARE on rollbook.course rows; for unknown IDs a write of their rollbook.course_latch row. In ID order.
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
    where unknown.course_id <> 'default'  -- never a course, so nothing races with its creation
        and not exists (select from rollbook.course as c where c.course_id = unknown.course_id)
    order by unknown.course_id
    on conflict (course_id) do update set written = latch.written + 1;
    -- The course may have been created while we waited for the latch: lock it too.
    perform from rollbook.course as c where c.course_id = any (course_ids) order by c.course_id for key share;
end $$;
comment on function rollbook.lock_courses(text[]) is
    'Lock the courses that a statement enrolls into or leaves until commit, whether they exist yet or not. The IDs '
    'must be distinct.';
