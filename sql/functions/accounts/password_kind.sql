-- password_kind: of a user's password hash only the kind: its algorithm, unusable or unknown; null for an unknown user.
-- Called:   by `rollbook user show`, for roles that may not read the hash.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.password_kind(user_id bigint) returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select case
        when u.password = '' or u.password like '!%' then 'unusable'
        when u.password ~ '^(pbkdf2_sha256|pbkdf2_sha1|scrypt)\$[0-9]+\$[^$]+\$.' then split_part(u.password, '$', 1)
        when u.password ~ '^(argon2\$argon2|bcrypt\$\$2|bcrypt_sha256\$\$2)' then split_part(u.password, '$', 1)
        when u.password ~ '^(sha1\$[^$]*\$[0-9a-f]{40}|md5\$[^$]*\$[0-9a-f]{32}|crypt\$[^$]*\$[./A-Za-z0-9]{13})$'
            then split_part(u.password, '$', 1) || ' (weak)'
        when u.password ~ '^[0-9a-f]{32}$' then 'md5 (weak)'
        else 'unknown'
    end
    from portal.auth_user as u where u.id = user_id
$$;
comment on function rollbook.password_kind(bigint) is
    'Of a user''s password hash only the kind: its algorithm (md5, sha1 and crypt with "(weak)"), unusable or unknown; '
    'null for an unknown user.';
