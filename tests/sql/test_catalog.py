"""Rules that hold for every object of Rollbook, by the catalog; and proof that a role without rights can do nothing.

Also tests sql/grants.sql and rollbook.course_status, with copies_of.
"""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

from tests.sql.helpers import (
    KEEP,
    REMOVE,
    TABLES,
    USER,
    Db,
    add_user,
    create,
    enroll,
    everybody,
    fails,
    faults,
    held,
    plant,
    run,
    schema,
    select,
    value,
)

# Each names the objects that break a rule.
RULES: dict[str, LiteralString] = {
    "a definer function pins its search path, pg_temp last": """
        select oid::regprocedure::text from pg_proc where pronamespace = 'rollbook'::regnamespace and prosecdef
            and array_position(proconfig, 'search_path=pg_catalog, pg_temp') is null""",
    "a definer function belongs to rollbook_owner or rollbook_writer, every other to who migrates": """
        select p.oid::regprocedure::text from pg_proc as p inner join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname = 'rollbook'
            and case when prosecdef then proowner not in ('rollbook_owner'::regrole, 'rollbook_writer'::regrole)
                     else proowner <> nspowner end""",
    "rollbook_owner and rollbook_writer can replace nothing in the schema": """
        select rolname::text from pg_roles where rolname in ('rollbook_owner', 'rollbook_writer')
            and has_schema_privilege(rolname, 'rollbook', 'create')""",
    "a trigger function is executable by its owner alone": """
        select p.oid::regprocedure::text || ' ' || a.grantee::regrole from pg_proc as p, aclexplode(p.proacl) as a
        where pronamespace = 'rollbook'::regnamespace and prorettype = 'trigger'::regtype and a.grantee <> proowner
            and not (proname = 'guard_copy' and a.grantee = 'rollbook_owner'::regrole)""",
    "what a monitor may execute only reads": """
        select oid::regprocedure::text from pg_proc where pronamespace = 'rollbook'::regnamespace
            and has_function_privilege('rollbook_monitor', oid, 'execute') and provolatile = 'v'""",
    "an operator may execute no definer function that writes": """
        select oid::regprocedure::text from pg_proc where pronamespace = 'rollbook'::regnamespace and prosecdef
            and has_function_privilege('rollbook_operator', oid, 'execute') and provolatile = 'v'""",
    "nobody but the owner changes the history": """
        select grantee::regrole || ' ' || privilege_type from pg_class, aclexplode(relacl)
        where oid = 'rollbook.history'::regclass and grantee <> relowner and privilege_type not in ('SELECT')""",
    "no role of ours may create triggers, references or truncate in the portal": """
        select c.relname || ' ' || a.grantee::regrole || ' ' || a.privilege_type
        from pg_class as c, aclexplode(c.relacl) as a
        where c.relnamespace = 'portal'::regnamespace and a.grantee <> c.relowner
            and a.grantee::regrole::text like 'rollbook%'
            and a.privilege_type in ('TRIGGER', 'REFERENCES', 'TRUNCATE')""",
    "no function is executable by PUBLIC, or a role with rights on the portal": """
        select oid::regprocedure::text from pg_proc where pronamespace = 'rollbook'::regnamespace and (proacl is null
            or exists (select from aclexplode(proacl) where grantee = 0 and privilege_type = 'EXECUTE')
            or has_function_privilege('portal_app', oid, 'execute'))""",
    "PUBLIC has no right on a table, view or schema": """
        select relname::text from pg_class cross join aclexplode(relacl)
        where relnamespace in (select oid from pg_namespace where nspname ~ '^(rollbook|portal|course_.*)$')
            and grantee = 0
        union all
        select nspname::text from pg_namespace cross join aclexplode(nspacl)
        where nspname ~ '^(rollbook|portal|course_.*)$' and grantee = 0""",
    "no role of ours can log in or has an attribute": """
        select rolname::text from pg_roles where rolname ~ '^rollbook_' and (rolcanlogin or rolsuper
            or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication)""",
    "the tables, views and types of the machinery belong to who migrates, the heartbeat to rollbook_owner": """
        select relname::text from pg_class where relnamespace = 'rollbook'::regnamespace
            and relkind in ('r', 'v', 'c') and relname <> 'heartbeat'
            and relowner <> (select nspowner from pg_namespace where nspname = 'rollbook')
        union all
        select nspname::text from pg_namespace where nspname = 'rollbook' and nspowner = 'rollbook_owner'::regrole""",
    "rollbook_owner may only read in the portal": """
        select format('%s %s', relname, privilege_type) from pg_class cross join aclexplode(relacl)
        where relnamespace = 'portal'::regnamespace and grantee = 'rollbook_owner'::regrole
            and privilege_type <> 'SELECT'""",
    "nothing hangs on the database itself": """
        select privilege_type from pg_database cross join aclexplode(datacl)
        where datname = current_database() and grantee = 'rollbook_owner'::regrole""",
    "a schema has a comment": """
        select nspname::text from pg_namespace where nspname in ('portal', 'rollbook')
            and obj_description(oid, 'pg_namespace') is null""",
    "a table, view or composite type has a comment": """
        select oid::regclass::text from pg_class
        where relnamespace in ('portal'::regnamespace, 'rollbook'::regnamespace)
            and relkind in ('r', 'p', 'v', 'm', 'f') and obj_description(oid, 'pg_class') is null
        union all
        select y.oid::regtype::text from pg_type y left join pg_class c on c.oid = y.typrelid
        where y.typnamespace in ('portal'::regnamespace, 'rollbook'::regnamespace) and y.typcategory <> 'A'
            and coalesce(c.relkind, 'c') = 'c' and obj_description(y.oid, 'pg_type') is null""",
    "a column has a comment": """
        select a.attrelid::regclass::text || '.' || a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
        where c.relnamespace in ('portal'::regnamespace, 'rollbook'::regnamespace)
            and c.relkind in ('r', 'p', 'v', 'm', 'f')
            and a.attnum > 0 and not a.attisdropped and col_description(a.attrelid, a.attnum) is null""",
    "a function has a comment": """
        select oid::regprocedure::text from pg_proc
        where pronamespace in ('portal'::regnamespace, 'rollbook'::regnamespace)
            and obj_description(oid, 'pg_proc') is null""",
    "a trigger, of a copy too, has a comment of its own, which says more than a function's name": """
        select t.tgrelid::regclass::text || ' ' || t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
        where c.relnamespace in (select oid from pg_namespace where nspname ~ '^(rollbook|portal|course_.*)$')
            and not t.tgisinternal and (obj_description(t.oid, 'pg_trigger') is null
            or obj_description(t.oid, 'pg_trigger') ~ '^Calls')""",
    "a policy has a comment": """
        select polrelid::regclass::text || ' ' || polname from pg_policy where polname like 'rollbook%'
            and obj_description(oid, 'pg_policy') is null""",
    "a constraint of the machinery is valid": """
        select conname::text from pg_constraint
        where connamespace in ('portal'::regnamespace, 'rollbook'::regnamespace) and not convalidated""",
    "a trigger on a portal table bears the name of its function, and is enabled": """
        select t.tgrelid::regclass::text || ' ' || t.tgname from pg_trigger t join pg_proc p on p.oid = t.tgfoid
        where not t.tgisinternal and p.pronamespace = 'rollbook'::regnamespace
            and (t.tgname not like 'rollbook_' || p.proname || '%' or t.tgenabled <> 'O')""",
}


@pytest.mark.usefixtures("app")
def test_every_rule_holds_for_every_object(live: Db) -> None:
    assert {rule: run(live, query) for rule, query in RULES.items()} == {rule: [] for rule in RULES}


def test_every_replicated_table_has_its_triggers(school: Db) -> None:
    found = run(
        school,
        """select c.relname::text, array_agg(distinct e.event order by e.event) from pg_trigger t
        join pg_class c on c.oid = t.tgrelid cross join lateral (values (4, 'insert'), (8, 'delete'), (16, 'update'),
            (32, 'truncate')) e (bit, event)
        where c.relnamespace = 'portal'::regnamespace and not t.tgisinternal and t.tgtype::int & e.bit > 0
            and t.tgname like 'rollbook%' group by 1""",
    )
    assert dict(found) == {
        "auth_user": ["delete", "insert", "truncate", "update"],  # insert for names and the discussion service alone
        "auth_userprofile": ["delete", "insert", "truncate", "update"],
        "student_courseenrollment": ["delete", "insert", "truncate", "update"],
        "student_testcenteruser": ["insert", "update"],  # not routed: checked
        "student_testcenterregistration": ["insert", "update"],
        "student_courseenrollmentallowed": ["insert", "update"],
        "student_pendingemailchange": ["insert", "update"],
        "student_pendingnamechange": ["insert", "update"],
    }
    guards = value(school, "select count(*) from pg_trigger where starts_with(tgname, 'rollbook_guard_')")
    assert guards == 2 * 2 * len(TABLES)


def test_temporary_objects_of_a_writer_deceive_nobody(live: Db, app: Db) -> None:
    for number, name in enumerate(("ada", "bob"), 1):
        assert add_user(live, name) == number
    run(live, "do $$ begin execute format('grant temporary on database %I to portal_app', current_database()); end $$")
    for table in TABLES:
        run(app, "create temp table {t} as select * from portal.{t}", t=table)
    run(
        app,
        """update pg_temp.auth_user set is_superuser = true, email = 'forged@edx.org';
        create temp table course as select 'edX/toy/2012_Fall'::text as course_id, 'pg_temp'::name as schema_name;
        create temp table route (user_id bigint, schemas text[], written bigint);
        create temp table new_rows as select * from portal.student_courseenrollment;
        insert into new_rows values (1, 2, 'edX/toy/2012_Fall', null);
        create temp table old_rows as select * from new_rows;
        create function pg_temp.unnest(anyarray) returns setof anyelement language sql as 'select null where false';
        create function pg_temp.format(text, variadic text[]) returns text language sql as $$ select 'select 1' $$;
        create function pg_temp.array_agg(bigint) returns bigint[] language sql as $$ select '{2}'::bigint[] $$;
        create function pg_temp.replicated_columns(text) returns text[] language sql as $$ select '{id}'::text[] $$;
        create domain pg_temp.bigint as text; create domain pg_temp.text as int;
        set search_path = pg_temp, portal, pg_catalog""",
    )
    enroll(app, 1, KEEP, REMOVE)
    run(app, "update portal.auth_user set first_name = 'New' where id = 1")
    run(app, "update portal.auth_user set last_name = 'New'")
    run(app, "update portal.auth_userprofile set goals = 'New'")
    run(app, "update portal.student_courseenrollment set created = null")
    assert (held(live, KEEP), held(live, REMOVE)) == (everybody(1), everybody(1))
    assert faults(live) == []
    assert select(live, schema(live, KEEP), USER, ["email", "is_superuser"]) == [("ada@edx.org", False)]
    run(app, "delete from portal.student_courseenrollment")
    run(app, "delete from portal.auth_user where id = 1")
    assert (faults(live), held(live, KEEP)) == ([], everybody())


ATTACKS: list[LiteralString] = [
    "create trigger t after insert on mine referencing new table as new_rows for each statement "
    "execute function rollbook.route_enrollment_insert()",
    "select rollbook.put_copies('course_edx_toy_2012_fall', 'auth_user', 'id', '{1}')",
    "select rollbook.create_course('edX/mine')",
    "select rollbook.drop_course('edX/toy/2012_Fall', true)",
    "select rollbook.repair()",
    "update rollbook.course set on_leave = 'remove'",
    "insert into rollbook.route values (1, '{course_edx_toy_2012_fall}')",
    "select * from rollbook.course_status",
    "select * from course_edx_toy_2012_fall.auth_user",
    "create table course_edx_toy_2012_fall.mine (id bigint)",
    "alter table portal.auth_user disable trigger user",
    "create trigger t after insert on portal.auth_user for each row execute function mine()",
    "truncate portal.student_courseenrollment",
    "set role rollbook_owner",
    "set session_replication_role = replica",
]


def test_an_applications_role_reaches_neither_the_machinery_nor_a_course(live: Db, app: Db) -> None:
    enroll(live, add_user(live, "ada"), KEEP)
    run(app, "create temp table mine (id bigint, user_id bigint, course_id varchar, created timestamptz)")
    for attack in ATTACKS:
        fails(app, psycopg.errors.InsufficientPrivilege, attack)
    assert (faults(live), held(live, KEEP)) == ([], everybody(1))


def test_course_status_counts_and_says_what_is_broken(portal: Db) -> None:
    create(portal, KEEP)
    enroll(portal, add_user(portal, "ada"), KEEP)
    enroll(portal, add_user(portal, "bob", profile=False), KEEP)
    query: LiteralString = """select course_id, schema_name::text, state, on_leave, enrolled, copied_users,
        copied_profiles, copied_enrollments from rollbook.course_status"""
    assert run(portal, query) == [(KEEP, "course_edx_toy_2012_fall", "ok", "keep", 2, 2, 1, 2)]
    run(portal, "delete from portal.student_courseenrollment where user_id = 1")
    assert run(portal, query) == [(KEEP, "course_edx_toy_2012_fall", "ok", "keep", 1, 2, 1, 1)]
    run(portal, "drop table {c}.auth_userprofile", c=schema(portal, KEEP))
    assert run(portal, query) == [(KEEP, "course_edx_toy_2012_fall", "broken", "keep", 1, 2, None, 1)]


def test_course_status_counts_where_the_statistics_contradict_the_portal(live: Db) -> None:
    """Nothing is counted while they agree, so a copy removed bypassing the guard is seen when they have it."""
    for name in ("ada", "bob"):
        enroll(live, add_user(live, name), KEEP)
    keep = schema(live, KEEP)
    query: LiteralString = """select state, enrolled, copied_users, copied_enrollments from rollbook.course_status
        where course_id = %s"""
    run(live, "select pg_stat_force_next_flush()")
    assert run(live, query, KEEP) == [("ok", 2, 2, 2)]
    for table, expected in (("auth_user", ("drifted", 2, 1, 2)), ("student_courseenrollment", ("drifted", 2, 1, 1))):
        plant(live, "delete from {c}.{t} where id = (select min(id) from {c}.{t})", c=keep, t=table)
        run(live, "select pg_stat_force_next_flush()")
        assert run(live, query, KEEP) == [expected]
    run(live, "select rollbook.repair()")
    run(live, "set stats_fetch_consistency = none")
    run(live, "select pg_stat_reset()")  # as after a crash: everything is counted
    assert run(live, query, KEEP) == [("ok", 2, 2, 2)]
    run(live, "alter table {c}.auth_user rename email to address", c=keep)
    assert run(live, query, KEEP) == [("broken", 2, None, 2)]
    lacking = "select table_name, is_sound from rollbook.copies_of(%s, '{}') where not is_sound"
    assert run(live, lacking, keep) == [("auth_user", False)]
    assert run(live, lacking.replace("'{}'", "'{email}'"), keep) == []
