-- servers: the course servers, and the heartbeat that travels to them.
-- Part of revision 0002. Locks: new tables only.

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

create table rollbook.heartbeat (
    beat bigint primary key,
    sent_at timestamptz not null,
    lsn pg_lsn not null
);
comment on table rollbook.heartbeat is 'Heartbeats sent to the course servers, the newest 2,000. Written by beat.';
comment on column rollbook.heartbeat.beat is 'Its number; committed in this order.';
comment on column rollbook.heartbeat.sent_at is 'When it was sent.';
comment on column rollbook.heartbeat.lsn is 'Where the WAL ended then.';
