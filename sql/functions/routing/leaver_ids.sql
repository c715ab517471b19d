-- leaver_ids: the users whose rows are due in a course although they are not enrolled: those who left it, where
-- on_leave is `keep`.
-- Called:   by differences, compare and user_copies, for due_rows.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.leaver_ids(course rollbook.course, routed_ids bigint[]) returns bigint[]
language plpgsql stable
as $$
begin
    return array(
        select unnest(routed_ids) where course.on_leave = 'keep'
        except
        select m.user_id from rollbook.memberships_of(course.course_id) as m
    );
end $$;
comment on function rollbook.leaver_ids(rollbook.course, bigint[]) is
    'Of the users whose routes lead to a course, those who left it, if its on_leave is keep: their copies stay due.';
