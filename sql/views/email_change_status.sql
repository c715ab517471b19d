-- email_change_status: pending changes of e-mail address, and whether another user has taken the address
-- since. Never the key itself.
-- Security: security_invoker: roles that may read the portal's tables.
create or replace view rollbook.email_change_status with (security_invoker = true) as
select
    c.id,
    u.id as user_id,
    u.username,
    u.email as old_email,
    c.new_email,
    c.requested_at,
    c.expires_at,
    other.id is not null as conflict
from portal.student_pendingemailchange as c
inner join portal.auth_user as u on u.id = c.user_id
left join portal.auth_user as other on lower(other.email) = lower(c.new_email) and other.id <> u.id
    and c.new_email <> '';
comment on view rollbook.email_change_status is 'Pending changes of e-mail address.';
comment on column rollbook.email_change_status.id is 'The request.';
comment on column rollbook.email_change_status.user_id is 'The user.';
comment on column rollbook.email_change_status.username is 'The user''s username.';
comment on column rollbook.email_change_status.old_email is 'The present address.';
comment on column rollbook.email_change_status.new_email is 'The requested address.';
comment on column rollbook.email_change_status.requested_at is 'When it was requested.';
comment on column rollbook.email_change_status.expires_at is 'When the key expires.';
comment on column rollbook.email_change_status.conflict is 'Whether another user has the address now.';
