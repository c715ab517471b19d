-- register_course: the first half of create_course, done as rollbook_owner: check the id, choose the schema, note both.
-- Locks:    lock_course_set, so that one course is made at a time; a write of the id's rollbook.course_latch row,
--           where it meets every enrollment in that id that is not committed yet (lock_courses has the other end).
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.register_course(new_course_id text, new_on_leave text) returns name
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    chosen name;
begin
    if length(new_course_id) > 255 then
        raise exception 'a course id has at most 255 characters, this one has %', length(new_course_id)
            using errcode = 'RB003', hint = 'No enrollment could bear it.';
    end if;
    if new_course_id is null or new_course_id !~ '[^[:space:]]' then
        raise exception 'a course id is not empty and not blank'
            using errcode = 'RB003', hint = 'Use the id that the enrollments bear, such as MITx/6.002x/2012_Fall.';
    end if;
    if new_course_id = 'default' then
        raise exception 'the id "default" means the portal and cannot be a course'
            using errcode = 'RB003', hint = 'Use the id that the enrollments bear, such as MITx/6.002x/2012_Fall.';
    end if;
    if new_on_leave is null or new_on_leave not in ('keep', 'remove') then
        raise exception 'on_leave is "keep" or "remove", not "%"', new_on_leave
            using errcode = 'RB003', hint = 'keep: user and profile stay, up to date. remove: they are deleted.';
    end if;
    perform rollbook.lock_course_set(is_exclusive => true);
    insert into rollbook.course_latch as latch (course_id) values (new_course_id)
    on conflict (course_id) do update set written = latch.written + 1;
    if exists (select from rollbook.course as c where c.course_id = new_course_id) then
        raise exception 'course % exists', new_course_id
            using errcode = 'RB005', hint = 'See rollbook.course_status, or `rollbook course show`.';
    end if;
    insert into rollbook.course (course_id, schema_name, on_leave)
    values (new_course_id, rollbook.choose_schema_name(new_course_id), new_on_leave)
    returning schema_name into chosen;
    return chosen;
end $$;
comment on function rollbook.register_course(text, text) is
    'The first half of create_course, done as rollbook_owner: check the id, choose the schema, note both.';
