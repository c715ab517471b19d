-- email_change_status: pending changes of e-mail address, and whether another user has taken the address
-- since. Never the key itself.
-- Security: security_invoker: roles that may read the portal's tables.
create or replace view rollbook.email_change_status with (security_invoker = true) as
select
    c.id,
    c.user_id,
    u.username,
    u.email as old_email,
    c.new_email,
    c.requested_at,
    c.expires_at,
    other.user_id is not null as conflict
from portal.student_pendingemailchange as c
cross join lateral rollbook.account(c.user_id) as u
left join lateral rollbook.user_with_email(c.new_email) as other on other.user_id <> c.user_id;
comment on view rollbook.email_change_status is 'Pending changes of e-mail address.';
comment on column rollbook.email_change_status.id is 'The request.';
comment on column rollbook.email_change_status.user_id is 'The user.';
comment on column rollbook.email_change_status.username is 'The user''s username.';
comment on column rollbook.email_change_status.old_email is 'The present address.';
comment on column rollbook.email_change_status.new_email is 'The requested address.';
comment on column rollbook.email_change_status.requested_at is 'When it was requested.';
comment on column rollbook.email_change_status.expires_at is 'When the key expires.';
comment on column rollbook.email_change_status.conflict is 'Whether another user has the address now.';
