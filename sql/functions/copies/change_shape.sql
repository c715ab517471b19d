-- change_shape: the first half of update_course, run as rollbook_owner: record which columns the course leaves out, and
-- let nobody pass who believes in the old list: as release_course. Then give its copies the form in which rows may come
-- with and without these columns.
-- Returns:  whether a column travels that did not before: then the copies must be repaired.
-- Locks:    lock_course_set; FOR UPDATE on the rollbook.course row; a write of the routes that lead to the course, in
--           user-id order; ACCESS EXCLUSIVE on its copies.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.change_shape(changed_course_id text, new_without text[]) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    changed_schema name;
    old_without text[];
    statement text;
begin
    perform rollbook.require_owner('update courses');
    perform rollbook.lock_course_set(is_exclusive => true);
    changed_schema := rollbook.course_schema(changed_course_id);
    old_without := rollbook.course_without(changed_schema);
    update rollbook.course as c set without = new_without, resumptions = c.resumptions + 1
    where c.course_id = changed_course_id;
    perform from rollbook.route as r where r.schemas @> array[changed_schema::text] order by r.user_id for update;
    update rollbook.route as r set written = r.written + 1 where r.schemas @> array[changed_schema::text];
    for statement in
        select w.words
        from rollbook.copied_tables() as t
        cross join rollbook.shape_statements(
            changed_schema, t.table_name, new_without, rollbook.copy_shape(changed_schema, t.table_name),
            is_final => false
        ) as w (words)
        where to_regclass(format('%I.%I', changed_schema, t.table_name)) is not null
        order by t.ordinal
    loop
        execute statement;
    end loop;
    return not old_without <@ new_without;
end $$;
comment on function rollbook.change_shape(text, text[]) is
    'First half of update_course, run as rollbook_owner: record which columns the course leaves out and prepare its '
    'copies; return whether they must be repaired. Raises RB006.';
