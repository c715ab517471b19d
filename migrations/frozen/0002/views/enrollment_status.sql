-- enrollment_status: the enrollments with their users, and whether each stands in its course.
-- `replicated` looks into the course for each row that is returned, some 20 microseconds each: filter and limit first.
-- Security: the rights of its owner, rollbook_owner.
create or replace view rollbook.enrollment_status as
select
    e.id,
    e.course_id,
    u.id as user_id,
    u.username,
    u.email,
    e.created,
    rollbook.is_copied(e.course_id, e.id) as replicated
from portal.student_courseenrollment as e
inner join portal.auth_user as u on u.id = e.user_id;
comment on view rollbook.enrollment_status is 'Enrollments with their users, and whether each stands in its course.';
comment on column rollbook.enrollment_status.id is 'The enrollment.';
comment on column rollbook.enrollment_status.course_id is 'The course; it need not exist yet.';
comment on column rollbook.enrollment_status.user_id is 'The user.';
comment on column rollbook.enrollment_status.username is 'The user''s name.';
comment on column rollbook.enrollment_status.email is 'The user''s address.';
comment on column rollbook.enrollment_status.created is 'When the user enrolled.';
comment on column rollbook.enrollment_status.replicated is 'Whether the copy is there; null: no such course.';
