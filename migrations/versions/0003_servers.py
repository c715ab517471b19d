"""Course servers: which there are, which courses they hold, and the heartbeat that travels to them.

Locks: ACCESS EXCLUSIVE on rollbook.course for the moment that it takes to add a column; enrollments wait. No table is
rewritten.
"""

from rollbook.core.migrating import apply_frozen, run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SERVER = """
create table rollbook.server (
    name text primary key constraint server_name_form check (name ~ '^[a-z][a-z0-9_]{0,39}$'),
    admin_dsn text not null,
    subscription_dsn text not null,
    portal_identity text not null,
    subscription oid,
    paused_at timestamptz,
    created_at timestamptz not null default now()
);
comment on table rollbook.server is 'The PostgreSQL servers that hold courses. Written by `rollbook server`.';
comment on column rollbook.server.name is 'Its name; its publication, slot and subscription are rollbook_NAME.';
comment on column rollbook.server.admin_dsn is 'How the operator reaches the server.';
comment on column rollbook.server.subscription_dsn is 'How the server reaches the portal.';
comment on column rollbook.server.portal_identity is
    'The cluster and database that feed it: a clone of the portal must not.';
comment on column rollbook.server.subscription is
    'The oid of the subscription there; temporary slots are named after it.';
comment on column rollbook.server.paused_at is 'Since when `rollbook replication pause` holds it; null: it does not.';
comment on column rollbook.server.created_at is 'When it was added.';
alter table rollbook.server owner to rollbook_owner;

alter table rollbook.course add column server text references rollbook.server;
create index on rollbook.course (server);
comment on column rollbook.course.server is 'The course server that holds it too; null: none.';
alter table rollbook.verification add column run_at timestamptz;
comment on column rollbook.verification.run_at is 'When the verify of many courses began that compared this one.';
"""

HEARTBEAT = """
create table rollbook.heartbeat (
    beat bigint primary key,
    sent_at timestamptz not null,
    lsn pg_lsn not null
);
comment on table rollbook.heartbeat is 'Heartbeats sent to the course servers, the newest 2,000. Written by beat.';
comment on column rollbook.heartbeat.beat is 'Its number; committed in this order.';
comment on column rollbook.heartbeat.sent_at is 'When it was sent.';
comment on column rollbook.heartbeat.lsn is 'Where the WAL ended then.';
alter table rollbook.heartbeat owner to rollbook_owner;
"""

REPLACED = """
drop function rollbook.create_copy(text, text);
drop function rollbook.guard_copies(text);
"""

AWAY = """
do $$
begin
    if exists (select from rollbook.server) then
        raise exception 'there are course servers: %', (select string_agg(s.name, ', ') from rollbook.server as s)
            using errcode = 'RB011', hint = 'rollbook server remove NAME, for each.';
    end if;
end $$;
drop view rollbook.course_status;
drop view rollbook.slot_status;
drop function rollbook.beat();
drop function rollbook.publish_courses(text);
drop function rollbook.copy_statements(text, text);
drop function rollbook.guard_statements(text, text);
drop table rollbook.heartbeat;
alter table rollbook.course drop column server;
alter table rollbook.verification drop column run_at;
drop table rollbook.server;
"""


def upgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    run_sql(SERVER)
    run_sql(HEARTBEAT)
    apply_frozen("0003")
    run_sql(REPLACED)


def downgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    run_sql(AWAY)
    apply_frozen("0002")
