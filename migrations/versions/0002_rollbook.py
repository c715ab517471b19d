"""The machinery: schema rollbook with its tables, functions and views, and the triggers on the portal's tables.

Locks: SHARE ROW EXCLUSIVE on the portal's tables that get triggers (accounts, profiles, enrollments, candidates,
authorizations) until commit; no table is rewritten or scanned. Writes of applications wait meanwhile, and
are routed afterwards.
"""

from rollbook.core.migrating import apply_objects, run_sql, run_tables

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OWNER = """
do $$
begin
    create role rollbook_owner nologin;
exception when duplicate_object or unique_violation then
    null;  -- roles belong to the cluster: another database has Rollbook too
end $$;
do $$
begin
    if exists (
        select from pg_roles as r
        where r.rolname = 'rollbook_owner'
            and (r.rolsuper or r.rolcanlogin or r.rolcreaterole or r.rolcreatedb or r.rolbypassrls or r.rolreplication)
    ) then
        raise exception 'role rollbook_owner has rights that it must not have'
            using errcode = 'RB010', hint =
                'alter role rollbook_owner nosuperuser nologin nocreaterole nocreatedb noreplication nobypassrls';
    end if;
    -- From 16 on the creator of a role is a member of it, but may not SET ROLE to it.
    if not pg_has_role(current_user, 'rollbook_owner',
                       case when current_setting('server_version_num')::integer < 160000 then 'member' else 'set' end)
    then
        execute format('grant rollbook_owner to %I', current_user);
    end if;
exception when insufficient_privilege then
    raise exception 'role % may not act for rollbook_owner, which another database created', current_user
        using errcode = 'RB010', hint = format('Ask a superuser to run: grant rollbook_owner to %I', current_user);
end $$;

create schema rollbook authorization rollbook_owner;
comment on schema rollbook is 'Rollbook: which student is copied to which course, and the machinery that does it.';
"""

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
begin
    if exists (select from rollbook.server) then
        raise exception 'there are course servers: %', (select string_agg(s.name, ', ') from rollbook.server as s)
            using errcode = 'RB011', hint = 'Remove each: rollbook server remove NAME';
    end if;
    for course in select schema_name from rollbook.course loop
        execute format('drop schema if exists %I cascade', course.schema_name);
    end loop;
    for policy in select policyname, tablename from pg_policies
    where schemaname = 'portal' and starts_with(policyname, 'rollbook_') loop
        execute format('drop policy %I on portal.%I', policy.policyname, policy.tablename);
    end loop;
end $$;
drop schema rollbook cascade;
revoke all on all tables in schema portal from rollbook_owner;
revoke all on schema portal from rollbook_owner;
do $$
begin
    drop role rollbook_owner;
exception when dependent_objects_still_exist or insufficient_privilege then
    raise notice 'role rollbook_owner stays: another database uses it';
end $$;
"""


def upgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    run_sql(OWNER)
    run_tables("0002", "servers", "routing", "accounts", "test_centre", "countries")
    apply_objects("0002")
    run_sql(SEED)


def downgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    run_sql(DROP)
