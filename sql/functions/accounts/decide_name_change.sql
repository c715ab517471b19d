-- decide_name_change: approve or reject a requested change of name. The request moves to rollbook.name_decision; on
-- approval the profile gets the new name, and its meta keeps the old one.
-- Called:   by `rollbook name-change approve` and `reject`. Returns the user.
-- Raises:   RB012 for an unknown request, 23R13 without a profile.
-- Locks:    the user row FOR KEY SHARE, then the request, then the profile. Of two concurrent calls, the second
--           finds the request gone.
-- Security: INVOKER: roles that may write these tables.
create or replace function rollbook.decide_name_change(request_id bigint, is_approved boolean, why text default null)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    request portal.student_pendingnamechange;
begin
    perform u.id from portal.auth_user as u
    where u.id = (select c.user_id from portal.student_pendingnamechange as c where c.id = request_id) for key share;
    delete from portal.student_pendingnamechange as c where c.id = request_id returning c.* into request;
    if not found then
        raise exception 'Invalid ID'
            using errcode = 'RB012', detail = format('There is no pending name change %s.', request_id),
            hint = 'See rollbook name-change list.';
    end if;
    insert into rollbook.name_decision
        (id, user_id, old_name, new_name, rationale, requested_at, state, reason)
    select
        request.id, request.user_id, coalesce(p.name, ''), request.new_name, request.rationale, request.requested_at,
        case when is_approved then 'approved' else 'rejected' end, why
    from portal.auth_user as u
    left join portal.auth_userprofile as p on p.user_id = u.id
    where u.id = request.user_id;
    if is_approved then
        perform rollbook.change_name(request.user_id, request.new_name, request.rationale);
    end if;
    return request.user_id;
end $$;
comment on function rollbook.decide_name_change(bigint, boolean, text) is
    'Approve or reject a requested change of name, and record the decision.';
