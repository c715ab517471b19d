-- change_on_leave: one attempt of set_on_leave: record the policy, let nobody pass who believes in the old one (as
-- release_course), and, for `remove`, delete the copies of those who left before. A paused course does that when it is
-- resumed.
-- Called:   by take_turns.
-- Locks:    lock_course_set; FOR UPDATE on the rollbook.course row; a write of the routes that lead to the course, in
--           user-id order; see repair_copies.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.change_on_leave(changed_course_id text, new_on_leave text)
returns rollbook.repaired[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    course rollbook.course;
begin
    perform rollbook.require_owner('update courses');
    perform rollbook.lock_course_set(is_exclusive => true);
    perform rollbook.course_schema(changed_course_id);
    update rollbook.course as c set on_leave = new_on_leave, resumptions = c.resumptions + 1
    where c.course_id = changed_course_id and c.on_leave <> new_on_leave
    returning c.* into course;
    if not found or new_on_leave = 'keep' then
        return '{}';
    end if;
    perform from rollbook.route as r where r.schemas @> array[course.schema_name::text] order by r.user_id for update;
    update rollbook.route as r set written = r.written + 1 where r.schemas @> array[course.schema_name::text];
    if course.paused_at is not null then
        return '{}';
    end if;
    return array(select r from rollbook.repair_copies(array[changed_course_id]) as r);
end $$;
comment on function rollbook.change_on_leave(text, text) is
    'One attempt of set_on_leave: record the policy; for remove, delete the copies of those who left before. Raises '
    'RB006, RB019.';
