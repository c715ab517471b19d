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
    -- Seldom any, so the copies are seldom read.
    unrouted_ids constant bigint[] := array(
        select m.user_id::bigint from rollbook.memberships_of(course.course_id) as m except select unnest(routed_ids)
    );
    astray_ids constant bigint[] := array(
        select unnest(routed_ids) where course.on_leave <> 'keep'
        except
        select m.user_id::bigint from rollbook.memberships_of(course.course_id) as m
    );
    person record;
begin
    if unrouted_ids = '{}' and astray_ids = '{}' then
        return;
    end if;
    select t.table_name, t.key_column into person from rollbook.copied_tables() as t where t.role = 'person';
    return query execute format(
        'select case when s.is_due then ''missing'' else ''extra'' end, s.user_id '
        'from (select unnest($1), true union all select unnest($2), false) as s (user_id, is_due) '
        'where exists (select from %I.%I as c where c.%I = s.user_id) = s.is_due',
        course.schema_name, person.table_name, person.key_column
    ) using unrouted_ids, astray_ids;
end $$;
comment on function rollbook.stray_routes(rollbook.course, bigint[]) is
    'Users of one course whose copy is right (or rightly absent) while the route is missing or extra. routed_ids: the '
    'users whose routes lead to the course.';
