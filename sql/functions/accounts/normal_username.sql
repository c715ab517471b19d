-- normal_username: a username as it is stored: in Unicode's form NFKC, as Django stores it. White space stays, and is a
-- fault.
-- Called:   by whoever writes a username, before username_fault; by check_account for every write.
-- Security: INVOKER; computes only.
create or replace function rollbook.normal_username(value text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if octet_length(value) = length(value) or getdatabaseencoding() <> 'UTF8' then
        return value;
    end if;
    return normalize(value, nfkc);
end $$;
comment on function rollbook.normal_username(text) is
    'A username as it is stored: in Unicode''s form NFKC, as Django stores it.';
