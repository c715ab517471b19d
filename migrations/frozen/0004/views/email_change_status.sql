-- email_change_status: changes of address that wait for their key, and whether somebody has taken the address
-- meanwhile. Never the key itself.
-- Security: security_invoker: whoever may read the portal's tables.
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
comment on view rollbook.email_change_status is 'Changes of address that wait for their key.';
comment on column rollbook.email_change_status.id is 'The request.';
comment on column rollbook.email_change_status.user_id is 'Who asks.';
comment on column rollbook.email_change_status.username is 'Their name.';
comment on column rollbook.email_change_status.old_email is 'The address that they have.';
comment on column rollbook.email_change_status.new_email is 'The one asked for.';
comment on column rollbook.email_change_status.requested_at is 'When it was asked for.';
comment on column rollbook.email_change_status.expires_at is 'Until when the key can be used.';
comment on column rollbook.email_change_status.conflict is 'Whether another user has the address by now.';
