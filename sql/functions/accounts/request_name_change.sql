-- request_name_change: request a new full name, to be approved or rejected. A user has one request at a time; a new
-- one replaces it.
-- Called:   by a web application or `rollbook name-change create`. Returns the request's id.
-- Raises:   23R13 for a name of fewer than two characters, the user's present one, or what name_fault refuses.
-- Security: INVOKER.
create or replace function rollbook.request_name_change(asking_user_id bigint, wanted_name text, why text default '')
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted constant text := rollbook.normal_name(wanted_name);
    request_id bigint;
begin
    if length(coalesce(wanted, '')) < 2 then
        raise exception 'Name required'
            using errcode = '23R13', constraint = 'RB013', hint = 'Give the full name: it has at least two characters.';
    end if;
    if exists (select from portal.auth_userprofile as p where p.user_id = asking_user_id and p.name = wanted) then
        raise exception 'the user already has this name'
            using errcode = '23R13', constraint = 'RB013', hint = 'There is nothing to change.';
    end if;
    insert into portal.student_pendingnamechange as c (user_id, new_name, rationale)
    values (asking_user_id, wanted, coalesce(why, ''))
    on conflict (user_id) do update
    set new_name = excluded.new_name, rationale = excluded.rationale, requested_at = now()
    returning c.id into request_id;
    return request_id;
end $$;
comment on function rollbook.request_name_change(bigint, text, text) is
    'Request a new full name, to be approved or rejected.';
