-- accounts: decisions on names, the history of what the program wrote, the outbox of the discussion service.
-- Part of revision 0002. Locks: new tables only.

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
comment on table rollbook.name_decision is 'What became of name changes that were asked for.';
comment on column rollbook.name_decision.id is 'The id that the request had.';
comment on column rollbook.name_decision.user_id is 'Who asked.';
comment on column rollbook.name_decision.old_name is 'The name before.';
comment on column rollbook.name_decision.new_name is 'The name asked for.';
comment on column rollbook.name_decision.rationale is 'Why, in the person''s words.';
comment on column rollbook.name_decision.requested_at is 'When it was asked for.';
comment on column rollbook.name_decision.state is 'approved or rejected.';
comment on column rollbook.name_decision.reason is 'Why it was rejected; null: not said.';
comment on column rollbook.name_decision.decided_at is 'When it was decided.';
comment on column rollbook.name_decision.decided_by is 'The database role that decided.';

create table rollbook.history (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor text not null,
    role text not null default session_user,
    command text not null,
    object text not null,
    user_id bigint,
    course_id text,
    outcome text not null,
    before jsonb,
    after jsonb,
    reason text
);
create index on rollbook.history (user_id);
create index on rollbook.history (course_id);
create index on rollbook.history (at);
comment on table rollbook.history is 'What the command line wrote: who, what, before and after. Never a secret.';
comment on column rollbook.history.id is 'Its number.';
comment on column rollbook.history.at is 'When, by the database''s clock.';
comment on column rollbook.history.actor is 'The person: ROLLBOOK_ACTOR, else the operating system''s user.';
comment on column rollbook.history.role is 'The database role that was logged in.';
comment on column rollbook.history.command is 'The command, such as user update.';
comment on column rollbook.history.object is 'What it wrote to, as it was named.';
comment on column rollbook.history.user_id is 'The user concerned, if it is one.';
comment on column rollbook.history.course_id is 'The course concerned, if it is one.';
comment on column rollbook.history.outcome is 'created, changed, removed and so on.';
comment on column rollbook.history.before is 'The values before, of what changed.';
comment on column rollbook.history.after is 'The values after.';
comment on column rollbook.history.reason is 'Why, as the operator said with --reason.';

create table rollbook.discussion (
    only_one boolean primary key default true constraint discussion_only_one check (only_one),
    active boolean not null default false,
    url text not null default 'http://localhost:4567'
        constraint discussion_url_form check (url ~ '^https?://[^/?#@[:space:]]+(/[^?#@[:space:]]*)?$'),
    api_key text constraint discussion_api_key_line check (api_key ~ '^[^[:cntrl:]]+$')
);
insert into rollbook.discussion default values;
comment on table rollbook.discussion is 'The discussion service: whether changes of users are noted for it, and where.';
comment on column rollbook.discussion.only_one is 'There is one row.';
comment on column rollbook.discussion.active is 'Whether changes are noted; off by default.';
comment on column rollbook.discussion.url is 'Its address, without /api/v1.';
comment on column rollbook.discussion.api_key is 'Its key: a secret; null: taken from the environment.';

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
    'What the discussion service has not been told yet, in the order of the commits for each user. Delivered rows go.';
comment on column rollbook.discussion_outbox.id is 'Its number; of one user the lower is the older.';
comment on column rollbook.discussion_outbox.user_id is 'The user.';
comment on column rollbook.discussion_outbox.operation is 'put: make or change; delete.';
comment on column rollbook.discussion_outbox.username is
    'The name to tell; of a deletion the last one; null: name and address as they are when it is told (sync --all).';
comment on column rollbook.discussion_outbox.email is 'The address to tell.';
comment on column rollbook.discussion_outbox.created_at is 'When the change was made.';
comment on column rollbook.discussion_outbox.attempts is 'How often it was tried.';
comment on column rollbook.discussion_outbox.next_try_at is 'Not before this.';
comment on column rollbook.discussion_outbox.tried_at is 'When it was tried last; null: not yet.';
comment on column rollbook.discussion_outbox.http_status is 'What the last try was answered; null: nothing, or no try.';
comment on column rollbook.discussion_outbox.error is 'What the last try said.';
