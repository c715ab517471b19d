"""sql/triggers/guard_copy.sql: only the routing changes a copy; columns that a course added are free.

guard_statements creates the trigger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection

from tests.sql.helpers import (
    COLUMNS,
    KEEP,
    REMOVE,
    TABLES,
    USER,
    Db,
    add_user,
    enroll,
    faults,
    leave,
    refused,
    run,
    schema,
    select,
    value,
    versions,
)

# A value of each type, to be written where the guard must not let it.
VALUES = {"is_staff": True, "is_active": False, "is_superuser": True, "last_login": "now", "date_joined": "now"}
NUMBERS = {"id": 7, "user_id": 7, "year_of_birth": 7, "created": "now"}
WRITES: list[LiteralString] = [
    "insert into {c}.{t} select * from {c}.{t}",
    "insert into {c}.{t} select * from {c}.{t} where false",
    "insert into {c}.{t} select * from {c}.{t} on conflict do nothing",
    "insert into {c}.{t} select * from {c}.{t} on conflict (id) do update set mentor = 'x'",
    "insert into {c}.{t} (mentor) values ('x')",
    "update {c}.{t} set id = -id",
    "update {c}.{t} set mentor = 'x', id = -id",
    "delete from {c}.{t}",
    "delete from {c}.{t} where false",
    "truncate {c}.{t}",
    "truncate {c}.{t} cascade",
    "merge into {c}.{t} c using (values (1)) s on true when matched then delete",
    "merge into {c}.{t} c using (values (1)) s on true when matched then update set id = -c.id",
    "merge into {c}.{t} c using (values (1)) s on false when not matched then insert (id) values (1)",
    "merge into {c}.{t} c using (values (1)) s on true when matched then update set mentor = 'x' "
    "when not matched then insert (mentor) values ('x')",
    "with w as (delete from {c}.{t} returning id) select * from w",
]


@pytest.fixture
def course(live: Db) -> Db:
    """Two users in both courses; in the keep course every copy has a local column, and there is a local table."""
    for name in ("ada", "bob"):
        enroll(live, add_user(live, name), KEEP, REMOVE)
    for table in TABLES:
        run(live, "alter table {c}.{t} add mentor text default 'nobody'", c=schema(live, KEEP), t=table)
    run(live, "create table {c}.note (user_id bigint)", c=schema(live, KEEP))
    return live


@pytest.fixture
def writer(course: Db, dsn: str, request: pytest.FixtureRequest) -> Iterator[Connection[Any]]:
    """A session on the course as a superuser, or as a role that was granted everything in it."""
    if request.param == "superuser":
        yield course
        return
    run(course, "do $$ begin create role course_admin login; exception when duplicate_object then null; end $$")
    run(course, "grant usage, create on schema {c} to course_admin", c=schema(course, KEEP))
    run(course, "grant all on all tables in schema {c} to course_admin", c=schema(course, KEEP))
    with psycopg.connect(dsn, user="course_admin", autocommit=True) as connection:
        yield connection


both = pytest.mark.parametrize("writer", ["superuser", "course_admin"], indirect=True)


@both
@pytest.mark.parametrize("table", TABLES)
def test_a_copy_cannot_be_written(course: Db, writer: Db, table: str) -> None:
    name, before = schema(course, KEEP), versions(course)
    for write in WRITES:
        said = refused(writer, "23R01", write, c=name, t=table)
        assert f"{name}.{table}" in str(said.message_primary)
        assert f"the portal's {table} instead" in str(said.message_primary)
    for column in COLUMNS[table]:
        refused(
            writer,
            "23R01",
            "update {c}.{t} set {k} = %s where id = (select max(id) from {c}.{t})",
            (VALUES | NUMBERS).get(column, "x"),
            c=name,
            t=table,
            k=column,
        )
    copy = psycopg.sql.SQL("copy {} (id) from stdin").format(psycopg.sql.Identifier(name, table))
    with pytest.raises(psycopg.Error) as refusal, writer.cursor().copy(copy):
        pass
    assert refusal.value.diag.sqlstate == "23R01"
    assert versions(course) == before


@both
def test_an_update_that_names_all_columns_and_changes_only_the_courses_own_passes(course: Db, writer: Db) -> None:
    """As every ORM writes: plainly, through a view, by MERGE, by COPY into a table beside, with null for null."""
    name = schema(course, KEEP)
    run(course, "update portal.auth_user set last_login = null where id = 2")
    for table in TABLES:
        columns = COLUMNS[table]
        same = psycopg.sql.SQL(", ").join(
            psycopg.sql.SQL("{0} = u.{0}").format(psycopg.sql.Identifier(column)) for column in columns
        )
        place = psycopg.sql.Identifier(name, table)
        run(writer, "create or replace view {c}.{v} as select * from {c}.{t}", c=name, v=f"v_{table}", t=table)
        for target in (place, psycopg.sql.Identifier(name, f"v_{table}")):
            writer.execute(
                psycopg.sql.SQL("update {} as c set {}, mentor = 'orm' from {} as u where u.id = c.id").format(
                    target, same, place
                )
            )
            writer.execute(psycopg.sql.SQL("update {} as u set {} where mentor = 'orm'").format(target, same))
        writer.execute(
            psycopg.sql.SQL(
                "merge into {0} as c using {0} as u on u.id = c.id when matched then update set {1}, mentor = 'orm'"
            ).format(place, same)
        )
        refused(writer, "23R01", "update {c}.{v} set id = -id", c=name, v=f"v_{table}")
        assert {row[0] for row in select(course, name, table, ["mentor"])} == {"orm"}
    assert faults(course) == []


def test_what_changes_a_copied_value_in_any_way_is_refused(course: Db) -> None:
    """Equal is not enough: the bytes count. And what a trigger of the course changes counts, whatever its name."""
    name = schema(course, KEEP)
    run(
        course,
        """create function {c}.own() returns trigger language plpgsql as
            $$ begin new.mentor := 'stamped'; return new; end $$;
        create function {c}.steals() returns trigger language plpgsql as
            $$ begin new.first_name := 'zoe'; return new; end $$;
        create trigger zz_own before update on {c}.auth_user for each row
            when (current_user <> 'rollbook_owner') execute function {c}.own();
        alter table {c}.auth_user add shout text generated always as (upper(first_name)) stored""",
        c=name,
    )
    run(course, "update {c}.auth_user set mentor = 'x'", c=name)
    assert select(course, name, USER, ["mentor"]) == [("stamped",), ("stamped",)]
    assert run(course, "select * from rollbook.foreign_objects()") == []
    for change in (
        "last_login = 'infinity'", "first_name = first_name || ' '",
        "date_joined = date_joined + '1 us'", "email = upper(email)", "is_staff = not is_staff",
    ):  # fmt: skip
        with pytest.raises(psycopg.errors.DatabaseError) as refusal:
            course.execute(psycopg.sql.SQL(f"update {name}.auth_user set {change}"))
        assert refusal.value.diag.sqlstate == "23R01", change
    run(
        course,
        "create trigger zzz_steals before update on {c}.auth_user for each row execute function {c}.steals()",
        c=name,
    )
    refused(course, "23R01", "update {c}.auth_user set mentor = 'x'", c=name)
    assert value(course, "select string_agg(difference, '') from rollbook.foreign_objects()") == (
        "may be written bypassing the guard: trigger zzz_steals"
    )
    run(course, "drop trigger zzz_steals on {c}.auth_user", c=name)
    assert faults(course) == []


@both
def test_what_a_course_added_can_be_written(course: Db, writer: Db) -> None:
    name = schema(course, KEEP)
    for table in TABLES:
        run(writer, "update {c}.{t} set mentor = 'm' || id", c=name, t=table)
    run(
        writer,
        "update {c}.auth_user set mentor = mentor || '!' from {c}.note where note.user_id = auth_user.id",
        c=name,
    )
    run(
        writer,
        "merge into {c}.auth_user u using (values (1)) s (id) on u.id = s.id when matched then update set mentor = 'x'",
        c=name,
    )
    run(writer, "insert into {c}.note values (1), (2)", c=name)
    run(writer, "update {c}.note set user_id = 2; delete from {c}.note; truncate {c}.note", c=name)
    run(writer, "create table {c}.own (id bigint); drop table {c}.own", c=name)
    assert select(course, name, USER, ["mentor"]) == [("x",), ("m2",)]
    assert faults(course) == []


def test_local_columns_and_tables_survive_whatever_the_portal_does(course: Db) -> None:
    name = schema(course, KEEP)
    run(
        course,
        """alter table {c}.auth_user add full_name text generated always as (first_name || ' ' || last_name) stored,
            add seen_response_count integer not null default 0, add nick text;
        create unique index on {c}.auth_user (nick);
        create table {c}.log (body text); insert into {c}.log values ('stays')""",
        c=name,
    )
    for table in TABLES:
        run(course, "update {c}.{t} set mentor = 'm' || id", c=name, t=table)
    run(course, "update portal.auth_user set first_name = 'F', last_name = 'L'")
    run(course, "update portal.auth_user set first_name = 'G' where id = 1")
    run(course, "update portal.auth_userprofile set goals = 'New'")
    run(course, "update portal.student_courseenrollment set created = null")
    leave(course, 1, KEEP)
    enroll(course, 1, KEEP)
    run(course, "select rollbook.repair()")
    assert select(course, name, USER, ["mentor", "full_name", "seen_response_count", "nick"]) == [
        ("m1", "G L", 0, None),
        ("m2", "F L", 0, None),
    ]
    assert {row[0] for row in select(course, name, "auth_userprofile", ["mentor"])} == {"m5001", "m5002"}
    # the enrollment of who came back is another one
    assert [row[0] for row in select(course, name, "student_courseenrollment", ["mentor"])] == ["m9003", "nobody"]
    assert run(course, "select body from {c}.log", c=name) == [("stays",)]
    assert faults(course) == []


def test_an_operator_of_the_writers_own_does_not_open_the_guard(course: Db, dsn: str) -> None:
    run(
        course,
        """do $$ begin create role course_admin login; exception when duplicate_object then null; end $$;
        create schema evil authorization course_admin;
        grant usage on schema {c} to course_admin; grant all on all tables in schema {c} to course_admin""",
        c=schema(course, KEEP),
    )
    with psycopg.connect(dsn, user="course_admin", autocommit=True) as writer:
        run(
            writer,
            """create function evil.yes(name, name) returns boolean language sql as 'select true';
            create function evil.yes(name, text) returns boolean language sql as 'select true';
            create operator evil.= (leftarg = name, rightarg = name, function = evil.yes);
            create operator evil.= (leftarg = name, rightarg = text, function = evil.yes);
            set search_path = evil, pg_catalog""",
        )
        refused(writer, "23R01", "update {c}.auth_user set is_superuser = true", c=schema(course, KEEP))
    assert faults(course) == []
