-- fill_course: the second half of create_course, run as rollbook_owner: create the copies in the new schema, with the
-- students who are already enrolled. Plain inserts: nobody else can see the course yet.
-- Locks:    a write of the rollbook.route row of each of them, in user-id order. register_course holds the latch, so
--           the course's enrollments cannot change until commit.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.fill_course(new_course_id text) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    new_schema constant text := rollbook.course_schema(new_course_id);
    without constant text[] := rollbook.course_without(new_schema);
    copied record;
    statement text;
begin
    perform rollbook.require_owner('create courses');
    perform rollbook.lock_portal();
    insert into rollbook.route as r (user_id, schemas)
    select m.user_id, array[new_schema]
    from rollbook.memberships_of(new_course_id) as m
    group by m.user_id
    order by m.user_id
    on conflict (user_id) do update set written = r.written + 1, schemas = r.schemas || excluded.schemas;

    for copied in select * from rollbook.copied_tables() as t order by t.ordinal loop
        for statement in select rollbook.copy_statements(new_schema, copied.table_name) loop
            execute statement;
        end loop;
        execute format(
            'insert into %I.%I (%s) %s', new_schema, copied.table_name,
            rollbook.column_list(rollbook.course_columns(copied.table_name, without)),
            rollbook.due_rows(copied.table_name, without)
        ) using new_course_id, '{}'::bigint[];
        for statement in select rollbook.guard_statements(new_schema, copied.table_name) loop
            execute statement;
        end loop;
    end loop;
end $$;
comment on function rollbook.fill_course(text) is
    'Second half of create_course, run as rollbook_owner: create the copies and fill them with the students who are '
    'already enrolled.';
