-- name_change_status: changes of name, pending and decided.
-- Security: security_invoker: roles that may read these tables.
create or replace view rollbook.name_change_status with (security_invoker = true) as
select
    c.id,
    c.user_id,
    u.username,
    coalesce(u.name, '') as old_name,
    c.new_name::text as new_name,
    c.rationale::text as rationale,
    c.requested_at,
    'pending' as state,
    null::text as reason,
    null::timestamptz as decided_at
from portal.student_pendingnamechange as c
cross join lateral rollbook.account(c.user_id) as u
union all
select d.id, d.user_id, u.username, d.old_name, d.new_name, d.rationale, d.requested_at, d.state, d.reason, d.decided_at
from rollbook.name_decision as d
cross join lateral rollbook.account(d.user_id) as u;
comment on view rollbook.name_change_status is 'Changes of name, pending and decided.';
comment on column rollbook.name_change_status.id is 'The request.';
comment on column rollbook.name_change_status.user_id is 'The user.';
comment on column rollbook.name_change_status.username is 'The user''s username.';
comment on column rollbook.name_change_status.old_name is 'The name before the change.';
comment on column rollbook.name_change_status.new_name is 'The requested name.';
comment on column rollbook.name_change_status.rationale is 'The user''s reason.';
comment on column rollbook.name_change_status.requested_at is 'When it was requested.';
comment on column rollbook.name_change_status.state is 'pending, approved or rejected.';
comment on column rollbook.name_change_status.reason is 'Why it was rejected.';
comment on column rollbook.name_change_status.decided_at is 'When it was decided.';
