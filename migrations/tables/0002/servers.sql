-- servers: the course servers, and the heartbeat that travels to them.
-- Part of revision 0002. Locks: new tables only.

create table rollbook.server (
    name text primary key constraint server_name_form check (name ~ '^[a-z][a-z0-9_]{0,39}$'),
    admin_dsn text not null,
    subscription_dsn text not null,
    portal_identity text not null,
    through text references rollbook.server,
    moving_through text references rollbook.server,
    moving_direct boolean not null default false,
    moving_dsn text,
    subscription oid,
    paused_at timestamptz,
    created_at timestamptz not null default now(),
    constraint server_through_another check (name not in (coalesce(through, ''), coalesce(moving_through, '')))
);
comment on table rollbook.server is 'The PostgreSQL servers that hold courses. Written by `rollbook server`.';
comment on column rollbook.server.name is 'The name; publication, slot and subscription are called rollbook_NAME.';
comment on column rollbook.server.admin_dsn is 'Connection string from the operator to the server.';
comment on column rollbook.server.subscription_dsn is
    'Connection string from the server to its source: the portal, or its relay.';
comment on column rollbook.server.portal_identity is
    'The cluster and database that feed the server; a clone of the portal must not.';
comment on column rollbook.server.through is
    'The relay that feeds it: another server, which holds the same courses; null = the portal does.';
comment on column rollbook.server.moving_through is
    'The relay that is to feed it or, if moving_direct, that is not to any more, until `rollbook server move` is '
    'finished; null: none.';
comment on column rollbook.server.moving_direct is
    'Whether that move leads to the portal; then the relay is to have its courses only while it feeds it.';
comment on column rollbook.server.moving_dsn is
    'The subscription_dsn that was given to that move; null: none, or no move.';
comment on column rollbook.server.subscription is
    'The oid of the subscription on the server; names of temporary slots contain it.';
comment on column rollbook.server.paused_at is
    'Since when `rollbook replication pause` stops the stream; null = not paused.';
comment on column rollbook.server.created_at is 'Time at which the server was added.';

create table rollbook.heartbeat (
    beat bigint primary key,
    sent_at timestamptz not null,
    lsn pg_lsn not null,
    portal_identity text not null,
    timeline integer not null
);
comment on table rollbook.heartbeat is 'Heartbeats sent to the course servers, the newest 2,000. Written by beat.';
comment on column rollbook.heartbeat.beat is 'The number; heartbeats commit in this order.';
comment on column rollbook.heartbeat.sent_at is 'Time at which it was sent.';
comment on column rollbook.heartbeat.lsn is 'End of the WAL at that time.';
comment on column rollbook.heartbeat.portal_identity is 'The cluster and database that sent it.';
comment on column rollbook.heartbeat.timeline is
    'The timeline of that cluster; a server that has seen a later one refuses the old primary.';
