-- test_centre: exams, and the files exchanged with the test centre.
-- Part of revision 0002. Locks: new tables only.

create table rollbook.exam (
    course_id text not null constraint exam_course_id_check check (course_id <> ''),
    exam_series_code text not null constraint exam_exam_series_code_check check (
        exam_series_code <> '' and length(exam_series_code) <= 15
        and exam_series_code !~ '[^\u0020-\u007e\u00a0-\u00ff]'
    ),
    name text not null,
    display_name text not null,
    first_appointment timestamptz not null,
    last_appointment timestamptz not null,
    registration_start timestamptz not null,
    registration_end timestamptz not null,
    primary key (course_id, exam_series_code),
    constraint exam_appointments_check check (first_appointment <= last_appointment),
    constraint exam_registration_check check (registration_start <= registration_end),
    constraint exam_registration_end_check check (registration_end <= last_appointment)
);
comment on table rollbook.exam is 'Exams of courses that students take at a test centre.';
comment on column rollbook.exam.course_id is 'The course.';
comment on column rollbook.exam.exam_series_code is 'The test centre''s code for the exam.';
comment on column rollbook.exam.name is 'The name in the course''s policy.';
comment on column rollbook.exam.display_name is 'The name that students read.';
comment on column rollbook.exam.first_appointment is 'Start of the appointments.';
comment on column rollbook.exam.last_appointment is 'End of the appointments.';
comment on column rollbook.exam.registration_start is 'Start of the registration window.';
comment on column rollbook.exam.registration_end is 'End of the registration window.';

create table rollbook.exchange_file (
    id bigint generated always as identity primary key,
    direction text not null constraint exchange_file_direction_word check (direction in ('out', 'in')),
    kind text not null constraint exchange_file_kind_word check (kind in ('cdd', 'ead', 'vcdc', 'eac')),
    name text not null,
    archive text,
    at timestamptz not null default clock_timestamp(),
    rows integer not null default 0,
    set_aside integer not null default 0,
    sha256 text,
    role text not null default session_user,
    os_user text not null,
    actor text not null generated always as (role || '/' || os_user) stored,
    on_behalf_of text constraint exchange_file_on_behalf_of_width check (char_length(on_behalf_of) <= 200)
);
create unique index on rollbook.exchange_file (name) where direction = 'out';
comment on table rollbook.exchange_file is 'Every file sent to the test centre or received from it.';
comment on column rollbook.exchange_file.id is 'The number of the file, its batch.';
comment on column rollbook.exchange_file.direction is 'out: to the test centre; in: from it.';
comment on column rollbook.exchange_file.kind is
    'cdd: candidates, ead: authorizations; vcdc and eac: the answers to them.';
comment on column rollbook.exchange_file.name is 'File name without directory; unique among files sent.';
comment on column rollbook.exchange_file.archive is 'The archive that contained it; null = the file was sent.';
comment on column rollbook.exchange_file.at is
    'For a file sent, the uploaded_at of its records; for an answer, the time it was read.';
comment on column rollbook.exchange_file.rows is 'Number of rows, without the header.';
comment on column rollbook.exchange_file.set_aside is 'Records that were due but could not be written.';
comment on column rollbook.exchange_file.sha256 is 'SHA-256 of the content.';
comment on column rollbook.exchange_file.role is 'The database role that was logged in. The database writes it.';
comment on column rollbook.exchange_file.os_user is 'The operating system''s user, as the program reported it.';
comment on column rollbook.exchange_file.actor is 'Role and operating system''s user: role/os_user.';
comment on column rollbook.exchange_file.on_behalf_of is
    'The person that ROLLBOOK_ACTOR named; null = none. Not verified.';

create table rollbook.exchange_row (
    file_id bigint not null,
    line integer not null,
    key text not null,
    record_id bigint,
    outcome text not null,
    status text,
    message text,
    answered_at timestamptz,
    primary key (file_id, line)
);
comment on table rollbook.exchange_row is
    'Every row of every exchange file. No foreign keys: it is history, written 100,000 rows at a time.';
comment on column rollbook.exchange_row.file_id is 'The file in rollbook.exchange_file.';
comment on column rollbook.exchange_row.line is
    'In an answer, the line; in a file sent, the position, including records set aside.';
comment on column rollbook.exchange_row.key is 'client_candidate_id or client_authorization_id.';
comment on column rollbook.exchange_row.record_id is
    'The id in student_testcenteruser or student_testcenterregistration; null = the record is unknown.';
comment on column rollbook.exchange_row.outcome is
    'Files sent: sent, then accepted or rejected; or set aside. Answers: accepted, rejected, unchanged (already '
    'known), older, outdated (a newer edit waits), unknown, never sent, refused.';
comment on column rollbook.exchange_row.status is 'Pearson''s status word.';
comment on column rollbook.exchange_row.message is 'Pearson''s message, or the reason for setting it aside.';
comment on column rollbook.exchange_row.answered_at is 'Time at which Pearson processed it, as Pearson reports.';
