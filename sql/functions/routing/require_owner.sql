-- require_owner: refuse whoever may not act for rollbook_owner. Courses come and go only by the hand of such a role,
-- also where somebody was granted EXECUTE on all functions.
-- Called:   by register_course, fill_course and drop_course, inside which current_user is rollbook_owner.
-- Raises:   RB019.
-- Security: INVOKER.
create or replace function rollbook.require_owner(work text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- From 16 on whoever makes a role is a member of it by ADMIN alone, and may not act for it.
    if not pg_has_role(
        session_user, 'rollbook_owner',
        case when current_setting('server_version_num')::integer < 160000 then 'member' else 'usage, set' end
    ) then
        raise exception 'role % may not %', session_user, work
            using errcode = 'RB019', hint = 'Ask a DBA: only the role that migrates and members of rollbook_owner may.';
    end if;
end $$;
comment on function rollbook.require_owner(text) is
    'Refuse whoever may not act for rollbook_owner: RB019.';
