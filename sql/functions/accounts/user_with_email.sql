-- user_with_email: the user who has an e-mail address, case-insensitive; no row for the empty one. As rollbook.account
-- it is put in place of the call, and keeps views independent of the column.
-- Called:   by the views.
-- Security: INVOKER.
create or replace function rollbook.user_with_email(email text) returns table (user_id bigint)
language sql stable
as $$
    select u.id from portal.auth_user as u
    where pg_catalog.lower(u.email) operator(pg_catalog.=) pg_catalog.lower(user_with_email.email)
        and user_with_email.email operator(pg_catalog.<>) ''
$$;
comment on function rollbook.user_with_email(text) is 'The user who has an e-mail address, case-insensitive.';
