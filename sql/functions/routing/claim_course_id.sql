-- claim_course_id: check the ID of a new course, and that it is nobody's. One that a renamed course had is free again.
-- Called:   by register_course, readmit_course and begin_rename, which record it.
-- Raises:   RB003, RB005.
-- Locks:    lock_course_set, so that one course is created at a time; a write of the ID's rollbook.course_latch row,
--           where it meets every uncommitted enrollment with that ID (lock_courses has the other end).
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.claim_course_id(new_course_id text) returns void
language plpgsql
as $$
declare
    membership record;
    held text;
begin
    if length(new_course_id) > 255 then
        raise exception 'a course ID has at most 255 characters; this one has %', length(new_course_id)
            using errcode = 'RB003', hint = 'Use the course ID of the enrollments; they have the same limit.';
    end if;
    if new_course_id is null or new_course_id !~ '[^[:space:]]' then
        raise exception 'a course ID cannot be empty or blank'
            using errcode = 'RB003', hint = 'Use the course ID of the enrollments, such as MITx/6.002x/2012_Fall.';
    end if;
    if new_course_id = 'default' then
        raise exception 'the ID "default" means the portal and cannot be a course'
            using errcode = 'RB003', hint = 'Use the course ID of the enrollments, such as MITx/6.002x/2012_Fall.';
    end if;
    begin
        execute format('select %L::%s::text', new_course_id, rollbook.course_type()) into held;
    exception when data_exception or check_violation then
        null;  -- held is null
    end;
    if held is distinct from new_course_id then
        select t.relation, t.course_column into membership
        from rollbook.copied_tables() as t where t.role = 'membership';
        raise exception 'the enrollments cannot have the course ID %', new_course_id
            using errcode = 'RB003',
                detail = format(
                    'Column %I of %s holds it as %s: %s.', membership.course_column, membership.relation,
                    rollbook.course_type(), coalesce(held, 'not at all')
                ),
                hint = format('Use the course ID as %s has it.', membership.relation);
    end if;
    perform rollbook.lock_course_set(is_exclusive => true);
    insert into rollbook.course_latch as latch (course_id) values (new_course_id)
    on conflict (course_id) do update set written = latch.written + 1;
    if exists (select from rollbook.course as c where c.course_id = new_course_id) then
        raise exception 'course % already exists', new_course_id
            using errcode = 'RB005', hint = 'See rollbook.course_status, or `rollbook course show`.';
    end if;
    update rollbook.course as c set former_ids = array_remove(c.former_ids, new_course_id)
    where new_course_id = any (c.former_ids);
end $$;
comment on function rollbook.claim_course_id(text) is
    'Check the ID of a new course and lock it until commit. Raises RB003 for an invalid one, RB005 for one that is '
    'taken.';
