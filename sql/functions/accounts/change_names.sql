-- change_names: give users other full names; each old one is kept in the profile's meta, under old_names, as
-- [old name, rationale, time]. An empty name removes the name.
-- Called:   by change_name and by `rollbook user import`. Returns the users whose name changed.
-- Raises:   23R13 for what name_fault refuses, a user without a profile; RB013 for arrays that differ in length or name
--           a user twice.
-- Locks:    the profiles, by user id.
-- Security: INVOKER.
create or replace function rollbook.change_names(user_ids bigint[], new_names text[], rationale text default '')
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    missing_id bigint;
    changed_ids bigint[];
    old_names text[];
    names text[];
begin
    perform rollbook.require_pairs(user_ids, new_names);
    new_names := array(
        select case
            when n.name ~ '^([!-~][ -~]*[!-~])?$' then n.name
            else coalesce(nullif(rollbook.normal_name(n.name), ''), n.name)  -- blanks alone are refused, not no name
        end
        from unnest(new_names) with ordinality as n (name, place) order by n.place
    );
    perform p.id from portal.auth_userprofile as p where p.user_id = any(user_ids) order by p.user_id for no key update;
    select n.id into missing_id from unnest(user_ids) as n (id)
    where not exists (select from portal.auth_userprofile as p where p.user_id = n.id) order by n.id limit 1;
    if found then
        raise exception 'user % has no profile', missing_id
            using errcode = '23R13', constraint = 'RB013', hint = 'Insert one into portal.auth_userprofile.';
    end if;
    select array_agg(p.user_id order by p.user_id), array_agg(p.name order by p.user_id),
        array_agg(n.name order by p.user_id)
    into changed_ids, old_names, names
    from unnest(user_ids, new_names) as n (id, name)
    inner join portal.auth_userprofile as p on p.user_id = n.id
    where p.name is distinct from n.name;
    if changed_ids is null then
        return;
    end if;
    update portal.auth_userprofile as p
    set name = n.name,
        meta = rollbook.add_to_meta(
            p.meta, 'old_names',
            jsonb_build_array(n.old_name, rationale, (to_jsonb(now() at time zone 'UTC') #>> '{}') || '+00:00')
        )
    from unnest(changed_ids, names, old_names) as n (id, name, old_name)
    where p.user_id = n.id;
    return query select unnest(changed_ids);
end $$;
comment on function rollbook.change_names(bigint[], text[], text) is
    'Give users other full names; the old ones are kept in the profiles'' meta.';
