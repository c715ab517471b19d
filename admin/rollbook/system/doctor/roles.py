"""Roles and grants: who may too much, and who too little. `schema check` looks at the rights on objects."""

from __future__ import annotations

from rollbook.system.doctor import logins
from rollbook.system.doctor.finding import Check

# A membership that gives neither INHERIT nor SET lets nobody act for the role: from 16 on whoever makes a role has one,
# with ADMIN. Up to 15 there are no such options. What is granted by several roles is listed several times.
MEMBERSHIPS = """
memberships as (
    select distinct m.roleid, m.member from pg_auth_members as m
    where coalesce((to_jsonb(m) ->> 'inherit_option')::boolean or (to_jsonb(m) ->> 'set_option')::boolean, true)
)
"""

TOO_LITTLE = (
    "with "  # noqa: S608 (constants)
    + logins.LOGINS
    + """
select
    format('login %%I of server %%s may not read %%s', l.rolname, l.server,
           string_agg(distinct d.name, ', ' order by d.name)) as found,
    'SELECT on the heartbeat and the copies of its courses: a first copy fails' as wanted,
    format(
        case when l.is_relay then 'grant rollbook_relay to %%1$I; select rollbook.publish_courses(%%2$L);' else
            'grant usage on schema rollbook to %%1$I; grant select on rollbook.heartbeat to %%1$I; '
            'select rollbook.grant_course(c.course_id, %%1$L) from rollbook.course as c '
            'where %%2$L in (c.server, c.moving_to);'
        end, l.rolname, l.server
    ) as fix
from logins as l
cross join lateral (
    select p.schema_name as name, p.schema_name, p.table_name
    from rollbook.published_copies(l.server) as p where p.schema_name = any (%(schemas)s)
    union all
    select 'rollbook.heartbeat', 'rollbook', 'heartbeat'
) as d
inner join pg_namespace as n on n.nspname = d.schema_name
inner join pg_class as k on k.relnamespace = n.oid and k.relname = d.table_name
where not (has_schema_privilege(l.oid, n.oid, 'usage') and has_table_privilege(l.oid, k.oid, 'select'))
group by l.rolname, l.server, l.is_relay
order by 1
"""
)

# Sessions of tools do not count: somebody works with them. The first superuser must stay one.
SESSIONS = """
select
    format('%%s of superuser %%I: %%s', case count(*) when 1 then '1 session' else count(*) || ' sessions' end,
           r.rolname,
           coalesce(string_agg(distinct nullif(a.application_name, ''), ', '), 'without a name')) as found,
    'applications are members of rollbook_application, and no superusers' as wanted,
    case when r.oid = 10
        then 'create role site login; grant rollbook_application to site; then: let the application log in as site'
        else format('alter role %%1$I nosuperuser; grant rollbook_application to %%1$I;', r.rolname) end as fix
from pg_stat_activity as a
inner join pg_roles as r on r.oid = a.usesysid and r.rolsuper
where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
    and a.application_name !~ '^(rollbook( |$)|psql$|pg_|pgAdmin|DBeaver)'
group by r.rolname, r.oid
order by 1
"""

MEMBERS = (
    "with recursive "  # noqa: S608 (constants)
    + MEMBERSHIPS
    + """
, applications (oid) as (
    select r.oid from pg_roles as r where r.rolname = 'rollbook_application'
    union
    select m.member from memberships as m inner join applications as a on a.oid = m.roleid
),
application_edges as (
    select a.oid as member, m.roleid from applications as a inner join memberships as m on m.member = a.oid
),
owners as (
    select r.* from pg_roles as r
    where r.rolcanlogin and not r.rolsuper
        and pg_has_role(r.oid, (select o.oid from pg_roles as o where o.rolname = 'rollbook_owner'), 'usage')
)
select
    format('%%s is a member of rollbook_writer, and writes tables of the portal by it', m.member::regrole) as found,
    'nobody but the role that migrates' as wanted, format('revoke rollbook_writer from %%s;', m.member::regrole) as fix
from memberships as m
where m.roleid::regrole::text = 'rollbook_writer'
    and m.member <> (select n.nspowner from pg_namespace as n where n.nspname = 'rollbook')
union all
select
    format('application %%s may act for %%s', e.member::regrole, e.roleid::regrole), 'rollbook_application alone',
    format('revoke %%s from %%s;', e.roleid::regrole, e.member::regrole)
from application_edges as e
where e.roleid::regrole::text in ('rollbook_owner', 'rollbook_writer', 'rollbook_operator')
union all
select
    format('application %%s is a superuser', r.rolname), 'rollbook_application alone',
    format('alter role %%I nosuperuser;', r.rolname)
from applications as a inner join pg_roles as r on r.oid = a.oid
where r.rolsuper and r.oid <> 10
union all
select
    format('%%s may act for rollbook_owner and records nothing in the history', o.rolname),
    'membership in rollbook_operator too', format('grant rollbook_operator to %%I;', o.rolname)
from owners as o
where not pg_has_role(o.oid, (select r.oid from pg_roles as r where r.rolname = 'rollbook_operator'), 'usage')
union all
select
    format('%%s may act for rollbook_owner and cannot create a course', o.rolname), 'CREATE on the database',
    format('grant create on database %%I to %%I;', current_database(), o.rolname)
from owners as o where not has_database_privilege(o.oid, current_database(), 'create')
union all
select
    format('%%s may turn the triggers off: it may set session_replication_role', a.grantee::regrole),
    'superusers alone', format('revoke set on parameter session_replication_role from %%s;', a.grantee::regrole)
from pg_parameter_acl as p cross join lateral aclexplode(p.paracl) as a
inner join pg_roles as r on r.oid = a.grantee and not r.rolsuper
where p.parname = 'session_replication_role' and a.privilege_type = 'SET'
order by 1
"""
)

# A transaction left open on a copy holds up the writes of its students; a group's own settings reach no session.
IDLE = (
    "with recursive "  # noqa: S608 (constants)
    + MEMBERSHIPS
    + """
, teams (oid) as (
    select a.grantee from pg_namespace as n cross join lateral aclexplode(n.nspacl) as a
    where n.nspname = any (%(schemas)s) and a.grantee <> n.nspowner
    union
    select m.member from memberships as m inner join teams as t on t.oid = m.roleid
)
select
    format('role %%I of a course can hold up writes: its transactions may stay open for ever', r.rolname) as found,
    'idle_in_transaction_session_timeout' as wanted,
    format('alter role %%I set idle_in_transaction_session_timeout = ''1min'';', r.rolname) as fix
from teams as t
inner join pg_roles as r on r.oid = t.oid and r.rolcanlogin and not r.rolsuper and not r.rolreplication
where r.rolname !~ '^rollbook_' and not exists (
    select from pg_settings as s
    where s.name = 'idle_in_transaction_session_timeout' and s.source in ('configuration file', 'command line')
        and s.setting <> '0'
) and not exists (
    select from pg_db_role_setting as s cross join unnest(s.setconfig) as c
    where s.setrole in (0, r.oid)
        and s.setdatabase in (0, (select d.oid from pg_database as d where d.datname = current_database()))
        and c ~ '^idle_in_transaction_session_timeout=' and c !~ '=0'
)
order by 1
"""
)

# What a role that changes a server lacks to find out why a row was refused.
DIAGNOSIS = """
select
    format('role %%I may not find out which row a server refuses', session_user) as found,
    'EXECUTE on pg_show_replication_origin_status, SET on session_replication_role' as wanted,
    format('grant execute on function pg_show_replication_origin_status() to %%1$I; '
           'grant set on parameter session_replication_role to %%1$I;', session_user) as fix
where exists (select from pg_roles as r where r.rolname = 'rollbook_owner' and pg_has_role(r.oid, 'usage'))
    and not (
        has_function_privilege('pg_show_replication_origin_status()', 'execute')
        and has_parameter_privilege('session_replication_role', 'set')
    )
"""

EVERYWHERE = (Check("idle", IDLE),)
OF_PORTAL = (
    *EVERYWHERE, Check("role", MEMBERS), Check("superuser", SESSIONS), logins.CHECK,
    Check("subscription login", TOO_LITTLE),
)  # fmt: skip
OF_SERVER = (*EVERYWHERE, Check("diagnosis", DIAGNOSIS))
