-- course_status: one row a course: how many are enrolled, how many copies there are, what the last verify said.
-- state: `paused` its copies are not written, by pause_course or by a fault · `broken` a copy's table or column is
-- gone, or not rollbook_owner's · `drifted` the last verify found differences, or there are fewer or more enrollment
-- copies than enrollments, or fewer users than enrolled · `ok` otherwise. Counting sees no changed value: verified_at
-- says how old the better answer is. Of a course on a server the portal alone knows less: `broken` its slot is gone or
-- lost · `paused` by `rollbook replication pause` · `unknown` nobody reads the slot · `moving` a move to another server
-- is not finished; `rollbook status` asks the server itself. Behind a relay the slot is the relay's.
-- Counts:   rows are counted where PostgreSQL's statistics of live rows contradict what the portal has: enrollments,
--           and users whose routes lead to the course. Elsewhere these are the numbers. So thousands of courses cost
--           little, and a copy that somebody removed bypassing the guard is seen when the statistics have it, some
--           seconds later. Lost statistics (a crash, a standby) contradict. copied_profiles is counted where it is
--           selected.
-- Security: the rights of its owner, rollbook_owner.
create or replace view rollbook.course_status as
select
    c.course_id,
    c.schema_name,
    case
        when c.paused_at is not null then 'paused'
        when held.sound <> shape.tables then 'broken'
        when v.verdict = 'differs' then 'drifted'
        when case
                when held.live_memberships = coalesce(members.enrolled, 0)
                    and held.live_persons >= coalesce(members.enrolled, 0) then false
                else rollbook.count_rows(c.schema_name, shape.membership) <> coalesce(members.enrolled, 0)
                    or rollbook.count_rows(c.schema_name, shape.person)
                    < (select count(distinct m.user_id) from rollbook.memberships_of(c.course_id) as m)
            end
            then 'drifted'
        when c.state <> 'ok' or c.server is null then c.state
        when slot.slot_name is null or slot.wal_status = 'lost' then 'broken'
        when server.paused_at is not null or relay.paused_at is not null then 'paused'
        when not slot.active then 'unknown'
        when num_nonnulls(c.moving_to, c.leaving) > 0 then 'moving'
        else c.state
    end as state,
    c.on_leave,
    coalesce(members.enrolled, 0) as enrolled,
    case
        when held.live_persons = coalesce(routed.users, 0) then held.live_persons
        else rollbook.count_rows(c.schema_name, shape.person)
    end as copied_users,
    rollbook.count_rows(c.schema_name, shape.profile) as copied_profiles,
    case
        when held.live_memberships = coalesce(members.enrolled, 0) then held.live_memberships
        else rollbook.count_rows(c.schema_name, shape.membership)
    end as copied_enrollments,
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
    c.without,
    c.closed_at,
    c.closed_by
from rollbook.course as c
cross join (
    select
        count(*) as tables,
        max(t.table_name) filter (where t.role = 'person') as person,
        max(t.table_name) filter (where t.role = 'profile') as profile,
        max(t.table_name) filter (where t.role = 'membership') as membership
    from rollbook.copied_tables() as t
) as shape
cross join lateral (
    select
        count(*) filter (where copy.is_sound) as sound,
        max(copy.live) filter (where copy.is_sound and copy.role = 'person') as live_persons,
        max(copy.live) filter (where copy.is_sound and copy.role = 'membership') as live_memberships
    from (
        select k.role, k.is_sound, pg_stat_get_live_tuples(k.relation) as live
        from rollbook.copies_of(c.schema_name, c.without) as k
    ) as copy
) as held
left join (
    select m.course_id, count(*) as enrolled from rollbook.memberships() as m group by m.course_id
) as members on members.course_id = c.course_id
left join (
    -- As in routed_courses.
    select s.schema_name, count(*) as users
    from (select unnest(r.schemas) as schema_name from rollbook.route as r offset 0  -- noqa: AM09
    ) as s
    group by s.schema_name
) as routed on routed.schema_name = c.schema_name::text
-- A verdict of the future, from a clock that was ahead, does not count.
left join rollbook.verification as v on v.course_id = c.course_id and v.verified_at <= statement_timestamp()
left join rollbook.server as server on server.name = c.server
left join rollbook.server as relay on relay.name = server.through
left join pg_replication_slots as slot on slot.slot_name = 'rollbook_' || coalesce(server.through, c.server);
comment on view rollbook.course_status is 'One row a course: enrolled, copied, state, and what the last verify said.';
comment on column rollbook.course_status.course_id is 'The course ID, as in the enrollments.';
comment on column rollbook.course_status.schema_name is 'The schema of the copies.';
comment on column rollbook.course_status.state is 'What the portal knows, in one word.';
comment on column rollbook.course_status.on_leave is 'keep or remove.';
comment on column rollbook.course_status.enrolled is 'Enrollments in the portal.';
comment on column rollbook.course_status.copied_users is
    'User copies in the course: by routes, counted where statistics contradict.';
comment on column rollbook.course_status.copied_profiles is 'Profile copies in the course, counted.';
comment on column rollbook.course_status.copied_enrollments is
    'Enrollment copies in the course: by enrollments, counted where statistics contradict.';
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
comment on column rollbook.course_status.closed_at is 'Since when it takes no new enrollments; null: it is open.';
comment on column rollbook.course_status.closed_by is 'The role that closed it.';
