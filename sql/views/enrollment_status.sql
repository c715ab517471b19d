-- enrollment_status: the enrollments with their users, and whether the copy of each is in its course.
-- `replicated` reads the course for each returned row, about 20 microseconds: filter and limit first.
-- Security: roles that may read the portal's tables, as it reads them by functions.
create or replace view rollbook.enrollment_status as
select
    e.id,
    e.course_id,
    e.user_id,
    u.username,
    u.email,
    e.created,
    rollbook.is_copied(e.course_id, e.id) as replicated
from rollbook.enrollments() as e
cross join lateral rollbook.account(e.user_id) as u;
comment on view rollbook.enrollment_status is
    'Enrollments with their users, and whether the copy of each is in its course.';
comment on column rollbook.enrollment_status.id is 'The id of the enrollment.';
comment on column rollbook.enrollment_status.course_id is 'The course ID; the course need not exist yet.';
comment on column rollbook.enrollment_status.user_id is 'The id of the user.';
comment on column rollbook.enrollment_status.username is 'The user''s sign-in name.';
comment on column rollbook.enrollment_status.email is 'The user''s e-mail address.';
comment on column rollbook.enrollment_status.created is 'Time of the enrollment; null = unknown.';
comment on column rollbook.enrollment_status.replicated is
    'Whether the copy is in the course; null = the course does not exist. About 20 microseconds a row.';
