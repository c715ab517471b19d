-- allowed_status: e-mail addresses that may enroll in a course, whether an account has the address, and whether that
-- account is enrolled.
-- Security: security_invoker: roles that may read the portal's tables.
create or replace view rollbook.allowed_status with (security_invoker = true) as
select
    a.id,
    a.course_id,
    a.email,
    a.auto_enroll,
    a.created,
    u.user_id is not null as user_exists,
    e.id is not null as enrolled
from portal.student_courseenrollmentallowed as a
left join lateral rollbook.user_with_email(a.email) as u on true
left join rollbook.enrollments() as e on e.user_id = u.user_id and e.course_id = a.course_id;
comment on view rollbook.allowed_status is
    'E-mail addresses that may enroll in a course, with their accounts and enrollments.';
comment on column rollbook.allowed_status.id is 'The permission.';
comment on column rollbook.allowed_status.course_id is 'The course.';
comment on column rollbook.allowed_status.email is 'The address.';
comment on column rollbook.allowed_status.auto_enroll is 'Whether activation enrolls.';
comment on column rollbook.allowed_status.created is 'When it was allowed.';
comment on column rollbook.allowed_status.user_exists is 'Whether an account has the address.';
comment on column rollbook.allowed_status.enrolled is 'Whether that account is enrolled there.';
