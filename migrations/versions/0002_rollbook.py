"""The machinery: schema rollbook with its tables, functions, views, and the triggers on the portal's tables.

Locks: SHARE ROW EXCLUSIVE on portal.auth_user, auth_userprofile and student_courseenrollment until commit, for the
triggers; no table is rewritten or scanned. Writes that an application does meanwhile wait, then are routed.
"""

from rollbook.core.migrating import apply_frozen, run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OWNER = """
do $$
begin
    create role rollbook_owner nologin;
exception when duplicate_object or unique_violation then
    null;  -- roles belong to the cluster: another database has Rollbook too
end $$;
do $$
begin
    if exists (
        select from pg_roles as r
        where r.rolname = 'rollbook_owner'
            and (r.rolsuper or r.rolcanlogin or r.rolcreaterole or r.rolcreatedb or r.rolbypassrls or r.rolreplication)
    ) then
        raise exception 'there is a role rollbook_owner with rights of its own'
            using errcode = 'RB010', hint =
                'alter role rollbook_owner nosuperuser nologin nocreaterole nocreatedb noreplication nobypassrls';
    end if;
    -- From 16 on who makes a role is a member of it, but may not act for it.
    if not pg_has_role(current_user, 'rollbook_owner',
                       case when current_setting('server_version_num')::integer < 160000 then 'member' else 'set' end)
    then
        execute format('grant rollbook_owner to %I', current_user);
    end if;
exception when insufficient_privilege then
    raise exception 'role % may not act for rollbook_owner, which another database has made', current_user
        using errcode = 'RB010', hint = format('Have a superuser run: grant rollbook_owner to %I', current_user);
end $$;
create schema rollbook authorization rollbook_owner;
comment on schema rollbook is 'Rollbook: which student is copied to which course, and the machinery that does it.';
"""

COURSE = """
create table rollbook.course (
    course_id text primary key
        constraint course_id_form check (course_id ~ '\\S' and length(course_id) <= 255 and course_id <> 'default'),
    schema_name name not null unique,
    on_leave text not null default 'keep' constraint course_on_leave_word check (on_leave in ('keep', 'remove')),
    state text not null default 'ok' constraint course_state_word check (
        state in ('ok', 'lagging', 'copying', 'paused', 'broken', 'unreachable', 'drifted', 'detached', 'unknown')
    ),
    created_at timestamptz not null default now()
);
comment on table rollbook.course is 'The courses that hold copies. Written by create_course and drop_course.';
comment on column rollbook.course.course_id is 'The id that enrollments bear; any text but "default".';
comment on column rollbook.course.schema_name is 'The schema of the copies, made by create_course.';
comment on column rollbook.course.on_leave is 'When an enrollment ends, user and profile copies: keep or remove.';
comment on column rollbook.course.state is 'What is known without looking at rows; see course_status.';
comment on column rollbook.course.created_at is 'When the course was made.';

create table rollbook.course_latch (
    course_id text primary key,
    written bigint not null default 1
);
comment on table rollbook.course_latch is
    'Where create_course and enrollments in a course that does not exist yet meet: both write the row of the id.';
comment on column rollbook.course_latch.course_id is 'An id that enrollments have borne or a course has had.';
comment on column rollbook.course_latch.written is 'Counts the writes. Only that it is written matters.';
"""

ROUTE = """
create table rollbook.route (
    user_id bigint primary key,
    schemas text[] not null default '{}',
    written bigint not null default 1
) with (fillfactor = 50);  -- room for the next version beside each row: no index is touched
comment on table rollbook.route is
    'For each user the schemas that hold their copies. Whoever changes what a copy must show writes this row first.';
comment on column rollbook.route.user_id is 'The portal user. No foreign key: a delete needs the route after the user.';
comment on column rollbook.route.schemas is 'Schemas of courses; changes of the user and the profile go there.';
comment on column rollbook.route.written is 'Counts the writes. Writing it lets racing transactions see one another.';
"""

VERIFICATION = """
create table rollbook.verification (
    course_id text primary key references rollbook.course on delete cascade,
    verified_at timestamptz not null default now(),
    verdict text not null
        constraint verification_verdict_word check (verdict in ('match', 'differs', 'not_comparable', 'unreachable')),
    differing_rows bigint
);
comment on table rollbook.verification is 'What the last verify said of each course.';
comment on column rollbook.verification.course_id is 'The course.';
comment on column rollbook.verification.verified_at is 'The time of the snapshot that was compared.';
comment on column rollbook.verification.verdict is 'match, differs, not_comparable or unreachable.';
comment on column rollbook.verification.differing_rows is 'Missing, changed and extra rows together; null: not known.';
"""

TYPES = """
create type rollbook.finding as (course_id text, table_name text, finding text, row_id bigint, columns text[]);
comment on type rollbook.finding is 'One difference, as rollbook.verify returns it.';
create type rollbook.repaired as (
    course_id text, table_name text, inserted bigint, updated bigint, deleted bigint
);
comment on type rollbook.repaired is 'Rows written in one table, as rollbook.repair returns them.';
create type rollbook.comparison as (
    course_id text, table_name text, portal_rows bigint, course_rows bigint,
    missing bigint, changed bigint, extra bigint, verdict text
);
comment on type rollbook.comparison is 'One table of one course in numbers, as rollbook.compare returns it.';
comment on column rollbook.finding.course_id is 'The course.';
comment on column rollbook.finding.table_name is 'The copy''s table; route: the user''s entry in rollbook.route.';
comment on column rollbook.finding.finding is 'missing, changed or extra.';
comment on column rollbook.finding.row_id is 'The row''s own id.';
comment on column rollbook.finding.columns is 'For a changed row exactly the columns that differ.';
comment on column rollbook.repaired.course_id is 'The course.';
comment on column rollbook.repaired.table_name is 'The copy''s table.';
comment on column rollbook.repaired.inserted is 'Rows that were missing.';
comment on column rollbook.repaired.updated is 'Rows that were changed.';
comment on column rollbook.repaired.deleted is 'Rows that were extra.';
comment on column rollbook.comparison.course_id is 'The course.';
comment on column rollbook.comparison.table_name is 'The copy''s table; route: entries in rollbook.route.';
comment on column rollbook.comparison.portal_rows is 'Rows that the course should hold.';
comment on column rollbook.comparison.course_rows is 'Rows that it holds.';
comment on column rollbook.comparison.missing is 'Due, not there.';
comment on column rollbook.comparison.changed is 'There, some columns differ.';
comment on column rollbook.comparison.extra is 'There, not due.';
comment on column rollbook.comparison.verdict is 'match, differs or not_comparable.';
"""

OWNED = """
alter table rollbook.course owner to rollbook_owner;
alter table rollbook.course_latch owner to rollbook_owner;
alter table rollbook.route owner to rollbook_owner;
alter table rollbook.verification owner to rollbook_owner;
alter type rollbook.finding owner to rollbook_owner;
alter type rollbook.repaired owner to rollbook_owner;
alter type rollbook.comparison owner to rollbook_owner;
"""

# A profile brings its user a route; those that were there before get theirs here.
SEED = """
insert into rollbook.route (user_id) select id from portal.auth_user on conflict do nothing;
"""

# Course schemas first, with what the courses added there: `rollbook schema downgrade` names that before it asks.
AWAY = """
do $$
declare
    course record;
begin
    for course in select schema_name from rollbook.course loop
        execute format('drop schema if exists %I cascade', course.schema_name);
    end loop;
end $$;
drop trigger rollbook_route_user_update on portal.auth_user;
drop trigger rollbook_route_user_delete on portal.auth_user;
drop trigger rollbook_hold_courses on portal.auth_user;
drop trigger rollbook_refuse_user_id_change on portal.auth_user;
drop trigger rollbook_refuse_user_id_change_late on portal.auth_user;
drop trigger rollbook_route_truncate on portal.auth_user;
drop trigger rollbook_route_profile_insert on portal.auth_userprofile;
drop trigger rollbook_route_profile_update on portal.auth_userprofile;
drop trigger rollbook_route_profile_delete on portal.auth_userprofile;
drop trigger rollbook_route_truncate on portal.auth_userprofile;
drop trigger rollbook_route_enrollment_insert on portal.student_courseenrollment;
drop trigger rollbook_route_enrollment_update on portal.student_courseenrollment;
drop trigger rollbook_route_enrollment_delete on portal.student_courseenrollment;
drop trigger rollbook_route_truncate on portal.student_courseenrollment;
drop policy rollbook_reads on portal.auth_user;
drop policy rollbook_reads on portal.auth_userprofile;
drop policy rollbook_reads on portal.student_courseenrollment;
drop schema rollbook cascade;
revoke all on portal.auth_user, portal.auth_userprofile, portal.student_courseenrollment from rollbook_owner;
revoke all on schema portal from rollbook_owner;
do $$
begin
    drop role rollbook_owner;
exception when dependent_objects_still_exist or insufficient_privilege then
    raise notice 'role rollbook_owner stays: another database uses it';
end $$;
"""


def upgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    for block in (OWNER, COURSE, ROUTE, VERIFICATION, TYPES, OWNED):
        run_sql(block)
    apply_frozen("0002")
    run_sql(SEED)


def downgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    run_sql(AWAY)
