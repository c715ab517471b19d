-- change_name: give a user another full name; the old one is kept in the profile's meta, under old_names, as
-- [old name, rationale, time].
-- Called:   by `rollbook user update --name` and decide_name_change. Returns whether anything changed.
-- Raises:   RB013 without a profile, and for a name of one character; an empty one takes the name away.
-- Security: INVOKER.
create or replace function rollbook.change_name(changed_user_id bigint, new_name text, rationale text default '')
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    profile portal.auth_userprofile;
begin
    if new_name <> '' and length(btrim(new_name)) < 2 then
        raise exception 'a name has at least two characters' using errcode = 'RB013', hint = 'Give the full name.';
    end if;
    select p.* into profile from portal.auth_userprofile as p
    where p.user_id = changed_user_id for no key update;
    if not found then
        raise exception 'user % has no profile', changed_user_id
            using errcode = 'RB013', hint = 'Insert one into portal.auth_userprofile.';
    end if;
    if profile.name = new_name then
        return false;
    end if;
    update portal.auth_userprofile as p
    set name = new_name,
        meta = rollbook.add_to_meta(
            p.meta, 'old_names',
            jsonb_build_array(profile.name, rationale, (to_jsonb(now() at time zone 'UTC') #>> '{}') || '+00:00')
        )
    where p.user_id = changed_user_id;
    return true;
end $$;
comment on function rollbook.change_name(bigint, text, text) is
    'Give a user another full name; the old one is kept in the profile''s meta.';
