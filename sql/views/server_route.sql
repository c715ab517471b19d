-- server_route: the course servers and the routes to them. A route that holds a password is null for whoever may not
-- read rollbook.server itself: monitors reach servers by service files and password files of their own.
-- Security: the rights of its owner, the role that migrates; has_column_privilege asks for the caller.
create or replace view rollbook.server_route as
select
    s.name,
    case when shown.all_of_it or s.admin_dsn !~* shown.secret then s.admin_dsn end as admin_dsn,
    case when shown.all_of_it or s.subscription_dsn !~* shown.secret then s.subscription_dsn end as subscription_dsn,
    s.portal_identity,
    s.through,
    s.moving_through,
    s.moving_direct,
    case when shown.all_of_it or s.moving_dsn !~* shown.secret then s.moving_dsn end as moving_dsn,
    s.subscription,
    s.paused_at,
    s.created_at
from rollbook.server as s
cross join (
    select
        has_column_privilege('rollbook.server', 'admin_dsn', 'select') as all_of_it,
        -- password=, sslpassword=, oauth_client_secret=, scram_client_key=, user:password@ in a URI, or a parameter
        -- that it encodes
        'password|secret|scram_|://[^@]*:[^@]*@|[?&][^=]*%' as secret
) as shown;
comment on view rollbook.server_route is
    'The course servers and the routes to them; a route that holds a password is null for whoever may not read '
    'rollbook.server.';
comment on column rollbook.server_route.name is
    'The name; publication, slot and subscription are called rollbook_NAME.';
comment on column rollbook.server_route.admin_dsn is
    'Connection string from the operator to the server; null: it holds a password that the caller may not read.';
comment on column rollbook.server_route.subscription_dsn is
    'Connection string from the server to its source: the portal, or its relay; null: it holds a password that the '
    'caller may not read.';
comment on column rollbook.server_route.portal_identity is
    'The cluster and database that feed the server; a clone of the portal must not.';
comment on column rollbook.server_route.through is 'The relay that feeds it; null: the portal does.';
comment on column rollbook.server_route.moving_through is
    'The relay that is to feed it or, if moving_direct, that is not to any more, while `rollbook server move` is not '
    'finished; null: none.';
comment on column rollbook.server_route.moving_direct is 'Whether that move leads to the portal.';
comment on column rollbook.server_route.moving_dsn is
    'The subscription_dsn that was given to that move; null: none, no move, or it holds a password that the caller may '
    'not read.';
comment on column rollbook.server_route.subscription is
    'The oid of the subscription on the server; names of temporary slots contain it.';
comment on column rollbook.server_route.paused_at is
    'Since when `rollbook replication pause` stops the stream; null = not paused.';
comment on column rollbook.server_route.created_at is 'Time at which the server was added.';
