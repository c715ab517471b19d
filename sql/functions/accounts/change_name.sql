-- change_name: change_names for one user.
-- Called:   by `rollbook user update --name` and decide_name_change. Returns whether anything changed.
-- Security: INVOKER.
create or replace function rollbook.change_name(changed_user_id bigint, new_name text, rationale text default '')
returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$
    select count(*) > 0 from rollbook.change_names(array[changed_user_id], array[new_name], rationale)
$$;
comment on function rollbook.change_name(bigint, text, text) is
    'Give a user another full name; the old one is kept in the profile''s meta.';
