-- lock_course_set: let no course be created, dropped or resumed while users are being deleted. A deletion learns its
-- courses only after it holds the routes, which is the wrong order for lock_courses; this lock comes before both.
-- Called:   exclusive by register_course, withdraw_course and lock_course; shared by hold_courses.
-- Locks:    the table rollbook.course_set until commit: ROW EXCLUSIVE or SHARE ROW EXCLUSIVE. The turn of take_turns is
--           another mode of the same table, which deletions do not meet.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.lock_course_set(is_exclusive boolean) returns void
language plpgsql
as $$
begin
    if is_exclusive then
        lock table rollbook.course_set in share row exclusive mode;
    else
        lock table rollbook.course_set in row exclusive mode;
    end if;
end $$;
comment on function rollbook.lock_course_set(boolean) is
    'Lock the set of courses until commit: exclusive to create, drop or resume a course, shared to delete users.';
