-- routing: which course holds copies of which user, the results of verify, and the types that functions return.
-- Part of revision 0002. Locks: new tables only.

create table rollbook.course (
    course_id text primary key
        constraint course_id_form check (course_id ~ '\S' and length(course_id) <= 255 and course_id <> 'default'),
    schema_name name not null unique,
    on_leave text not null default 'keep' constraint course_on_leave_word check (on_leave in ('keep', 'remove')),
    state text not null default 'ok' constraint course_state_word check (
        state in ('ok', 'lagging', 'copying', 'paused', 'broken', 'unreachable', 'drifted', 'detached', 'moving',
            'unknown')
    ),
    created_at timestamptz not null default now(),
    server text references rollbook.server,
    moving_to text references rollbook.server,
    leaving text references rollbook.server,
    on_fault text not null default 'refuse' constraint course_on_fault_word check (on_fault in ('refuse', 'pause')),
    paused_at timestamptz,
    paused_by text,
    pause_reason text,
    closed_at timestamptz,
    closed_by text,
    former_ids text[] not null default '{}',
    resumptions bigint not null default 0,
    without text[] not null default '{}',
    due text[] not null default '{}',
    -- A move ends before the next begins, and never leaves a course on no server.
    constraint course_move_form check (
        num_nonnulls(moving_to, leaving) = 0
        or (num_nonnulls(moving_to, leaving) = 1 and server is not null and server <> coalesce(moving_to, leaving))
    ),
    -- A part of a key, so that resume_course conflicts with the KEY SHARE of whoever enrolls.
    unique (course_id, resumptions)
);
create index on rollbook.course (server);
create index on rollbook.course (moving_to) where moving_to is not null;
create index on rollbook.course (leaving) where leaving is not null;
-- Each routed statement asks which of its courses are paused or leave columns out: often none, so the index is empty.
create index course_apart on rollbook.course (schema_name) where paused_at is not null or without <> '{}';
comment on table rollbook.course is 'The courses that hold copies. Written by create_course and drop_course.';
comment on column rollbook.course.course_id is 'The course ID of the enrollments; any text but "default".';
comment on column rollbook.course.schema_name is 'The schema of the copies, created by create_course.';
comment on column rollbook.course.on_leave is
    'What happens to user and profile copies when an enrollment ends: keep or remove.';
comment on column rollbook.course.state is 'What is known without reading rows; see course_status.';
comment on column rollbook.course.created_at is 'Time at which the course was created.';
comment on column rollbook.course.server is 'The course server that also holds the course; null = none.';
comment on column rollbook.course.moving_to is
    'The course server to which `rollbook course move` moves it: that one is fed too; null = it does not move.';
comment on column rollbook.course.leaving is
    'The course server from which it was moved, while that one may still have its copies; null = none.';
comment on column rollbook.course.on_fault is
    'What happens when a copy cannot be written: refuse the portal''s statement, or pause the course.';
comment on column rollbook.course.paused_at is 'Since when its copies are not written; null = not paused.';
comment on column rollbook.course.paused_by is 'The role that paused it.';
comment on column rollbook.course.pause_reason is 'Why it is paused: the reason given, or the fault.';
comment on column rollbook.course.closed_at is 'Since when it takes no new enrollments; null = it is open.';
comment on column rollbook.course.closed_by is 'The role that closed it.';
comment on column rollbook.course.former_ids is
    'The IDs that it had before: new enrollments with them are refused. Written by rename_course.';
comment on column rollbook.course.resumptions is
    'How often it was resumed, closed, opened or renamed, or its columns or on_leave changed; the write makes racing '
    'enrollments notice.';
comment on column rollbook.course.without is
    'The columns that do not travel to it: in its copies they are its own; TABLE.COLUMN where two tables have one of '
    'that name. Written by create_course, update_course.';
comment on column rollbook.course.due is
    'What a change of the shape still has to bring to it: TABLE.COLUMN, which it leaves out until then, or condition: '
    'its rows are to be compared. Written by `rollbook shape`.';

create table rollbook.shape (
    only_one boolean primary key default true constraint shape_only_one check (only_one),
    without text[] not null default '{}',
    leaving text[] not null default '{}',
    renamed jsonb not null default '{}',
    widening jsonb not null default '{}'
);
insert into rollbook.shape (without) values (array[:left_out]::text[]);
comment on table rollbook.shape is 'What new courses get. One row.';
comment on column rollbook.shape.only_one is 'Always true.';
comment on column rollbook.shape.without is
    'The columns that do not travel to new courses. Written by `rollbook shape without`.';
comment on column rollbook.shape.leaving is
    'The columns, as TABLE.COLUMN, that `rollbook shape column drop` takes out of one course after the other.';
comment on column rollbook.shape.renamed is
    'By TABLE.COLUMN the name that copies still have which `rollbook shape column rename` has not reached yet.';
comment on column rollbook.shape.widening is
    'By TABLE.COLUMN the type that `rollbook shape column widen` has not given to all copies yet.';

create table rollbook.shape_table (
    role text primary key constraint shape_table_role_word check (role in ('person', 'profile', 'membership')),
    relation text not null,
    table_name text not null unique,
    key_column text not null,
    user_column text not null,
    course_column text,
    condition text,
    course_type text not null,
    columns text[] not null,
    constraint shape_table_course_form check ((role = 'membership') = (course_column is not null)),
    constraint shape_table_condition_form check (role = 'membership' or condition is null)
);
insert into rollbook.shape_table (
    role, relation, table_name, key_column, user_column, course_column, condition, course_type, columns
) values
:shape_rows;
comment on table rollbook.shape_table is
    'The declaration of the shape: which tables are copied. Functions and triggers are rendered from it: '
    '`rollbook shape` changes both.';
comment on column rollbook.shape_table.role is 'person, profile or membership.';
comment on column rollbook.shape_table.relation is 'The portal''s table, with its schema, quoted for SQL.';
comment on column rollbook.shape_table.table_name is 'The name of its copies.';
comment on column rollbook.shape_table.key_column is 'The primary key, an integer.';
comment on column rollbook.shape_table.user_column is 'The column with the person''s key.';
comment on column rollbook.shape_table.course_column is 'Of the membership: the column with the course''s ID.';
comment on column rollbook.shape_table.condition is
    'Of the membership: only rows for which it is true count; null = all rows.';
comment on column rollbook.shape_table.course_type is
    'The type of the course column as which IDs are looked up, so that its index serves.';
comment on column rollbook.shape_table.columns is 'The columns that travel, in the copy''s order.';

create table rollbook.course_set (
    only_one boolean primary key default true constraint course_set_only_one check (only_one)
);
comment on table rollbook.course_set is
    'Holds no row. It is locked as a whole, to create, drop or resume courses or to delete users: see lock_course_set.';
comment on column rollbook.course_set.only_one is 'Always true.';

create table rollbook.course_latch (
    course_id text primary key,
    written bigint not null default 1
);
comment on table rollbook.course_latch is
    'Serializes create_course with enrollments in a course that does not exist yet: both write the row of the ID.';
comment on column rollbook.course_latch.course_id is 'A course ID, of an enrollment or of a course.';
comment on column rollbook.course_latch.written is 'Counts the writes; its value does not matter.';

create table rollbook.route (
    user_id bigint primary key,
    schemas text[] not null default '{}',
    written bigint not null default 1
) with (fillfactor = 50);  -- room for the next version on the same page: HOT updates
comment on table rollbook.route is
    'For each user the schemas that hold their copies. Every change to the content of a copy writes this row first.';
comment on column rollbook.route.user_id is
    'The portal user. No foreign key: a delete needs the route after the user is gone.';
comment on column rollbook.route.schemas is 'Schemas of courses that receive changes of the user and the profile.';
comment on column rollbook.route.written is 'Counts the writes; the write makes racing transactions see one another.';

create table rollbook.verification (
    course_id text primary key references rollbook.course on delete cascade on update cascade,
    verified_at timestamptz not null default now(),
    verdict text not null
        constraint verification_verdict_word check (verdict in ('match', 'differs', 'not_comparable', 'unreachable')),
    differing_rows bigint,
    run_at timestamptz
);
comment on table rollbook.verification is 'The last result of verify for each course.';
comment on column rollbook.verification.course_id is 'The course.';
comment on column rollbook.verification.verified_at is 'Time of the compared snapshot.';
comment on column rollbook.verification.verdict is 'match, differs, not_comparable or unreachable.';
comment on column rollbook.verification.differing_rows is 'Missing, changed and extra rows together; null = unknown.';
comment on column rollbook.verification.run_at is 'Start of the verify run that compared the course.';

create type rollbook.finding as (
    course_id text, table_name text, finding text, row_id bigint, columns text[]  -- noqa: LT01
);
comment on type rollbook.finding is 'One difference, as rollbook.verify returns it.';
create type rollbook.repaired as (
    course_id text, table_name text, inserted bigint, updated bigint, deleted bigint
);
comment on type rollbook.repaired is 'Rows written in one table, as rollbook.repair returns them.';
create type rollbook.copy_step as (
    schema_name text, action text, table_name text, key_column text, keys bigint[]  -- noqa: LT01
);
comment on type rollbook.copy_step is 'One statement on one copied table, as rollbook.write_copies executes it.';
comment on column rollbook.copy_step.schema_name is 'The schema of the course.';
comment on column rollbook.copy_step.action is 'put, update or delete.';
comment on column rollbook.copy_step.table_name is 'The copied table.';
comment on column rollbook.copy_step.key_column is 'The column that the keys are values of.';
comment on column rollbook.copy_step.keys is
    'The rows; null = for delete, all rows that are no longer in the portal.';
create type rollbook.lock_holder as (
    pid integer, role text, application text, gid text, state text, since timestamptz, query_start timestamptz,
    holder text, remedy text
);
comment on type rollbook.lock_holder is 'A session or prepared transaction that holds a lock others wait for.';
comment on column rollbook.lock_holder.pid is 'The session; null = a prepared transaction.';
comment on column rollbook.lock_holder.role is 'Its role.';
comment on column rollbook.lock_holder.application is 'Its application name.';
comment on column rollbook.lock_holder.gid is 'The name of the prepared transaction, if it is one.';
comment on column rollbook.lock_holder.state is 'What it does, such as idle in transaction; null = hidden.';
comment on column rollbook.lock_holder.since is 'Since when its transaction is open; null = hidden.';
comment on column rollbook.lock_holder.query_start is 'When its last statement began; null = hidden.';
comment on column rollbook.lock_holder.holder is 'All of it in one phrase.';
comment on column rollbook.lock_holder.remedy is 'The statement that ends it.';
create type rollbook.comparison as (
    course_id text, table_name text, portal_rows bigint, course_rows bigint,
    missing bigint, changed bigint, extra bigint, verdict text
);
comment on type rollbook.comparison is
    'The differences of one table of one course in numbers, as rollbook.compare returns them.';
comment on column rollbook.finding.course_id is 'The course.';
comment on column rollbook.finding.table_name is 'The copied table; route = the user''s entry in rollbook.route.';
comment on column rollbook.finding.finding is 'missing, changed or extra.';
comment on column rollbook.finding.row_id is 'The id of the row; for route, of the user.';
comment on column rollbook.finding.columns is 'For a changed row, exactly the columns that differ.';
comment on column rollbook.repaired.course_id is 'The course.';
comment on column rollbook.repaired.table_name is 'The copied table.';
comment on column rollbook.repaired.inserted is 'Missing rows that were inserted.';
comment on column rollbook.repaired.updated is 'Changed rows that were updated.';
comment on column rollbook.repaired.deleted is 'Extra rows that were deleted.';
comment on column rollbook.comparison.course_id is 'The course.';
comment on column rollbook.comparison.table_name is 'The copied table; route = entries in rollbook.route.';
comment on column rollbook.comparison.portal_rows is 'Rows that the course should hold.';
comment on column rollbook.comparison.course_rows is 'Rows that the course holds.';
comment on column rollbook.comparison.missing is 'Rows that are due but absent.';
comment on column rollbook.comparison.changed is 'Rows in which some columns differ.';
comment on column rollbook.comparison.extra is 'Rows that are present but not due.';
comment on column rollbook.comparison.verdict is 'match, differs or not_comparable.';
