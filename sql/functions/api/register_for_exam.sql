-- register_for_exam: a student registers for an exam of a course, and may ask for an accommodation. The dates are the
-- exam's; codes are none of a student's business. Who is registered stays so, as it is: a request is made once.
-- Called:   by a web application for the student who is signed in. Returns client_authorization_id.
-- Raises:   RB017 for who is no candidate or not enrolled, and for an exam that is not there, not open, or not the only
--           one and not named; for a request that is too long.
-- Security: DEFINER, owned by rollbook_owner: who may execute it needs no right on authorizations, and so cannot grant
--           accommodations.
create or replace function rollbook.register_for_exam(
    registering_user_id bigint, wanted_course_id text, wanted_exam text default null, request text default ''
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    candidate bigint;
    exams text[];
    made text;
begin
    select c.id into candidate from portal.student_testcenteruser as c where c.user_id = registering_user_id;
    if candidate is null then
        raise exception 'the user is no candidate yet'
            using errcode = 'RB017', hint = 'Names, address and telephone number come first.';
    end if;
    if not exists (
        select from portal.student_courseenrollment as e
        where e.user_id = registering_user_id and e.course_id = wanted_course_id
    ) then
        raise exception 'the user is not enrolled in %', wanted_course_id
            using errcode = 'RB017', hint = 'Enroll first.';
    end if;
    if length(request) > 1024 then
        raise exception 'the request has % characters, at most 1024 fit', length(request)
            using errcode = 'RB017', hint = 'Shorten it.';
    end if;
    exams := array(
        select e.exam_series_code from rollbook.exam_status as e
        where e.course_id = wanted_course_id and e.is_open
            and (wanted_exam is null or e.exam_series_code = wanted_exam)
        order by e.exam_series_code
    );
    if cardinality(exams) = 0 then
        raise exception 'no registration is open for %', coalesce('exam ' || wanted_exam, 'an exam')
            using errcode = 'RB017', detail = coalesce((
                select format(
                    'It is from %s to %s (UTC).', e.registration_start at time zone 'UTC',
                    e.registration_end at time zone 'UTC'
                )
                from rollbook.exam as e where e.course_id = wanted_course_id and e.exam_series_code = wanted_exam
            ), wanted_course_id || ' has no such exam, or none that is open.'), hint = 'rollbook.exam_status shows the exams and when they are open.';
    end if;
    if cardinality(exams) > 1 then
        raise exception 'several exams are open for registration'
            using errcode = 'RB017', detail = array_to_string(exams, ', '), hint = 'Name one of them.';
    end if;
    insert into portal.student_testcenterregistration as r (
        testcenter_user_id, course_id, exam_series_code, eligibility_appointment_date_first,
        eligibility_appointment_date_last, accommodation_request
    )
    select
        candidate, e.course_id, e.exam_series_code, (e.first_appointment at time zone 'UTC')::date,
        (e.last_appointment at time zone 'UTC')::date, coalesce(request, '')
    from rollbook.exam as e where e.course_id = wanted_course_id and e.exam_series_code = exams[1]
    on conflict (testcenter_user_id, course_id, exam_series_code) where cancelled_at is null do nothing
    returning r.client_authorization_id into made;
    return coalesce(made, (
        select r.client_authorization_id from portal.student_testcenterregistration as r
        where r.testcenter_user_id = candidate and r.course_id = wanted_course_id and r.exam_series_code = exams[1]
            and r.cancelled_at is null
    ));
end $$;
comment on function rollbook.register_for_exam(bigint, text, text, text) is
    'A student registers for an exam of a course, and may ask for an accommodation.';
