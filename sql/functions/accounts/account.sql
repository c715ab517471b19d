-- account: what views show of one account and its profile. PostgreSQL puts the body in place of the call, so it costs
-- nothing; but no view depends on a column here: a site may change the types of its own columns (Django's AlterField).
-- The body is read with the caller's search_path: so every operator and function is named with its schema.
-- Called:   by the views.
-- Security: INVOKER: whoever reads the view needs rights on these columns, and on no others.
create or replace function rollbook.account(user_id bigint)
returns table (username varchar, email varchar, is_active boolean, name varchar)
language sql stable
as $$
    select u.username, u.email, u.is_active, p.name
    from portal.auth_user as u left join portal.auth_userprofile as p
        on p.user_id operator(pg_catalog.=) u.id
    where u.id operator(pg_catalog.=) account.user_id
$$;
comment on function rollbook.account(bigint) is
    'What views show of an account and its profile; no view depends on the columns'' types.';
