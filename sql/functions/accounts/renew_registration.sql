-- renew_registration: give an account a new activation key with an expiry; the old one no longer works. Creates the
-- registration if there is none.
-- Called:   by `rollbook registration renew`. Returns the key, a secret, from the server's strong random source.
-- Security: INVOKER.
create or replace function rollbook.renew_registration(renewed_user_id bigint, good_for interval default '14 days')
returns text
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into portal.auth_registration as r (user_id, expires_at) values (renewed_user_id, now() + good_for)
    on conflict (user_id) do update
    set activation_key = excluded.activation_key, created_at = now(), expires_at = excluded.expires_at,
        activated_at = null
    returning activation_key
$$;
comment on function rollbook.renew_registration(bigint, interval) is
    'Give an account a new activation key with an expiry; the old one no longer works.';
