-- register_for_exam: register a student for an exam of a course, optionally with a request for an accommodation. The
-- dates are the exam's; students cannot set accommodation codes. A second call changes nothing: a request is made once.
-- Called:   by a web application for the student who is signed in. Returns client_authorization_id.
-- Raises:   RB017 if the user is not a candidate or not enrolled; if the exam does not exist, is not open, or is not
--           named while several are open; if the request is too long.
-- Security: DEFINER, owned by rollbook_writer: the caller needs no right on authorizations, and so cannot grant
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
        raise exception 'the user is not a candidate yet'
            using errcode = 'RB017', hint = 'Create the candidate record first: names, address and telephone number.';
    end if;
    if not exists (
        select from portal.student_courseenrollment as e
        where e.user_id = registering_user_id and e.course_id = wanted_course_id
    ) then
        raise exception 'the user is not enrolled in %', wanted_course_id
            using errcode = 'RB017', hint = 'Enroll the user first.';
    end if;
    if length(request) > 1024 then
        raise exception 'the request has % characters; the limit is 1024', length(request)
            using errcode = '23R17', constraint = 'RB017', hint = 'Shorten the request.';
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
                    'Registration is open from %s to %s (UTC).', e.registration_start at time zone 'UTC',
                    e.registration_end at time zone 'UTC'
                )
                from rollbook.exam as e where e.course_id = wanted_course_id and e.exam_series_code = wanted_exam
            ), wanted_course_id || ' has no such exam, or none is open.'),
                hint = 'See rollbook.exam_status for the exams and their registration windows.';
    end if;
    if cardinality(exams) > 1 then
        raise exception 'several exams are open for registration'
            using errcode = 'RB017', detail = array_to_string(exams, ', '),
                hint = 'Pass the code of one of them as the third argument.';
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
    'Register a student for an exam of a course and return the client_authorization_id. The exam may be omitted if '
    'only one is open; request asks for an accommodation. A second call changes nothing. Raises RB017 if the user is '
    'not a candidate, is not enrolled, no such exam is open, or the request exceeds 1024 characters.';
