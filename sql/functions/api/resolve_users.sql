-- resolve_users: the users that names refer to. A name is a username, an e-mail address in any capitals, or id:N,
-- username:X or email:X.
-- Called:   by every command that takes a USER, for one name and for the rows of a file. Returns the position of the
--           name (from 1) and the user: no row for an unknown name, several for an ambiguous one.
-- Security: INVOKER; reads portal.auth_user.
create or replace function rollbook.resolve_users(names text[]) returns table (place bigint, user_id bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with given as materialized (
        select
            n.place, k.kind,
            case when k.kind is null then n.name else substr(n.name, length(k.kind) + 2) end as value
        from unnest(names) with ordinality as n (name, place)
        cross join lateral substring(n.name, '^(id|username|email):') as k (kind)
    )
    select g.place, u.id from given as g inner join portal.auth_user as u on u.username = g.value
    where g.kind is null or g.kind = 'username'
    union
    select g.place, u.id
    from given as g inner join portal.auth_user as u on lower(u.email) = lower(g.value) and u.email <> ''
    where g.kind is null or g.kind = 'email'
    union
    select g.place, u.id
    from given as g
    inner join portal.auth_user as u on u.id = case when g.value ~ '^[0-9]{1,18}$' then g.value::bigint end
    where g.kind = 'id'
$$;
comment on function rollbook.resolve_users(text[]) is
    'The users that names refer to: a username, an e-mail address, id:N, username:X or email:X.';
