-- password_kind: of a user's password hash only the kind: unusable, pbkdf2_sha256 or unknown; null for an unknown user.
-- Called:   by `rollbook user show`, for roles that may not read the hash.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.password_kind(user_id bigint) returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select case
        when u.password like '!%' then 'unusable'
        when u.password ~ '^pbkdf2_sha256\$[0-9]+\$[^$]+\$.' then 'pbkdf2_sha256'
        else 'unknown'
    end
    from portal.auth_user as u where u.id = user_id
$$;
comment on function rollbook.password_kind(bigint) is
    'Of a user''s password hash only the kind: unusable, pbkdf2_sha256 or unknown; null for an unknown user.';
