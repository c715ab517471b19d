-- guard_copies: what makes a filled table a copy: the portal's id as its primary key, plain indexes for what a course
-- looks users up by (it may add others), and the guard.
-- Called:   by fill_course, after the rows are in: building an index once is faster than growing it.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.guard_copies(schema_name text) returns void
language plpgsql
as $$
declare
    table_name text;
    lookup text;
begin
    for table_name, lookup in
        values ('auth_user', 'username'), ('auth_userprofile', 'user_id'), ('student_courseenrollment', 'user_id')
    loop
        execute format('create index on %I.%I (%I)', schema_name, table_name, lookup);
    end loop;
    foreach table_name in array array['auth_user', 'auth_userprofile', 'student_courseenrollment'] loop
        execute format('alter table %I.%I add primary key (id)', schema_name, table_name);
        execute format(
            'create trigger rollbook_guard_copy before insert or delete or truncate or update of %s on %I.%I '
            'for each statement when (current_user <> ''rollbook_owner'') execute function rollbook.guard_copy()',
            array_to_string(rollbook.replicated_columns(table_name), ', '), schema_name, table_name
        );
        execute format(
            'comment on trigger rollbook_guard_copy on %I.%I is %L', schema_name, table_name,
            'Calls rollbook.guard_copy, which says what it does.'
        );
    end loop;
end $$;
comment on function rollbook.guard_copies(text) is
    'What makes a filled table a copy: its primary key, its plain indexes, its guard.';
