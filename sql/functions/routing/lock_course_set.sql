-- lock_course_set: allow one course at a time to be created or dropped, and none while users are being deleted. A
-- deletion learns its courses only after it holds the routes, which is the wrong order for lock_courses; this lock
-- comes before both.
-- Called:   exclusive by register_course and drop_course; shared by hold_courses.
-- Locks:    the table rollbook.course until commit, in SHARE or SHARE ROW EXCLUSIVE mode; nothing else locks this
--           table.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.lock_course_set(is_exclusive boolean) returns void
language plpgsql
as $$
begin
    -- Compatible with the row locks of lock_courses and with readers.
    if is_exclusive then
        lock table rollbook.course in share row exclusive mode;
    else
        lock table rollbook.course in share mode;
    end if;
end $$;
comment on function rollbook.lock_course_set(boolean) is
    'Lock the set of courses until commit: exclusive to create or drop a course, shared to delete users.';
