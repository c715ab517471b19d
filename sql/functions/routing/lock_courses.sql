-- lock_courses: lock the courses that a statement enrolls into or leaves, whether they exist yet or not.
-- An existing course cannot be dropped before the caller's commit. For an unknown course the caller and create_course
-- both write the latch row of its ID, so the later one waits, or gets 40001 if its snapshot is older.
-- Called:   by join_courses and leave_courses, which use the rows that it returns. The IDs are distinct.
-- Returns:  the courses that exist.
-- Locks:    KEY SHARE on rollbook.course rows; for unknown IDs a write of their rollbook.course_latch row. In ID order.
-- Reads:    by key, however small the table is: a SERIALIZABLE transaction that scans it would meet every change there.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.lock_courses(course_ids text[]) returns rollbook.course[]
language plpgsql
set enable_seqscan = off
as $$
declare
    courses rollbook.course[] := array(
        select c from rollbook.course as c where c.course_id = any (course_ids) order by c.course_id for key share
    );
begin
    if cardinality(courses) = cardinality(course_ids) then
        return courses;
    end if;
    insert into rollbook.course_latch as latch (course_id)
    select unknown.course_id
    from unnest(course_ids) as unknown (course_id)
    where unknown.course_id <> 'default'  -- never a course, so nothing races with its creation
        and not exists (select from rollbook.course as c where c.course_id = unknown.course_id)
    order by unknown.course_id
    on conflict (course_id) do update set written = latch.written + 1;
    -- The course may have been created while we waited for the latch: lock it too.
    return array(
        select c from rollbook.course as c where c.course_id = any (course_ids) order by c.course_id for key share
    );
end $$;
comment on function rollbook.lock_courses(text[]) is
    'Lock the courses that a statement enrolls into or leaves until commit, whether they exist yet or not; return '
    'those that exist. The IDs must be distinct.';
