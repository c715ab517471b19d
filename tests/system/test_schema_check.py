"""What `schema check` finds: one test for each kind of fault, whose printed fix is run until the finding is gone.

It asks foreign_objects, which is made of copy_differences, foreign_rights, foreign_code, replica_settings,
missing_rights and sequences_behind, with copied_columns; `status` asks routing_fault.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import Connection

from rollbook.core.db import connect
from rollbook.system.queries import Difference
from rollbook.system.schema_check import differences
from tests.conftest import Cluster
from tests.program import KEEP, KEEP_SCHEMA, REMOVE_SCHEMA, postgres_program
from tests.school import Rollbook, populate

pytestmark = pytest.mark.slow  # `make check` runs it

A, B = KEEP_SCHEMA, REMOVE_SCHEMA


class Fault(NamedTuple):
    """An attack or an accident, and what `schema check` prints of it."""

    name: str
    statements: str
    object: str
    kind: str
    difference: str  # a part of it


# What a course's role owns in its own schema: a function of each shape that a table can call.
COURSE_CODE = f"""
grant usage, create on schema {A} to sc_course;
set role sc_course;
create function {A}.text_of(text) returns text immutable language plpgsql as $$ begin return $1; end $$;
create function {A}.is_good(text) returns boolean immutable language plpgsql as $$ begin return true; end $$;
create function {A}.is_like(text, text) returns boolean immutable language plpgsql as $$ begin return true; end $$;
create operator {A}.=== (leftarg = text, rightarg = text, function = {A}.is_like, commutator = operator({A}.===));
create domain {A}.word as varchar(20) check ({A}.is_good(value));
create domain {A}.short_word as {A}.word;
create domain {A}.plain as text;
create view {A}.answers as select {A}.is_good('x') as is_good;
create table {A}.mine (id bigint primary key, note text);
create function {A}.fires() returns trigger language plpgsql as $$ begin return coalesce(new, old); end $$;
create function {A}.on_ddl() returns event_trigger language plpgsql as $$ begin return; end $$;
create type {A}.letter as enum ('a');
create function {A}.as_bigint({A}.letter) returns bigint language plpgsql as $$ begin return 1; end $$;
create cast ({A}.letter as bigint) with function {A}.as_bigint({A}.letter) as implicit;
reset role;
"""
OWNED = "which sc_course owns, as rollbook_owner"

GRANTS = [
    Fault(
        "K1 all on the portal's tables",
        "grant usage on schema portal to sc_app; grant all on all tables in schema portal to sc_app",
        "portal.student_testcenteruser",
        "grant",
        "sc_app may add triggers",
    ),
    Fault(
        "trigger alone, to PUBLIC",
        "grant trigger on portal.student_testcenterregistration to public",
        "portal.student_testcenterregistration",
        "grant",
        "PUBLIC may add triggers",
    ),
    Fault(
        "trigger on a table of Rollbook's",
        "grant trigger on rollbook.route to sc_app",
        "rollbook.route",
        "grant",
        "sc_app may add triggers",
    ),
    Fault(
        "all on a copy", f"grant all on {A}.auth_user to sc_app", f"{A}.auth_user", "grant", "sc_app may add triggers"
    ),
    Fault(
        "K2 references on a copy",
        f"grant references on {A}.auth_user to sc_course",
        f"{A}.auth_user",
        "grant",
        "sc_course may reference it",
    ),
    Fault(
        "references on one column",
        f"grant references (id) on {A}.auth_user to sc_course",
        f"{A}.auth_user",
        "grant",
        "sc_course may reference it",
    ),
    Fault(
        "references on a portal column, to PUBLIC",
        "grant references (id) on portal.auth_user to public",
        "portal.auth_user",
        "grant",
        "PUBLIC may reference it",
    ),
    Fault(
        "trigger passed on by another grantee",
        f"grant usage on schema {A} to sc_course; grant trigger on {A}.auth_user to sc_course with grant "
        "option; set role sc_course; "
        f"grant trigger on {A}.auth_user to sc_app; reset role",
        f"{A}.auth_user",
        "grant",
        "sc_app may add triggers",
    ),
    Fault(
        "trigger by default on copies to come",
        "alter default privileges for role rollbook_owner grant all on tables to sc_app",
        "every schema",
        "default privileges",
        "sc_app will get",
    ),
    Fault(
        "K4 a trigger function",
        "grant execute on function rollbook.route_truncate() to sc_app",
        "rollbook.route_truncate()",
        "grant",
        "sc_app may execute it",
    ),
    Fault(
        "a trigger function, to a role of Rollbook's",
        "grant execute on function rollbook.route_user_delete() to rollbook_monitor",
        "rollbook.route_user_delete()",
        "grant",
        "rollbook_monitor may execute it",
    ),
    Fault(
        "a function that writes",
        "grant execute on function rollbook.beat() to sc_app",
        "rollbook.beat()",
        "grant",
        "sc_app may execute it",
    ),
    Fault(
        "K3 create on Rollbook's schema",
        "grant create on schema rollbook to rollbook_owner",
        "rollbook",
        "grant",
        "rollbook_owner may create objects in it",
    ),
]

CODE = [
    Fault(
        "H1 a default",
        f"alter table {A}.auth_user add note text default {A}.text_of('x')",
        f"note on {A}.auth_user",
        "default",
        f"runs {A}.text_of(text), {OWNED}",
    ),
    Fault(
        "H1 a generated column",
        f"alter table {A}.auth_user add note text generated always as ({A}.text_of(username)) stored",
        f"note on {A}.auth_user",
        "generated column",
        OWNED,
    ),
    Fault(
        "H1 a check on a copied column",
        f"alter table {A}.auth_user add constraint c check ({A}.is_good(username))",
        f"c on {A}.auth_user",
        "constraint",
        OWNED,
    ),
    Fault(
        "a check by an operator",
        f"alter table {A}.auth_user add constraint c check (username operator({A}.===) username)",
        f"c on {A}.auth_user",
        "constraint",
        f"runs {A}.is_like(text,text), {OWNED}",
    ),
    Fault(
        "H1 a domain",
        f"alter table {A}.auth_user add note {A}.word",
        f"note on {A}.auth_user",
        "column type",
        f"runs {A}.is_good(text), ",
    ),
    Fault(
        "a domain over a domain",
        f"alter table {A}.auth_userprofile add note {A}.short_word",
        f"note on {A}.auth_userprofile",
        "column type",
        f"runs {A}.is_good(text), ",
    ),
    Fault(
        "a domain that may get a check later",
        f"alter table {A}.auth_user add note {A}.plain",
        f"note on {A}.auth_user",
        "column type",
        f"uses domain {A}.plain, to which sc_course may add checks",
    ),
    Fault(
        "an array of a domain",
        f"alter table {A}.auth_user add note {A}.word[]",
        f"note on {A}.auth_user",
        "column type",
        f"runs {A}.is_good(text), ",
    ),
    Fault(
        "H1 an index on an expression",
        f"create index i on {A}.auth_user ({A}.text_of(username))",
        f"{A}.i on {A}.auth_user",
        "index",
        OWNED,
    ),
    Fault(
        "a partial index",
        f"create index i on {A}.auth_user (id) where {A}.is_good(username)",
        f"{A}.i on {A}.auth_user",
        "index",
        OWNED,
    ),
    Fault(
        "statistics",
        f"create statistics {A}.s on id, ({A}.text_of(username)) from {A}.auth_user",
        f"{A}.s on {A}.auth_user",
        "statistics",
        OWNED,
    ),
    Fault(
        "a trigger on a copy",
        f"create trigger t after update on {A}.auth_user for each row execute function {A}.fires()",
        f"t on {A}.auth_user",
        "trigger",
        OWNED,
    ),
    Fault(
        "the condition of a trigger",
        f"create trigger t after update on {A}.auth_user for each row when ({A}.is_good(new.username)) "
        "execute function suppress_redundant_updates_trigger()",
        f"t on {A}.auth_user",
        "trigger",
        OWNED,
    ),
    Fault(
        "K1 a trigger on a table that rollbook_writer writes",
        f"create trigger t before update on portal.student_testcenteruser for each row execute function {A}.fires()",
        "t on portal.student_testcenteruser",
        "trigger",
        "as rollbook_writer",
    ),
    Fault(
        "a trigger on a table of Rollbook's",
        f"create trigger t after update on rollbook.route for each row execute function {A}.fires()",
        "t on rollbook.route",
        "trigger",
        OWNED,
    ),
    Fault(
        "a rule",
        f"create rule r as on update to {A}.auth_user do also select {A}.is_good('x')",
        f"r on {A}.auth_user",
        "rule",
        OWNED,
    ),
    Fault(
        "M5 a policy on a portal table",
        f"create policy p on portal.auth_user using ({A}.is_good(username))",
        "p on portal.auth_user",
        "policy",
        f"runs {A}.is_good(text), ",
    ),
    Fault(
        "a policy through a view",
        f"create policy p on portal.auth_user using (exists (select from {A}.answers where is_good))",
        "p on portal.auth_user",
        "policy",
        f"reads {A}.answers, ",
    ),
    Fault(
        "a policy that reads another's table",
        f"create policy p on portal.auth_user using (exists (select from {A}.mine))",
        "p on portal.auth_user",
        "policy",
        f"reads {A}.mine, ",
    ),
    Fault(
        "an event trigger",
        f"create event trigger e on ddl_command_end execute function {A}.on_ddl()",
        "e",
        "event trigger",
        "as whoever makes courses",
    ),
    Fault(
        "an exclusion constraint",
        f"alter table {A}.auth_user add constraint x exclude using btree (id with =) where ({A}.is_good(username))",
        f"x on {A}.auth_user",
        "constraint",
        OWNED,
    ),
    Fault(
        "K2 a foreign key with a cast of its own",
        f"grant references on {A}.auth_user to sc_course; set role sc_course; "
        f"create table {A}.note (u {A}.letter references {A}.auth_user (id)); reset role; revoke "
        f"references on {A}.auth_user from sc_course",
        f"note_u_fkey on {A}.note",
        "foreign key",
        f"column u is of type {A}.letter",
    ),
    Fault(
        "a foreign key of a table that a course's role owns",
        f"create table {A}.note (u bigint constraint k references {A}.auth_user); alter table {A}.note "
        "owner to sc_course",
        f"k on {A}.note",
        "foreign key",
        "sc_course owns the other table",
    ),
    Fault(
        "such a cast towards the portal",
        f"create table {A}.note (u {A}.letter constraint k references portal.auth_user (id))",
        f"k on {A}.note",
        "foreign key",
        "its check runs as the owner of portal.auth_user",
    ),
    Fault(
        "a trigger behind a cascade",
        f"create table {A}.note (u bigint references {A}.auth_user on delete cascade); "
        f"create trigger t after delete on {A}.note for each row execute function {A}.fires()",
        f"t on {A}.note",
        "trigger",
        OWNED,
    ),
]

COPIES = [
    Fault(
        "H6 the owner of a copy",
        f"alter table {A}.auth_user owner to sc_course",
        f"{A}.auth_user",
        "copy",
        "owned by sc_course, not by rollbook_owner",
    ),
    Fault("the owner of a schema", f"alter schema {A} owner to sc_course", A, "schema", "owned by sc_course"),
    Fault(
        "a replica identity of all columns",
        f"alter table {A}.auth_user replica identity full",
        f"{A}.auth_user",
        "copy",
        "replica identity",
    ),
    Fault(
        "no replica identity",
        f"alter table {A}.student_courseenrollment replica identity nothing",
        f"{A}.student_courseenrollment",
        "copy",
        "replica identity",
    ),
    Fault(
        "no primary key",
        f"alter table {A}.auth_user drop constraint auth_user_pkey",
        f"{A}.auth_user",
        "copy",
        "the primary key is not id",
    ),
    Fault(
        "another primary key",
        f"alter table {A}.auth_userprofile drop constraint auth_userprofile_pkey, add primary key (user_id)",
        f"{A}.auth_userprofile",
        "copy",
        "the primary key is not id",
    ),
    Fault(
        "another type",
        f"alter table {A}.auth_user alter email type text",
        f"{A}.auth_user",
        "copy",
        "column email is text, in the portal it is character varying(254)",
    ),
    Fault(
        "another collation",
        f'alter table {A}.auth_user alter username type varchar(150) collate "C"',
        f"{A}.auth_user",
        "copy",
        'column username is character varying(150) collate "C"',
    ),
    Fault(
        "a missing column",
        f"alter table {A}.auth_userprofile drop column goals cascade",
        f"{A}.auth_userprofile",
        "copy",
        "lacks goals",
    ),
    Fault(
        "the guard for replicas only",
        f"alter table {A}.auth_user enable replica trigger rollbook_guard_copy",
        f"{A}.auth_user",
        "copy",
        "the guard",
    ),
    Fault(
        "a guard that compares less",
        f"create or replace trigger rollbook_guard_copy_update after update on {A}.auth_user for each row "
        "when (current_user <> 'rollbook_owner'::text) execute function rollbook.guard_copy('id')",
        f"{A}.auth_user",
        "copy",
        "the guard",
    ),
    Fault(
        "forced row security",
        f"alter table {A}.auth_user enable row level security, force row level security",
        f"{A}.auth_user",
        "copy",
        "bypassing the guard: forced row security",
    ),
    Fault(
        "a rule that bypasses the guard",
        f"create rule r as on delete to {A}.auth_user do instead nothing",
        f"{A}.auth_user",
        "copy",
        "bypassing the guard: rule r",
    ),
    Fault(
        "a trigger whose name looks like the condition of one that is fine",
        f"""create trigger "x WHEN ((CURRENT_USER <> 'rollbook_owner'::name)) EXECUTE" before update """
        f"on {A}.auth_user for each row execute function suppress_redundant_updates_trigger()",
        f"{A}.auth_user",
        "copy",
        "bypassing the guard: trigger",
    ),
    Fault(
        "a parent",
        f"create table public.parent (id bigint not null); alter table {A}.auth_user inherit public.parent",
        f"{A}.auth_user",
        "copy",
        "bypassing the guard: parent table public.parent",
    ),
]

PORTAL = [
    Fault(
        "M5 a restrictive policy",
        "create policy p on portal.auth_user as restrictive using (id <> 42)",
        "p on portal.auth_user",
        "policy",
        "restrictive",
    ),
    Fault(
        "a restrictive policy for rollbook_owner",
        "create policy p on portal.auth_userprofile as restrictive for select to rollbook_owner using (id <> 42)",
        "p on portal.auth_userprofile",
        "policy",
        "restrictive",
    ),
    Fault(
        "row security without our policy",
        "drop policy rollbook_reads on portal.auth_user; alter table portal.auth_user enable row level security",
        "portal.auth_user",
        "table",
        "row security is on, and no policy shows every row to rollbook_owner",
    ),
    Fault(
        "row security on routes",
        "alter table rollbook.route enable row level security",
        "rollbook.route",
        "table",
        "row security is on",
    ),
    Fault(
        "L5 an inheritance child",
        "create table public.child () inherits (portal.auth_user)",
        "portal.auth_user",
        "table",
        "public.child inherits from it",
    ),
    Fault(
        "the owner of a portal table",
        "alter table portal.auth_user owner to sc_app",
        "portal.auth_user",
        "table",
        "owned by sc_app",
    ),
    Fault(
        "the owner of a view",
        "alter view rollbook.course_status owner to sc_app",
        "rollbook.course_status",
        "view",
        "owned by sc_app",
    ),
    Fault(
        "M5 a renamed column",
        "alter table portal.auth_user rename email to mail",
        "portal.auth_user.email",
        "column",
        "is renamed to mail",
    ),
    Fault(
        "a column that is gone",
        "alter table portal.auth_userprofile drop goals",
        "portal.auth_userprofile.goals",
        "column",
        "is gone",
    ),
    Fault(
        "another type",
        "alter table portal.auth_userprofile alter mailing_address type varchar(10)",
        "portal.auth_userprofile.mailing_address",
        "column",
        "is character varying(10), not text",
    ),
    Fault(
        "nulls",
        "alter table portal.auth_user alter password drop not null",
        "portal.auth_user.password",
        "column",
        "may be null",
    ),
    Fault(
        "no default",
        "alter table portal.auth_user alter password drop default",
        "portal.auth_user.password",
        "column",
        "has the default None",
    ),
    Fault(
        "no identity",
        "alter table portal.auth_userprofile alter id drop identity",
        "portal.auth_userprofile.id",
        "column",
        "has no identity",
    ),
    Fault(
        "a check that is gone",
        "alter table portal.auth_user drop constraint auth_user_username_check",
        "auth_user_username_check on portal.auth_user",
        "constraint",
        "is missing",
    ),
    Fault(
        "another check",
        "alter table portal.auth_user drop constraint auth_user_email_check, add constraint "
        "auth_user_email_check check (true)",
        "auth_user_email_check on portal.auth_user",
        "constraint",
        "is not the one shipped",
    ),
    Fault(
        "a foreign key that is gone",
        "alter table portal.student_courseenrollment drop constraint student_courseenrollment_user_id_fkey",
        "student_courseenrollment_user_id_fkey on portal.student_courseenrollment",
        "constraint",
        "is missing",
    ),
    Fault(
        "a key that is gone",
        "alter table portal.student_courseenrollment drop constraint student_courseenrollment_user_id_course_id_key",
        "student_courseenrollment_user_id_course_id_key on portal.student_courseenrollment",
        "constraint",
        "is missing",
    ),
    Fault(
        "an index that is gone",
        "drop index portal.auth_user_email_key",
        "auth_user_email_key on portal.auth_user",
        "index",
        "is missing",
    ),
    Fault(
        "foreign keys switched off",
        "alter table portal.student_courseenrollment disable trigger all",
        "portal.student_courseenrollment",
        "table",
        "foreign keys are switched off",
    ),
    Fault(
        "field case 14: ids loaded",
        "insert into portal.auth_user (id, username) values (2000, 'loaded')",
        "portal.auth_user_id_seq",
        "sequence",
        "portal.auth_user has 2000 already",
    ),
    Fault(
        "a sequence of Rollbook's",
        "insert into rollbook.history (id, os_user, command, object, outcome) overriding system value "
        "values (2000, 'x', 'x', 'x', 'x')",
        "rollbook.history_id_seq",
        "sequence",
        "rollbook.history has 2000 already",
    ),
    Fault(
        "M1 a role that writes as a replica",
        "alter role sc_app set session_replication_role = replica",
        "role sc_app",
        "setting",
        "session_replication_role = replica",
    ),
    Fault(
        "a role in this database",
        "do $$ begin execute format('alter role sc_app in database %I set session_replication_role to "
        "replica', current_database()); end $$",
        "role sc_app",
        "setting",
        "session_replication_role = replica",
    ),
    Fault(
        "field case 16: a right of rollbook_owner",
        "revoke usage on schema portal from rollbook_owner",
        "rollbook_owner",
        "role",
        "lacks USAGE on schema portal",
    ),
    Fault(
        "a right on a table",
        "revoke select on portal.auth_userprofile from rollbook_owner",
        "rollbook_owner",
        "role",
        "lacks SELECT on portal.auth_userprofile",
    ),
    Fault(
        "a right of rollbook_writer",
        "revoke update on portal.student_testcenteruser from rollbook_writer; "
        "revoke update (user_updated_at, updated_at, upload_status) on portal.student_testcenteruser from "
        "rollbook_writer",
        "rollbook_writer",
        "role",
        "lacks UPDATE on columns of portal.student_testcenteruser",
    ),
]

SHIPPED = [
    Fault(
        "another body",
        "create or replace function rollbook.guard_copy() returns trigger language plpgsql set "
        "search_path = pg_catalog, pg_temp as 'begin return null; end'",
        "rollbook.guard_copy",
        "function",
        "the body is not the one shipped",
    ),
    Fault(
        "a function that is gone",
        "drop function rollbook.stray_routes(rollbook.course, bigint[])",
        "rollbook.stray_routes",
        "function",
        "missing",
    ),
    Fault(
        "a function of somebody else",
        "create function rollbook.verify(bigint) returns int language sql as 'select 1'",
        "rollbook.verify",
        "function",
        "not shipped",
    ),
    Fault(
        "invoker",
        "alter function rollbook.route_user_update() security invoker",
        "rollbook.route_user_update",
        "function",
        "SECURITY DEFINER",
    ),
    Fault(
        "the owner of a function",
        "alter function rollbook.route_user_update() owner to sc_app",
        "rollbook.route_user_update",
        "function",
        "owned by sc_app",
    ),
    Fault(
        "a search_path",
        "alter function rollbook.route_user_update() reset search_path",
        "rollbook.route_user_update",
        "function",
        "search_path",
    ),
    Fault(
        "PUBLIC", "grant execute on function rollbook.verify(text) to public", "rollbook.verify", "function", "PUBLIC"
    ),
    Fault(
        "a trigger that is gone",
        "drop trigger rollbook_route_user_delete on portal.auth_user",
        "rollbook_route_user_delete on portal.auth_user",
        "trigger",
        "missing",
    ),
    Fault(
        "a disabled trigger",
        "alter table portal.auth_user disable trigger rollbook_route_user_update",
        "rollbook_route_user_update on portal.auth_user",
        "trigger",
        "disabled",
    ),
    Fault(
        "a trigger for replicas",
        "alter table portal.auth_user enable replica trigger rollbook_hold_courses",
        "rollbook_hold_courses on portal.auth_user",
        "trigger",
        "replicas",
    ),
    Fault(
        "another trigger",
        "create or replace trigger rollbook_hold_courses before delete on portal.auth_user for each "
        "statement when (false) execute function rollbook.hold_courses()",
        "rollbook_hold_courses on portal.auth_user",
        "trigger",
        "the definition",
    ),
    Fault(
        "a view that is gone", "drop view rollbook.enrollment_status", "rollbook.enrollment_status", "view", "missing"
    ),
    Fault(
        "an attribute of rollbook_writer",
        "alter role rollbook_writer createdb",
        "rollbook_writer",
        "role",
        "has CREATEDB",
    ),
]


@pytest.fixture
def peopled(db: Connection[Any]) -> Connection[Any]:
    """Two courses with students, and two roles that own nothing."""
    populate(db)
    for role in ("sc_app", "sc_course"):
        db.execute(f"do $$ begin create role {role}; exception when duplicate_object then null; end $$")
    db.execute("select setval(s.seqrelid, 1000) from pg_sequence as s")
    return db


def check(dsn: str) -> list[Difference]:
    """What `schema check` finds."""
    with connect(dsn, name="test") as conn:
        return differences(conn)


def follow(fix: str, dsn: str, rollbook: Rollbook) -> None:
    """Do what a printed fix says: in the program, or in psql."""
    if fix.startswith("rollbook "):
        answer = rollbook(*shlex.split(fix)[1:])
        assert answer.code == 0, answer.err
        return
    done = subprocess.run(
        [postgres_program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn],
        input=fix + "\n", text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "ERROR" in done.stderr) == (0, False), (fix, done.stderr)


def is_found(fault: Fault, found: list[Difference]) -> Difference | None:
    """Return the finding of a fault, None if there is none."""
    return next(
        (each for each in found
         if (each.object, each.kind) == (fault.object, fault.kind) and fault.difference in each.difference),
        None,
    )  # fmt: skip


@pytest.mark.parametrize("fault", [*GRANTS, *CODE, *COPIES, *PORTAL, *SHIPPED], ids=lambda fault: fault.name)
def test_a_fault_is_found_and_its_printed_fix_works(
    peopled: Connection[Any], dsn: str, rollbook: Rollbook, fault: Fault
) -> None:
    try:
        if fault in CODE:
            peopled.execute(COURSE_CODE.encode())
        peopled.execute(fault.statements.encode())
        finding = is_found(fault, check(dsn))
        assert finding is not None, check(dsn)
        assert finding.fix is not None
        follow(finding.fix, dsn, rollbook)
        assert is_found(fault, check(dsn)) is None
    finally:
        peopled.execute("alter role rollbook_writer nocreatedb; alter role sc_app reset all")
        peopled.execute("drop event trigger if exists e")


def test_a_database_with_harmless_additions_has_no_finding(peopled: Connection[Any], dsn: str) -> None:
    peopled.execute(COURSE_CODE.encode())  # no fault, as nothing of ours calls it
    peopled.execute(
        f"""grant usage, create on schema {A} to sc_course; grant select on all tables in schema {A} to sc_course;
        grant select, insert, update, delete on all tables in schema portal to sc_app;
        alter table {A}.auth_user add grade numeric default 0, add seen timestamptz default now(),
            add initials text generated always as (left(first_name, 1)) stored,
            add constraint grade_is_positive check (grade >= 0);
        create index on {A}.auth_user (lower(username)) where is_active;
        create statistics {A}.names on first_name, last_name from {A}.auth_user;
        alter table {A}.auth_userprofile add foreign key (user_id) references {A}.auth_user;
        create table {A}.grade (id bigserial primary key, user_id bigint references {A}.auth_user on delete cascade);
        create domain {A}.percent as integer check (value between 0 and 100);
        alter table {A}.student_courseenrollment add percent {A}.percent;
        set role sc_course; create table {A}.note (id int, words text default upper('x')); reset role;
        create index on portal.auth_user (date_joined); alter table portal.auth_user add nickname text;
        create function public.audit() returns trigger language plpgsql as 'begin return new; end';
        create trigger audit after update on portal.auth_user for each row execute function public.audit();
        create policy everybody on portal.auth_user using (true)"""
    )
    assert check(dsn) == []


def test_names_that_need_quotes_are_quoted(peopled: Connection[Any], dsn: str, rollbook: Rollbook) -> None:
    peopled.execute('do $$ begin create role "o\'Brien; x"; exception when duplicate_object then null; end $$')
    peopled.execute(f'grant all on {A}.auth_user to "o\'Brien; x"')
    peopled.execute(f'create rule "a rule; drop" as on delete to {A}.auth_user do instead nothing')
    found = check(dsn)
    assert len(found) == 2
    for finding in found:
        follow(str(finding.fix), dsn, rollbook)
    assert check(dsn) == []


def test_members_of_rollbook_owner_are_named_and_are_no_fault(peopled: Connection[Any], rollbook: Rollbook) -> None:
    peopled.execute("grant rollbook_owner to sc_app")
    try:
        answer = rollbook("schema", "check", "--json")
        assert (answer.code, answer.data, "sc_app" in answer.err) == (0, [], True)
    finally:
        peopled.execute("revoke rollbook_owner from sc_app")


def test_a_course_whose_schema_is_gone_has_a_command_that_makes_it_anew(peopled: Connection[Any], dsn: str) -> None:
    peopled.execute(f"drop schema {A} cascade")
    assert check(dsn) == [Difference(A, "schema", "is gone", f"rollbook replication repair '{KEEP}'")]


# --- the cheap look of `status` ---------------------------------------------------------------------------------------

OFF = [
    ("field case 10", "alter table portal.auth_user disable trigger user", "is disabled"),
    (
        "a trigger for replicas",
        "alter table portal.student_courseenrollment enable replica trigger rollbook_route_enrollment_insert",
        "is enabled for replicas",
    ),
    ("a trigger that is gone", "drop trigger rollbook_route_profile_update on portal.auth_userprofile", "is missing"),
    (
        "a trigger that never fires",
        "create or replace trigger rollbook_route_user_delete after delete on portal.auth_user "
        "referencing old table as old_rows for each statement when (false) execute function "
        "rollbook.route_user_delete()",
        "is not the one shipped",
    ),
    (
        "another function",
        "create function public.nothing() returns trigger language plpgsql as 'begin return null; end'; "
        "create or replace trigger rollbook_hold_courses before delete on portal.auth_user for each "
        "statement execute function public.nothing()",
        "is not the one shipped",
    ),
    ("invoker", "alter function rollbook.route_user_update() security invoker", "is not SECURITY DEFINER"),
    ("another owner", "alter function rollbook.route_user_update() owner to sc_app", "owned by sc_app"),
    ("a search_path", "alter function rollbook.route_user_update() reset search_path", "search_path"),
    (
        "a role that writes as a replica",
        "alter role sc_app set session_replication_role = replica",
        "session_replication_role",
    ),
    ("field case 16", "revoke usage on schema portal from rollbook_owner", "lacks USAGE"),
    ("a renamed column", "alter table portal.auth_userprofile rename goals to goalz", "lacks goals"),
    ("a dropped column", "alter table portal.auth_user drop column last_login", "lacks last_login"),
]


@pytest.mark.parametrize(("statement", "words"), [pytest.param(*each[1:], id=each[0]) for each in OFF])
def test_nothing_is_ok_while_routing_is_off(
    peopled: Connection[Any], dsn: str, rollbook: Rollbook, statement: str, words: str
) -> None:
    assert rollbook("status").code == 0
    peopled.execute(statement.encode())
    try:
        answer = rollbook("status", "--json")
        faults = answer.data["portal"]["faults"]
        assert answer.code == 4
        assert any(words in fault["difference"] and fault["course"] is None for fault in faults), faults
        assert {row["state"] for row in answer.data["courses"]} == {"unknown"}
        assert {row["state"] for row in rollbook("replication", "status", "--json").data} == {"unknown"}
        assert {row["fix"][-30:] for row in answer.data["courses"]} == {"; then: rollbook replication repair"[-30:]}
        screen = rollbook("status", "--format", "table").out
        assert "routing is off" in screen
        assert words in screen
        if words.startswith("lacks") and words != "lacks USAGE":
            fault = next(f"table {fault['object']}: {fault['difference']}" for fault in faults)
            for command in (
                ("user", "update", "bob", "--first-name", "Rob", "--goals", "to learn"),
                ("user", "show", "bob"),
            ):
                told = rollbook(*command)
                assert (told.code, fault in told.err, "fix:   rollbook schema check" in told.err) == (1, True, True), (
                    told
                )
        while faults:
            fixes = {fault["fix"] for fault in faults if fault["fix"] != "rollbook schema check"}
            for fix in fixes or {str(finding.fix) for finding in check(dsn)}:
                follow(fix, dsn, rollbook)
            faults = rollbook("status", "--json").data["portal"]["faults"]
        assert rollbook("status").code == 0
    finally:
        peopled.execute("alter role sc_app reset all")


def test_status_names_sequences_whose_next_id_is_taken_to_a_monitor_too(
    peopled: Connection[Any], dsn: str, rollbook: Rollbook
) -> None:
    peopled.execute(
        "do $$ begin create role sc_monitor login; exception when duplicate_object then null; end $$;"
        "grant rollbook_monitor to sc_monitor;"
        "select setval(rollbook.portal_table('auth_user')::text || '_id_seq', 100);"
        "select setval(rollbook.portal_table('auth_userprofile')::text || '_id_seq', 1);"
        "alter sequence rollbook.history_id_seq as smallint maxvalue 1000"
    )
    assert len([finding for finding in check(dsn) if finding.kind == "sequence"]) == 3
    for where in (dsn, dsn.replace("user=postgres", "user=sc_monitor")):
        answer = rollbook("status", "--json", dsn=where)
        faults = answer.data["portal"]["faults"]
        assert (answer.code, [fault["difference"][:12] for fault in faults]) == (4, ["gives 101 ne", "gives no num"])
        assert {row["state"] for row in answer.data["courses"]} == {"ok"}, "they are copied as before"
        assert "inserts fail:\n" in rollbook("status", "--format", "table", dsn=where).out
    for fault in faults:
        follow(fault["fix"], dsn, rollbook)
    assert rollbook("status").code == 0
    assert rollbook("user", "create", "dora", "--email", "dora@school.example", "--name", "Dora D").code == 0
    assert [finding.object for finding in check(dsn)] == ["portal.auth_userprofile_id_seq"]


def test_verify_says_why_copies_cannot_be_compared(peopled: Connection[Any], rollbook: Rollbook) -> None:
    peopled.execute("update rollbook.course set on_leave = 'remove'")
    for harm, words in (
        (f"drop schema {A} cascade; drop schema {B} cascade", f"{KEEP}: schema {A} is gone"),
        (f"alter table {A}.auth_user rename to users", f"{KEEP}: table {A}.auth_user is gone"),
        (f"alter table {A}.auth_user drop column email cascade", f"{KEEP}: {A}.auth_user lacks email"),
    ):
        peopled.execute(harm.encode())
        answer = rollbook("replication", "verify")
        fix = f"rollbook replication repair '{KEEP}'"
        assert (answer.code, f"{words}; to restore it: {fix}" in answer.err) == (3, True), answer.err
        assert rollbook("replication", "repair", "--yes").code == 0
        assert (rollbook("replication", "verify").code, rollbook("status").code) == (0, 0)
    assert peopled.execute("select distinct on_leave from rollbook.course").fetchall() == [("remove",)]


@pytest.mark.parametrize(
    ("statement", "state", "words"),
    [
        (f"drop schema {A} cascade", "broken", "is gone"),
        (f"drop table {A}.auth_userprofile", "broken", "is gone"),
        (f"alter table {A}.auth_user owner to sc_course", "broken", "is not owned by rollbook_owner"),
        (f"alter schema {A} owner to sc_course", "broken", "is not owned by rollbook_owner"),
        (f"alter table {A}.auth_user disable trigger rollbook_guard_copy", "unknown", "the copy may be written"),
    ],
)
def test_status_names_the_course_whose_copies_are_not_safe(
    peopled: Connection[Any], rollbook: Rollbook, statement: str, state: str, words: str
) -> None:
    peopled.execute(statement.encode())
    answer = rollbook("status", "--json")
    course = {row["course"]: row for row in answer.data["courses"]}[KEEP]
    assert (answer.code, course["state"]) == (4, state)
    assert course["reason"]
    assert course["fix"]
    assert [fault["course"] for fault in answer.data["portal"]["faults"]] == [KEEP]
    assert words in answer.data["portal"]["faults"][0]["difference"]
    assert [row["state"] for row in answer.data["courses"] if row["course"] != KEEP] == ["ok"]


def test_routing_fault_knows_every_trigger_that_ships(db: Connection[Any]) -> None:
    db.execute("alter table portal.auth_user disable trigger user")
    db.execute("alter table portal.auth_userprofile disable trigger user")
    db.execute("alter table portal.student_courseenrollment disable trigger user")
    known = {row[0] for row in db.execute("select object from rollbook.routing_fault()")}
    assert known == {row[0] for row in db.execute(
        """select format('%s on %s', t.tgname, t.tgrelid::regclass) from pg_trigger as t
        where not t.tgisinternal and t.tgname like 'rollbook%' and t.tgrelid in
            ('portal.auth_user'::regclass, 'portal.auth_userprofile'::regclass,
             'portal.student_courseenrollment'::regclass)"""
    )}  # fmt: skip


# --- schema grant -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--no-privileges"], ["--no-owner"], ["--no-privileges", "--no-owner"]])
def test_schema_grant_makes_a_restore_without_owners_and_rights_whole(
    peopled: Connection[Any], dsn: str, cluster: Cluster, rollbook: Rollbook, tmp_path: Path, options: list[str]
) -> None:
    peopled.execute(
        "do $$ begin create role sc_admin superuser login; exception when duplicate_object then null; end $$"
    )
    dump = tmp_path / "dump"
    subprocess.run([postgres_program("pg_dump"), "-Fc", "-f", str(dump), "-d", dsn], check=True)
    peopled.execute("create database sc_restored template template0")
    try:
        restored = cluster.server.dsn("sc_restored")
        subprocess.run(
            [postgres_program("pg_restore"), *options, "-U", "sc_admin", "-d", restored, str(dump)], check=True
        )
        with psycopg.connect(restored, autocommit=True) as conn:
            with pytest.raises(psycopg.Error):
                conn.execute("update portal.auth_user set first_name = 'X' where id = 101")
            assert check(restored) != []
            assert rollbook("status", dsn=restored).code == 4
            assert rollbook("schema", "grant", dsn=restored).code == 0
            assert check(restored) == []
            assert rollbook("status", dsn=restored).code == 0
            conn.execute("update portal.auth_user set first_name = 'X' where id = 101")
            assert conn.execute(f"select first_name from {A}.auth_user where id = 101").fetchone() == ("X",)
    finally:
        peopled.execute("drop database sc_restored with (force)")


def test_schema_grant_dry_run_prints_the_sql(rollbook: Rollbook) -> None:
    answer = rollbook("schema", "grant", "--dry-run")
    assert (answer.code, "grant usage on schema portal, rollbook" in answer.out) == (0, True)
