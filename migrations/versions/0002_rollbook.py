"""The machinery: schema rollbook with its tables, functions and views, and the triggers on the portal's tables.

Locks: SHARE ROW EXCLUSIVE on the portal's tables that get triggers (accounts, profiles, enrollments, candidates,
authorizations) until commit; no table is rewritten or scanned. Writes of applications wait meanwhile, and
are routed afterwards.
"""

from rollbook.core.migrating import LOCK_TIMEOUT, apply_objects, run_sql, run_tables

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A new profile creates the route of its user; existing users get theirs here.
SEED = """
insert into rollbook.route (user_id) select id from portal.auth_user on conflict do nothing;
"""

# Course schemas are dropped with everything that courses added: `rollbook schema downgrade` lists it before it asks.
# Triggers on the portal's tables are dropped with their functions.
DROP = """
do $$
declare
    course record;
    policy record;
    home record;
begin
    if exists (select from rollbook.server) then
        raise exception 'there are course servers: %', (select string_agg(s.name, ', ') from rollbook.server as s)
            using errcode = 'RB011', hint = 'Remove each: rollbook server remove NAME';
    end if;
    for course in select schema_name from rollbook.course loop
        execute format('drop schema if exists %I cascade', course.schema_name);
    end loop;
    for policy in
        select p.polname, p.polrelid::regclass as place
        from pg_policy as p
        where starts_with(p.polname, 'rollbook_')
            and p.polname in ('rollbook_reads', 'rollbook_registers', 'rollbook_renews')
    loop
        execute format('drop policy %I on %s', policy.polname, policy.place);
    end loop;
    for home in
        select distinct n.oid::regnamespace as name, a.grantee::regrole as role
        from pg_class as c
        inner join pg_class as t on t.oid = rollbook.portal_table(c.relname)
        inner join pg_namespace as n on n.oid = t.relnamespace
        cross join aclexplode(n.nspacl) as a
        inner join pg_roles as r on r.oid = a.grantee and r.rolname in ('rollbook_owner', 'rollbook_writer')
        where c.relnamespace = 'portal'::regnamespace
    loop
        execute format('revoke usage on schema %s from %s', home.name, home.role);
    end loop;
    if exists (select from pg_roles as r where r.rolname = 'rollbook_owner') then
        execute format('revoke select on %s from rollbook_owner', rollbook.portal_table('auth_user'));
        for home in
            select c.oid::regclass as place, c.relnamespace::regnamespace as name
            from rollbook.shape_table as s
            inner join pg_class as c on c.oid = to_regclass(s.relation)
        loop
            execute format('revoke select on %s from rollbook_owner', home.place);
            execute format('revoke usage on schema %s from rollbook_owner', home.name);
            continue when home.name = 'portal'::regnamespace
                or not exists (select from pg_roles as r where r.rolname = 'rollbook_monitor');
            execute format('revoke select on %s from rollbook_monitor', home.place);
            execute format('revoke usage on schema %s from rollbook_monitor', home.name);
        end loop;
    end if;
end $$;
drop schema rollbook cascade;
do $$
declare
    role text;
begin
    foreach role in array array[
        'rollbook_operator', 'rollbook_monitor', 'rollbook_application', 'rollbook_relay', 'rollbook_writer',
        'rollbook_owner'
    ] loop
        continue when not exists (select from pg_roles as r where r.rolname = role);
        execute format('revoke all on all tables in schema portal from %I', role);
        execute format('revoke all on all sequences in schema portal from %I', role);
        execute format('revoke all on schema portal from %I', role);
        execute format('revoke all on public.rollbook_revision from %I', role);
        begin
            execute format('drop role %I', role);
        exception when dependent_objects_still_exist or insufficient_privilege then
            raise notice 'role % stays: another database uses it, or it was not made by the migrating role', role;
        end;
    end loop;
end $$;
"""


def upgrade() -> None:
    run_sql(LOCK_TIMEOUT)
    run_tables("0002", "roles", "schema", "servers", "routing", "accounts", "privacy", "test_centre", "countries")
    apply_objects("0002")
    run_sql(SEED)


def downgrade() -> None:
    run_sql(LOCK_TIMEOUT)
    run_sql(DROP)
