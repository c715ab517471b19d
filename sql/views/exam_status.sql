-- exam_status: the exams of courses: whether they are current and open for registration, and how many authorizations.
-- Security: security_invoker: whoever may read rollbook.exam and the portal's authorizations.
create or replace view rollbook.exam_status with (security_invoker = true) as
select
    e.course_id, e.exam_series_code, e.name, e.display_name, e.first_appointment, e.last_appointment,
    e.registration_start, e.registration_end,
    now() > e.registration_start and now() <= e.last_appointment as is_current,
    now() between e.registration_start and e.registration_end as is_open,
    (
        select count(*)
        from portal.student_testcenterregistration as r
        where r.course_id = e.course_id and r.exam_series_code = e.exam_series_code and r.cancelled_at is null
    ) as authorizations
from rollbook.exam as e;
comment on view rollbook.exam_status is
    'The exams of courses: whether they are current and open, and how many authorizations.';
comment on column rollbook.exam_status.course_id is 'The course.';
comment on column rollbook.exam_status.exam_series_code is 'The test centre''s code of the exam.';
comment on column rollbook.exam_status.name is 'Its name in the course policy.';
comment on column rollbook.exam_status.display_name is 'The name that students see.';
comment on column rollbook.exam_status.first_appointment is 'First time at which it can be sat.';
comment on column rollbook.exam_status.last_appointment is 'Last time at which it can be sat.';
comment on column rollbook.exam_status.registration_start is 'Start of registration.';
comment on column rollbook.exam_status.registration_end is 'End of registration.';
comment on column rollbook.exam_status.is_current is 'Whether registration has begun and it can still be sat.';
comment on column rollbook.exam_status.is_open is 'Whether students may register now.';
comment on column rollbook.exam_status.authorizations is 'Number of authorizations that are not cancelled.';
