"""Accounts: keys that expire, decisions that stay, the history of what was done, the outbox of the discussion service.

Locks: ACCESS EXCLUSIVE on the small portal tables that get columns (registrations, pending changes, allowed
enrollments), which are rewritten; SHARE ROW EXCLUSIVE on portal.auth_user and auth_userprofile for the triggers.
"""

from rollbook.core.migrating import apply_frozen, run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEYS = """
alter table portal.auth_registration
    alter activation_key set default replace(gen_random_uuid()::text, '-', ''),
    add column created_at timestamptz not null default now(),
    add column expires_at timestamptz not null default now() + interval '14 days',
    add column activated_at timestamptz;
comment on column portal.auth_registration.created_at is 'When the key was made.';
comment on column portal.auth_registration.expires_at is 'Until when the key can be used.';
comment on column portal.auth_registration.activated_at is 'When the key was used, and spent; null: not yet.';

alter table portal.student_pendingemailchange
    alter activation_key set default replace(gen_random_uuid()::text, '-', ''),
    add column requested_at timestamptz not null default now(),
    add column expires_at timestamptz not null default now() + interval '7 days',
    add constraint student_pendingemailchange_new_email_width check (length(new_email) <= 254);
comment on column portal.student_pendingemailchange.requested_at is 'When the change was asked for.';
comment on column portal.student_pendingemailchange.expires_at is 'Until when the key can be used.';

alter table portal.student_pendingnamechange
    add column requested_at timestamptz not null default now(),
    add constraint student_pendingnamechange_new_name_check check (new_name = '' or length(btrim(new_name)) >= 2);
comment on column portal.student_pendingnamechange.requested_at is 'When the change was asked for.';

alter table portal.student_courseenrollmentallowed
    add column auto_enroll boolean not null default false;
create index student_courseenrollmentallowed_lower_email_idx
    on portal.student_courseenrollmentallowed (lower(email));
comment on column portal.student_courseenrollmentallowed.auto_enroll is
    'Whether whoever activates an account with this address is enrolled at once.';
"""

DECISIONS = """
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
"""

HISTORY = """
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
"""

DISCUSSION = """
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
"""

OWNED = """
alter table rollbook.name_decision owner to rollbook_owner;
alter table rollbook.history owner to rollbook_owner;
alter table rollbook.discussion owner to rollbook_owner;
alter table rollbook.discussion_outbox owner to rollbook_owner;
"""

AWAY = """
drop trigger rollbook_refuse_year_of_birth on portal.auth_userprofile;
drop trigger rollbook_note_for_discussion_insert on portal.auth_user;
drop trigger rollbook_note_for_discussion_update on portal.auth_user;
drop trigger rollbook_note_for_discussion_delete on portal.auth_user;
drop trigger rollbook_note_for_discussion_truncate on portal.auth_user;
drop view rollbook.registration_status;
drop view rollbook.email_change_status;
drop view rollbook.name_change_status;
drop view rollbook.allowed_status;
drop function rollbook.refuse_year_of_birth();
drop function rollbook.note_for_discussion();
drop function rollbook.activate_registration(text);
drop function rollbook.auto_enroll(bigint);
drop function rollbook.renew_registration(bigint, interval);
drop function rollbook.change_name(bigint, text, text);
drop function rollbook.change_email(bigint, text);
drop function rollbook.request_name_change(bigint, text, text);
drop function rollbook.decide_name_change(bigint, boolean, text);
drop function rollbook.request_email_change(bigint, text, interval);
drop function rollbook.confirm_email_change(text);
drop function rollbook.add_to_meta(text, text, jsonb);
drop function rollbook.default_group(text);
drop function rollbook.split_users(text[], numeric[], bigint, bigint[], text);
drop table rollbook.discussion_outbox;
drop table rollbook.discussion;
drop table rollbook.history;
drop table rollbook.name_decision;
drop index portal.student_courseenrollmentallowed_lower_email_idx;
alter table portal.student_courseenrollmentallowed drop column auto_enroll;
alter table portal.student_pendingnamechange
    drop constraint student_pendingnamechange_new_name_check, drop column requested_at;
alter table portal.student_pendingemailchange
    drop constraint student_pendingemailchange_new_email_width,
    alter activation_key drop default, drop column requested_at, drop column expires_at;
alter table portal.auth_registration
    alter activation_key drop default, drop column created_at, drop column expires_at, drop column activated_at;
"""


def upgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    for block in (KEYS, DECISIONS, HISTORY, DISCUSSION, OWNED):
        run_sql(block)
    apply_frozen("0004")


def downgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    run_sql(AWAY)
