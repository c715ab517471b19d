-- What the examples of the help name besides ada and bob: a role, groups, keys, requests, an exam, a
-- candidate. Runs once: the role shows that it has run.
create role demo_team;

insert into portal.auth_registration (user_id, created_at, expires_at, activated_at)
select
    u.id, case when u.username = 'bob' then now() else u.date_joined end,
    case when u.username = 'bob' then now() else u.date_joined end + interval '14 days',
    case when u.is_active then u.date_joined + interval '1 hour' end
from portal.auth_user as u;

insert into portal.student_usertestgroup (name, description) values
('testers', 'Sees new pages first'), ('email_helpers', 'Answers e-mail of other students');
insert into portal.student_usertestgroup_users (usertestgroup_id, user_id)
select g.id, u.id
from portal.student_usertestgroup as g cross join portal.auth_user as u
where g.name = 'testers' and u.username in ('ada', 'bob') or g.name = 'email_helpers' and u.username = 'ada';

select rollbook.request_name_change(u.id, n.name, n.rationale)
from (values ('bob', 'Robert Walnut', 'As in my passport'), ('lisandro76', 'Lisandro Delgado Ruiz', 'Marriage'))
    as n (username, name, rationale)
inner join portal.auth_user as u on u.username = n.username
order by n.username;
select rollbook.request_email_change(u.id, 'ada@example.net') from portal.auth_user as u where u.username = 'ada';

insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll)
values ('new@example.org', 'edX/DemoX/2012_Fall', true);

insert into rollbook.exam (
    course_id, exam_series_code, name, display_name, first_appointment, last_appointment, registration_start,
    registration_end
)
values (
    'edX/DemoX/2012_Fall', 'Final', 'final', 'Final exam', now() + interval '30 days', now() + interval '60 days',
    now() - interval '1 day', now() + interval '20 days'
);

-- Ada has sat the midterm exam: the test centre has her record and her authorization.
insert into portal.student_testcenteruser (
    user_id, first_name, last_name, address_1, city, country, phone, phone_country_code, uploaded_at, processed_at,
    confirmed_at, upload_status, candidate_id
)
select
    u.id, u.first_name, u.last_name, '12 St James''s Square', 'London', 'GBR', '20 7946 0000', '44', now(), now(),
    now(), 'Accepted', 7000000
from portal.auth_user as u where u.username = 'ada';
insert into portal.student_testcenterregistration (
    testcenter_user_id, course_id, exam_series_code, client_authorization_id, eligibility_appointment_date_first,
    eligibility_appointment_date_last, accommodation_request, uploaded_at, processed_at, confirmed_at, accepted_at,
    upload_status, authorization_id
)
select
    c.id, 'edX/DemoX/2012_Fall', 'Midterm', 'edXexam000000000001', '2013-01-25', '2013-01-26',
    'Half an hour more, please', now(), now(), now(), now(), 'Accepted', 8000000
from portal.student_testcenteruser as c;
