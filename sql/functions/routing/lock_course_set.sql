-- lock_course_set: let courses come and go one at a time, and not while users are being deleted. A deletion learns of
-- the courses only after it holds the routes, the wrong way round for lock_courses; this lock is taken before both.
-- Called:   exclusive by register_course and drop_course; shared by hold_courses.
-- Locks:    the table rollbook.course until commit, which nobody else may lock: SHARE, or SHARE ROW EXCLUSIVE.
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
    'Let courses come and go one at a time, and not while users are being deleted.';
