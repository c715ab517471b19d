-- lock_course_set: let courses come and go one at a time, and not while users are being deleted. A deletion learns of
-- the courses only after it holds the routes, the wrong way round for lock_courses; this lock is taken before both.
-- Called:   exclusive by register_course and drop_course; shared by hold_courses.
-- Locks:    an advisory lock until commit.
-- Security: INVOKER.
create or replace function rollbook.lock_course_set(is_exclusive boolean) returns void
language plpgsql
as $$
declare
    lock_key constant bigint := hashtextextended('rollbook.course', 0);
begin
    if is_exclusive then
        perform pg_advisory_xact_lock(lock_key);
    else
        perform pg_advisory_xact_lock_shared(lock_key);
    end if;
end $$;
comment on function rollbook.lock_course_set(boolean) is
    'Let courses come and go one at a time, and not while users are being deleted.';
