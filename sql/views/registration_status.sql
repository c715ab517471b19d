-- registration_status: users with an activation key, and its state. Never the key itself.
-- Security: security_invoker: roles that may read the portal's tables.
create or replace view rollbook.registration_status with (security_invoker = true) as
select
    r.id,
    r.user_id,
    u.username,
    u.email,
    r.created_at,
    r.expires_at,
    r.activated_at,
    case
        when r.activated_at is not null or u.is_active then 'activated'
        when r.expires_at <= now() then 'expired'
        else 'pending'
    end as state
from portal.auth_registration as r
cross join lateral rollbook.account(r.user_id) as u;
comment on view rollbook.registration_status is 'Users with an activation key, and its state.';
comment on column rollbook.registration_status.id is 'The registration.';
comment on column rollbook.registration_status.user_id is 'The user.';
comment on column rollbook.registration_status.username is 'The user''s name.';
comment on column rollbook.registration_status.email is 'The user''s address.';
comment on column rollbook.registration_status.created_at is 'When the key was created.';
comment on column rollbook.registration_status.expires_at is 'When the key expires.';
comment on column rollbook.registration_status.activated_at is 'When the key was used.';
comment on column rollbook.registration_status.state is 'pending, activated or expired.';
