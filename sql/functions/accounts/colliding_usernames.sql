-- colliding_usernames: usernames that differ in case alone: the name in small letters, and who has it.
-- Called:   by guard_usernames, and by `schema check`.
-- Security: INVOKER.
create or replace function rollbook.colliding_usernames()
returns table (name text, user_ids bigint[], usernames text[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select lower(u.username), array_agg(u.id::bigint order by u.id), array_agg(u.username::text order by u.id)
    from portal.auth_user as u group by lower(u.username) having count(*) > 1 order by 1
$$;
comment on function rollbook.colliding_usernames() is
    'Usernames that differ in case alone: the name in small letters, and who has it.';
