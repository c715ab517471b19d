-- course_status: one row a course: how many are enrolled, how many copies there are, what the last verify said.
-- state: `paused` its copies are not written, by pause_course or by a fault · `broken` a copy's table is gone, or not
-- rollbook_owner's · `drifted` the last verify found differences, or there are fewer or more
-- enrollment copies than enrollments, or fewer users than enrolled · `ok` otherwise. Counting sees no changed value:
-- verified_at says how old the better answer is. Of a course on a server the portal alone knows less: `broken` its slot
-- is gone or lost · `paused` by `rollbook replication pause` · `unknown` nobody reads the slot · `moving` a move to
-- another server is not finished; `rollbook status` asks the server itself.
-- Security: the rights of its owner, rollbook_owner.
create or replace view rollbook.course_status as
select
    c.course_id,
    c.schema_name,
    case
        when c.paused_at is not null then 'paused'
        when counted.copied_users is null or counted.copied_profiles is null or counted.copied_enrollments is null
            then 'broken'
        when v.verdict = 'differs'
            or counted.copied_enrollments <> counted.enrolled or counted.copied_users < counted.enrolled
            then 'drifted'
        when c.state <> 'ok' or c.server is null then c.state
        when slot.slot_name is null or slot.wal_status = 'lost' then 'broken'
        when server.paused_at is not null then 'paused'
        when not slot.active then 'unknown'
        when num_nonnulls(c.moving_to, c.leaving) > 0 then 'moving'
        else c.state
    end as state,
    c.on_leave,
    counted.enrolled,
    counted.copied_users,
    counted.copied_profiles,
    counted.copied_enrollments,
    c.created_at,
    v.verified_at,
    v.verdict,
    v.differing_rows,
    c.server,
    c.on_fault,
    c.paused_at,
    c.paused_by,
    c.pause_reason,
    c.moving_to,
    c.leaving,
    c.without
from rollbook.course as c
cross join lateral (
    select
        (select count(*) from rollbook.enrollments() as e where e.course_id = c.course_id) as enrolled,
        rollbook.count_rows(c.schema_name, 'auth_user') as copied_users,
        rollbook.count_rows(c.schema_name, 'auth_userprofile') as copied_profiles,
        rollbook.count_rows(c.schema_name, 'student_courseenrollment') as copied_enrollments
) as counted
-- A verdict of the future, from a clock that was ahead, does not count.
left join rollbook.verification as v on v.course_id = c.course_id and v.verified_at <= statement_timestamp()
left join rollbook.server as server on server.name = c.server
left join pg_replication_slots as slot on slot.slot_name = 'rollbook_' || c.server;
comment on view rollbook.course_status is 'One row a course: enrolled, copied, state, and what the last verify said.';
comment on column rollbook.course_status.course_id is 'The course ID, as in the enrollments.';
comment on column rollbook.course_status.schema_name is 'The schema of the copies.';
comment on column rollbook.course_status.state is 'What the portal knows, in one word.';
comment on column rollbook.course_status.on_leave is 'keep or remove.';
comment on column rollbook.course_status.enrolled is 'Enrollments in the portal.';
comment on column rollbook.course_status.copied_users is 'User copies in the course.';
comment on column rollbook.course_status.copied_profiles is 'Profile copies in the course.';
comment on column rollbook.course_status.copied_enrollments is 'Enrollment copies in the course.';
comment on column rollbook.course_status.created_at is 'When the course was made.';
comment on column rollbook.course_status.verified_at is
    'When verify last compared the course; null: never, or repaired since.';
comment on column rollbook.course_status.verdict is 'What that verify said: match, differs or not_comparable.';
comment on column rollbook.course_status.differing_rows is 'How many rows differed then.';
comment on column rollbook.course_status.server is 'The course server that holds it too; null: none.';
comment on column rollbook.course_status.on_fault is
    'What happens when a copy cannot be written: refuse the portal''s statement, or pause the course.';
comment on column rollbook.course_status.paused_at is 'Since when its copies are not written; null = not paused.';
comment on column rollbook.course_status.paused_by is 'The role that paused it.';
comment on column rollbook.course_status.pause_reason is 'The reason given, or the fault.';
comment on column rollbook.course_status.moving_to is 'The course server to which it moves; null: it does not move.';
comment on column rollbook.course_status.leaving is
    'The course server from which it was moved, and which may still have its copies; null: none.';
comment on column rollbook.course_status.without is 'The columns that do not travel to it.';
