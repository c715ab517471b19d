"""What a role with too many rights can make of them: nothing (refuse_trigger, require_owner)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection

from tests.sql.helpers import KEEP, REMOVE, Db, add_user, enroll, everybody, fails, faults, held, refused, run, value

FORGE: LiteralString = """
create function pg_temp.forge() returns trigger language plpgsql as $$ begin
    update course_edx_full_6_002_spring_2012.auth_user set is_superuser = true; return new; end $$;
grant execute on function pg_temp.forge() to public;
create trigger zz before insert or update on portal.{t} for each row execute function pg_temp.forge()"""

CANDIDATE: LiteralString = """insert into portal.student_testcenteruser (
    user_id, first_name, last_name, address_1, city, country, phone, phone_country_code
) values (1, 'Ada', 'Foo', 'Street 1', 'Leeds', 'GBR', '1234567', '44')"""


@pytest.fixture
def peopled(live: Db) -> Db:
    """Two courses with ada and bob in both; ada is a candidate."""
    for name in ("ada", "bob"):
        enroll(live, add_user(live, name), KEEP, REMOVE)
    run(live, CANDIDATE)
    return live


@pytest.fixture
def greedy(peopled: Db, app: Db) -> Db:
    """An application to which somebody granted ALL on the portal's tables and on all functions."""
    run(
        peopled,
        """grant usage on schema portal, rollbook to portal_app;
        grant all on all tables in schema portal to portal_app;
        grant execute on all functions in schema rollbook to portal_app;
        do $$ begin execute format('grant temporary on database %I to portal_app', current_database()); end $$""",
    )
    return app


def unharmed(db: Db) -> bool:
    """Say whether all copies are right, and nobody became a superuser anywhere."""
    nobody = value(db, "select count(*) from course_edx_full_6_002_spring_2012.auth_user where is_superuser") == 0
    return nobody and faults(db) == [] and held(db, REMOVE) == everybody(1, 2)


@pytest.mark.parametrize("table", ["student_testcenteruser", "student_testcenterregistration"])
def test_an_applications_trigger_on_a_table_that_rollbook_writes_has_no_right_on_copies(
    peopled: Db, greedy: Db, table: str
) -> None:
    run(greedy, FORGE, t=table)
    run(
        peopled,
        """insert into rollbook.exam (course_id, exam_series_code, name, display_name, first_appointment,
            last_appointment, registration_start, registration_end)
        values (%s, 'x1', 'x', 'x', now(), now() + '9 days', now() - interval '1 day', now() + interval '1 day')""",
        KEEP,
    )
    write: dict[str, LiteralString] = {
        "student_testcenteruser": "update portal.auth_user set email = 'new@example.org' where id = 1",
        "student_testcenterregistration": f"select rollbook.register_for_exam(1, '{KEEP}')",
    }
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(greedy, write[table])
    assert unharmed(peopled)


def test_such_a_trigger_reads_no_password_hash_and_no_key(peopled: Db) -> None:
    rights = run(
        peopled,
        """select c.relname::text, a.attname::text from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid
        where c.relnamespace = 'portal'::regnamespace and a.attname in ('password', 'activation_key')
            and has_column_privilege('rollbook_writer', c.oid, a.attnum, 'select')""",
    )
    assert rights == []


HANG: dict[str, LiteralString] = {
    "route_truncate": "after truncate on pg_temp.auth_user for each statement",
    "route_user_delete": "after delete on pg_temp.auth_user referencing old table as old_rows for each statement",
    "route_user_update": "after update on pg_temp.auth_user referencing old table as old_rows new table as new_rows "
    "for each statement",
    "route_profile_insert": "after insert on pg_temp.auth_user referencing new table as new_rows for each statement",
    "route_profile_update": "after update on pg_temp.auth_user referencing old table as old_rows "
    "new table as new_rows for each statement",
    "route_profile_delete": "after delete on pg_temp.auth_user referencing old table as old_rows for each statement",
    "route_enrollment_insert": "after insert on pg_temp.auth_user referencing new table as new_rows for each statement",
    "route_enrollment_update": "after update on pg_temp.auth_user referencing old table as old_rows "
    "new table as new_rows for each statement",
    "route_enrollment_delete": "after delete on pg_temp.auth_user referencing old table as old_rows for each statement",
    "hold_courses": "before delete on pg_temp.auth_user for each statement",
    "note_for_discussion": "before truncate on pg_temp.auth_user for each statement",
    "check_candidate": "before update on pg_temp.auth_user for each row",
    "check_authorization": "before update on pg_temp.auth_user for each row",
    **dict.fromkeys(
        ("check_account", "check_name", "check_email", "refuse_taken_username"),
        "before update on pg_temp.auth_user for each row",
    ),
}
FIRE: dict[str, LiteralString] = {
    "truncate": "truncate pg_temp.auth_user",
    "delete": "delete from pg_temp.auth_user",
    "update": "update pg_temp.auth_user set username = 'x'",
    "insert": "insert into pg_temp.auth_user values (2, 2, 'y', 'y')",
}


def test_every_definer_trigger_function_is_attacked(live: Db) -> None:
    assert {name for (name,) in run(live, """select proname::text from pg_proc where prosecdef
        and pronamespace = 'rollbook'::regnamespace and prorettype = 'trigger'::regtype""")} == set(HANG)  # fmt: skip


@pytest.mark.parametrize("function", list(HANG))
def test_a_trigger_function_refuses_to_run_on_a_table_of_somebody_else(peopled: Db, greedy: Db, function: str) -> None:
    run(greedy, "create temp table auth_user (id bigint, user_id bigint, username text, course_id text)")
    run(greedy, "insert into pg_temp.auth_user values (1, 1, 'ada', 'edX/toy/2012_Fall')")
    run(greedy, "create trigger t " + HANG[function] + " execute function rollbook.{f}()", f=function)
    event = HANG[function].split()[1]
    said = refused(greedy, "RB018", FIRE[event])
    assert "drop trigger t on" in str(said.message_hint)
    assert unharmed(peopled)


def test_a_trigger_function_refuses_a_second_trigger_on_the_portals_own_table(peopled: Db, greedy: Db) -> None:
    run(
        greedy,
        """create trigger aaa after update on portal.auth_user referencing old table as old_rows
        for each statement execute function rollbook.route_user_delete()""",
    )
    refused(greedy, "RB018", "update portal.auth_user set first_name = 'New' where id = 1")
    assert unharmed(peopled)


@pytest.mark.parametrize(
    "call",
    [
        "select rollbook.drop_course('edX/toy/2012_Fall', true)",
        "select rollbook.register_course('NEW/1', 'keep', null)",
        "select rollbook.fill_course('edX/toy/2012_Fall')",
        "select rollbook.create_course('NEW/1')",
    ],
)
def test_execute_on_all_functions_makes_and_drops_no_course(peopled: Db, greedy: Db, call: LiteralString) -> None:
    refused(greedy, "RB019", call)
    assert unharmed(peopled)
    assert value(peopled, "select count(*) from rollbook.course") == 2


def test_whoever_becomes_rollbook_owner_replaces_nothing_that_a_dba_calls(peopled: Db, dsn: str) -> None:
    attacks: list[LiteralString] = [
        "create function rollbook.extra() returns int language sql as 'select 1'",
        "create or replace function rollbook.replicated_columns(table_name text) returns text[] language sql immutable "
        "parallel safe as $$ select array['id'] $$",
        "create or replace view rollbook.course_status as select 1 as course_id",
        "alter table rollbook.course add column evil int default 1",
        "drop function rollbook.local_objects(text, boolean)",
        "create trigger t before insert on portal.auth_user for each row execute function rollbook.guard_copy()",
    ]
    for attack in attacks:
        with psycopg.connect(dsn, options="-c role=rollbook_owner") as thief:
            fails(thief, psycopg.errors.InsufficientPrivilege, attack)
    assert unharmed(peopled)


READS: list[LiteralString] = [
    "select * from rollbook.course_status", "select * from rollbook.enrollment_status",
    "select * from rollbook.registration_status", "select * from rollbook.email_change_status",
    "select * from rollbook.candidate_status", "select * from rollbook.slot_status",
    "select * from rollbook.verify()", "select * from rollbook.compare(null)", "select * from rollbook.user_copies(1)",
    "select id, username, email from portal.auth_user", "select * from rollbook.history",
    "select * from rollbook.server_route", "select * from public.rollbook_revision",
]  # fmt: skip
SECRETS: list[LiteralString] = [
    "select password from portal.auth_user", "select * from portal.auth_user",
    "select activation_key from portal.auth_registration",
    "select activation_key from portal.student_pendingemailchange",
    "select api_key from rollbook.discussion", "select admin_dsn from rollbook.server",
    "select subscription_dsn from rollbook.server", "select * from course_edx_toy_2012_fall.auth_user",
]  # fmt: skip
WRITES: list[LiteralString] = [
    "select rollbook.repair()", "select rollbook.beat()", "select rollbook.drop_course('edX/toy/2012_Fall', true)",
    "select rollbook.create_course('NEW/1')", "select rollbook.register_for_exam(1, 'edX/toy/2012_Fall')",
    "select rollbook.auto_enroll(1)", "select rollbook.change_email(1, 'x@example.org')",
    "update portal.auth_user set email = 'x@example.org'", "delete from rollbook.history",
    "insert into rollbook.history (os_user, command, object, outcome) values ('x', 'x', 'x', 'x')",
    "update rollbook.course set on_leave = 'remove'", "truncate portal.auth_user cascade",
]  # fmt: skip

Login = Callable[[str], Connection[Any]]


@pytest.fixture
def login(peopled: Db, dsn: str, request: pytest.FixtureRequest) -> Login:
    """Log in as a new member of one of Rollbook's roles."""

    def open_session(role: str) -> Connection[Any]:
        run(peopled, "do $$ begin create role somebody login; exception when duplicate_object then null; end $$")
        run(peopled, "grant {r} to somebody", r=role)
        conn = psycopg.connect(dsn, user="somebody", autocommit=True)
        request.addfinalizer(lambda: run(peopled, "revoke {r} from somebody", r=role))
        request.addfinalizer(conn.close)
        return conn

    return open_session


def test_a_monitor_reads_what_it_needs_no_secret_and_writes_nothing(peopled: Db, login: Login) -> None:
    monitor = login("rollbook_monitor")
    for query in READS:
        run(monitor, query)
    for query in [*SECRETS, *WRITES]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(monitor, query)
    assert unharmed(peopled)


def test_an_application_writes_rows_registers_students_and_no_more(peopled: Db, login: Login) -> None:
    site = login("rollbook_application")
    run(site, "update portal.auth_user set first_name = 'Ada' where id = 1")
    run(site, "insert into portal.auth_user (username) values ('eve')")
    run(site, "delete from portal.student_courseenrollment where user_id = 2")
    refused(site, "RB017", "select rollbook.register_for_exam(1, %s)", KEEP)
    for query in (
        "create trigger t before insert on portal.auth_user for each row execute function rollbook.guard_copy()",
        "truncate portal.auth_user cascade", "select * from rollbook.course_status", "select rollbook.repair()",
        "select * from course_edx_toy_2012_fall.auth_user", "select * from rollbook.history",
    "select * from rollbook.server_route", "select * from public.rollbook_revision",
        "create table public.mine (id bigint references portal.auth_user (id))",
    ):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(site, query)
    assert faults(peopled) == []


def test_an_operator_looks_after_people_and_makes_no_course(peopled: Db, login: Login) -> None:
    operator = login("rollbook_operator")
    run(operator, "select rollbook.change_email(1, 'other@example.org')")
    run(operator, "insert into rollbook.history (os_user, command, object, outcome) values ('x', 'x', 'x', 'changed')")
    assert value(operator, "select actor from rollbook.history") == "somebody/x"
    refused_to_it: list[LiteralString] = [
        "delete from rollbook.history", "update rollbook.history set role = 'x'",
        "insert into rollbook.history (role, os_user, command, object, outcome) values ('dba', 'x', 'x', 'x', 'x')",
        "insert into rollbook.exchange_file (direction, kind, name, os_user, role) values ('in', 'eac', 'x', 'x', 'x')",
        "update rollbook.exchange_file set os_user = 'x'", "delete from rollbook.exchange_file",
        "update rollbook.name_decision set decided_by = 'x'",
        "select rollbook.repair()", "select rollbook.repair_copies(null)",
        "select rollbook.withdraw_course('edX/toy/2012_Fall')", "select rollbook.release_course('edX/toy/2012_Fall')",
        "select admin_dsn from rollbook.server", "update rollbook.course set on_leave = 'remove'",
        "select * from course_edx_toy_2012_fall.auth_user", "truncate portal.auth_user cascade",
    ]  # fmt: skip
    for query in refused_to_it:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(operator, query)
    refused(operator, "RB019", "select rollbook.create_course('NEW/1')")
    for function in ("drop_course", "pause_course", "resume_course"):
        refused(operator, "RB019", "select rollbook.{f}(%s)", KEEP, f=function)
    assert faults(peopled) == []
