-- accounts: decisions on name changes, persons of bundles, the history of what the program wrote, the outbox for the
-- discussion service. Part of revision 0002. Locks: new tables only.

create table rollbook.name_decision (
    id bigint primary key,
    user_id bigint not null references portal.auth_user (id) on delete cascade,
    old_name text not null,
    new_name text not null,
    rationale text not null,
    requested_at timestamptz not null,
    state text not null constraint name_decision_state_word check (state in ('approved', 'rejected')),
    reason text,
    decided_at timestamptz not null default now(),
    decided_by text not null default session_user
);
create index on rollbook.name_decision (user_id);
comment on table rollbook.name_decision is 'Decisions on requested name changes.';
comment on column rollbook.name_decision.id is 'The id of the request.';
comment on column rollbook.name_decision.user_id is 'The user who asked.';
comment on column rollbook.name_decision.old_name is 'The full name before.';
comment on column rollbook.name_decision.new_name is 'The requested name.';
comment on column rollbook.name_decision.rationale is 'The reason, in the person''s words.';
comment on column rollbook.name_decision.requested_at is 'Time of the request.';
comment on column rollbook.name_decision.state is 'approved or rejected.';
comment on column rollbook.name_decision.reason is 'Reason for a rejection; null = not given.';
comment on column rollbook.name_decision.decided_at is 'Time of the decision.';
comment on column rollbook.name_decision.decided_by is 'The database role that decided.';

create table rollbook.roster_person (
    source text not null
        constraint roster_person_source_form check (source ~ '^[^[:cntrl:]]+$' and char_length(source) <= 100),
    sourced_id text not null,
    user_id bigint not null references portal.auth_user (id) on delete cascade,
    origin text not null default 'created'
        constraint roster_person_origin_word check (origin in ('created', 'email', 'linked')),
    is_living boolean not null default true,
    is_enabled boolean not null default false,
    at timestamptz not null default now(),
    primary key (source, sourced_id)
);
create index on rollbook.roster_person (user_id);
comment on table rollbook.roster_person is 'Persons of OneRoster bundles: which account each sourcedId has.';
comment on column rollbook.roster_person.source is 'The system that sends the bundles, as --source names it.';
comment on column rollbook.roster_person.sourced_id is 'The sourcedId in users.csv.';
comment on column rollbook.roster_person.user_id is 'The account.';
comment on column rollbook.roster_person.origin is
    'created: a bundle made the account; email: the e-mail address agreed; linked: an operator linked it.';
comment on column rollbook.roster_person.is_living is
    'Whether the last bundle had the person, neither inactive nor to be deleted.';
comment on column rollbook.roster_person.is_enabled is
    'Whether the last bundle let the person log in; the next one activates no account that was blocked since.';
comment on column rollbook.roster_person.at is 'Time of the link.';

create table rollbook.roster_enrollment (
    source text not null,
    sourced_id text not null,
    user_id bigint not null references portal.auth_user (id) on delete cascade,
    course_id text not null,
    begin_date date,
    end_date date,
    in_effect boolean not null,
    primary key (source, sourced_id)
);
create index on rollbook.roster_enrollment (user_id, course_id);
comment on table rollbook.roster_enrollment is
    'The students'' enrollments in the bundles of a source, also those that have ended or have not begun.';
comment on column rollbook.roster_enrollment.source is 'The system that sent it: --source of the import.';
comment on column rollbook.roster_enrollment.sourced_id is 'The row''s sourcedId, which stays.';
comment on column rollbook.roster_enrollment.user_id is 'The student.';
comment on column rollbook.roster_enrollment.course_id is 'The class''s sourcedId, which is the course''s id.';
comment on column rollbook.roster_enrollment.begin_date is 'The first day; null = it has begun.';
comment on column rollbook.roster_enrollment.end_date is 'The last day; null = it has no end.';
comment on column rollbook.roster_enrollment.in_effect is
    'Whether it was of that day when an import or sync-dates looked last; the enrollment was made equal to it then.';

create table rollbook.history (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    role text not null default session_user,
    os_user text not null,
    actor text not null generated always as (role || '/' || os_user) stored,
    on_behalf_of text constraint history_on_behalf_of_width check (char_length(on_behalf_of) <= 200),
    command text not null,
    object text not null,
    user_id bigint,
    course_id text,
    outcome text not null,
    before jsonb,
    after jsonb,
    reason text,
    kind text,
    batch bigint,
    undoes bigint,
    erased_at timestamptz
);
create index on rollbook.history (user_id);
create index on rollbook.history (course_id) where course_id is not null;
create index on rollbook.history (at);
-- The rows of a batch are found by their time, which is that of the summary: an index less to write.
create index on rollbook.history (undoes) where undoes is not null;
create index history_import_idx on rollbook.history (id) where outcome = 'imported';
comment on table rollbook.history is 'What the command line wrote: who, what, values before and after. Never a secret.';
comment on column rollbook.history.id is 'The number of the entry.';
comment on column rollbook.history.at is 'Time of the change, by the database''s clock.';
comment on column rollbook.history.role is 'The database role that was logged in. The database writes it.';
comment on column rollbook.history.os_user is 'The operating system''s user, as the program reported it.';
comment on column rollbook.history.actor is 'Role and operating system''s user: role/os_user.';
comment on column rollbook.history.on_behalf_of is 'The person that ROLLBOOK_ACTOR named; null = none. Not verified.';
comment on column rollbook.history.command is 'The command, such as user update.';
comment on column rollbook.history.object is 'The object, as it was named.';
comment on column rollbook.history.user_id is 'The user concerned; null = not a user.';
comment on column rollbook.history.course_id is 'The course concerned; null = not a course.';
comment on column rollbook.history.outcome is 'created, changed, removed and so on.';
comment on column rollbook.history.before is 'Values of the changed fields before.';
comment on column rollbook.history.after is 'Values of the changed fields after.';
comment on column rollbook.history.reason is 'The reason given with --reason.';
comment on column rollbook.history.kind is
    'The kind of row that before and after describe, such as user or enrollment; null = it cannot be undone.';
comment on column rollbook.history.batch is
    'Of a row that an import, or the undo of one, wrote: the id of its summary; null = not part of a batch.';
comment on column rollbook.history.undoes is 'The entry that this one undid; null = not an undo.';
comment on column rollbook.history.erased_at is
    'Time at which names and values were taken out of it, so that it cannot be undone; null = they are there.';

create table rollbook.discussion (
    only_one boolean primary key default true constraint discussion_only_one check (only_one),
    active boolean not null default false,
    url text not null default 'http://localhost:4567'
        constraint discussion_url_form check (url ~ '^https?://[^/?#@[:space:]]+(/[^?#@[:space:]]*)?$'),
    api_key text constraint discussion_api_key_line check (api_key ~ '^[^[:cntrl:]]+$')
);
insert into rollbook.discussion default values;
comment on table rollbook.discussion is 'The discussion service: whether user changes are queued for it, and its URL.';
comment on column rollbook.discussion.only_one is 'Always true: the table has one row.';
comment on column rollbook.discussion.active is 'Whether user changes are queued; off by default.';
comment on column rollbook.discussion.url is 'URL of the service, without /api/v1.';
comment on column rollbook.discussion.api_key is 'API key, a secret; null = taken from the environment.';

create table rollbook.discussion_outbox (
    id bigint generated always as identity primary key,
    user_id bigint not null,
    operation text not null constraint discussion_outbox_operation_word check (operation in ('put', 'delete')),
    username text,
    email text,
    created_at timestamptz not null default now(),
    attempts integer not null default 0,
    next_try_at timestamptz not null default now(),
    tried_at timestamptz,
    http_status integer,
    error text
);
create index on rollbook.discussion_outbox (user_id, id);
create index on rollbook.discussion_outbox (next_try_at);
comment on table rollbook.discussion_outbox is
    'User changes that the discussion service has not received, in commit order for each user. Delivered rows are '
    'deleted.';
comment on column rollbook.discussion_outbox.id is 'The number of the entry; for one user, lower is older.';
comment on column rollbook.discussion_outbox.user_id is 'The user.';
comment on column rollbook.discussion_outbox.operation is 'put: create or update; delete.';
comment on column rollbook.discussion_outbox.username is
    'The user name to send; for a deletion, the last one; null = name and e-mail address at delivery (sync --all).';
comment on column rollbook.discussion_outbox.email is 'The e-mail address to send.';
comment on column rollbook.discussion_outbox.created_at is 'Time of the change.';
comment on column rollbook.discussion_outbox.attempts is 'Number of delivery attempts.';
comment on column rollbook.discussion_outbox.next_try_at is 'Not tried before this time.';
comment on column rollbook.discussion_outbox.tried_at is 'Time of the last attempt; null = none yet.';
comment on column rollbook.discussion_outbox.http_status is
    'HTTP status of the last attempt; null = no answer, or no attempt.';
comment on column rollbook.discussion_outbox.error is 'Error of the last attempt.';
