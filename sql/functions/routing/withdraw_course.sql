-- withdraw_course: the first half of drop_course, run as rollbook_owner: forget the course, and the routes to it.
-- Returns:  the schema.
-- Locks:    lock_course_set; the rollbook.course row, so it waits for statements that route to the course; a write of
--           the routes that lead to it, in user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.withdraw_course(old_course_id text) returns name
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    old_schema name;
    server_name text;
begin
    perform rollbook.require_owner('drop courses');
    perform rollbook.lock_course_set(is_exclusive => true);
    old_schema := rollbook.course_schema(old_course_id);
    delete from rollbook.course as c where c.course_id = old_course_id returning c.server into server_name;
    if server_name is not null then
        raise exception 'course % is on server %', old_course_id, server_name
            using errcode = 'RB011', hint = 'rollbook course detach ' || rollbook.shell_quote(old_course_id);
    end if;
    perform from rollbook.route as r where r.schemas @> array[old_schema::text] order by r.user_id for update;
    update rollbook.route as r set written = r.written + 1, schemas = array_remove(r.schemas, old_schema::text)
    where r.schemas @> array[old_schema::text];
    return old_schema;
end $$;
comment on function rollbook.withdraw_course(text) is
    'First half of drop_course, run as rollbook_owner: forget the course and the routes to it; return its schema. '
    'Raises RB006, RB011.';
