-- stray_routes: users of one course whose copy is right (or rightly absent) while the route is wrong.
-- missing: no route leads to the copy, so it would miss the next change. extra: the route leads to the course, but no
-- copy is there.
-- Called:   by verify, compare and repair, in the caller's snapshot. The copies must have all their columns.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.stray_routes(course rollbook.course, routed_ids bigint[])
returns table (finding text, user_id bigint)
language plpgsql stable
as $$
declare
    person record;
begin
    select * into person from rollbook.copied_tables() as t where t.role = 'person';
    return query execute format(
        'with due (user_id) as ('
        'select m.user_id::bigint from rollbook.memberships_of($1) as m '
        'union select unnest($2) where $3), '
        'stray as ('
        'select coalesce(due.user_id, routed.user_id) as user_id, due.user_id is not null as is_due '
        'from due full join unnest($2) as routed (user_id) on routed.user_id = due.user_id '
        'where due.user_id is null or routed.user_id is null) '
        'select case when s.is_due then ''missing'' else ''extra'' end, s.user_id from stray as s '
        'where exists (select from %I.%I as c where c.%I = s.user_id) = s.is_due',
        course.schema_name, person.table_name, person.key_column
    ) using course.course_id, routed_ids, course.on_leave = 'keep';
end $$;
comment on function rollbook.stray_routes(rollbook.course, bigint[]) is
    'Users of one course whose copy is right (or rightly absent) while the route is missing or extra. routed_ids: the '
    'users whose routes lead to the course.';
