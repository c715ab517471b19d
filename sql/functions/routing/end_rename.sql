-- end_rename: the second half of rename_course, run as rollbook_owner: close the course again if it was closed, when
-- all its enrollments have the new ID.
-- Called:   by change_course_id.
-- Raises:   23R55 where row security hid enrollments from the caller.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.end_rename(old_course_id text, new_course_id text, was_closed_at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('rename courses');
    if exists (select from rollbook.memberships_of(old_course_id)) then
        raise exception 'role % may not change all enrollments of course %', session_user, old_course_id
            using errcode = '23R55', constraint = 'RB055',
                hint = 'Rename it as a superuser, or as the owner of the table: row security hides some.';
    end if;
    update rollbook.course as c set closed_at = was_closed_at
    where c.course_id = new_course_id and was_closed_at is not null;
end $$;
comment on function rollbook.end_rename(text, text, timestamptz) is
    'Second half of rename_course: close the course again if it was closed. Raises RB019, 23R55.';
