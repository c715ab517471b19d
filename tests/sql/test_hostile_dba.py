"""What a hostile DBA tried: row security, another search_path, a role with rights, a null argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.program import postgres_program
from tests.sql.helpers import Db, refused


def platform(db: Db) -> None:
    """User 1 is in the keep course K, users 1 and 2 in the remove course R."""
    db.execute("insert into portal.auth_user (username) values ('u1'), ('u2')")
    db.execute("insert into portal.auth_userprofile (user_id, name) values (1, 'One')")
    db.execute("select rollbook.create_course('K'), rollbook.create_course('R', 'remove')")
    db.execute("insert into portal.student_courseenrollment (user_id, course_id) values (1, 'K'), (1, 'R'), (2, 'R')")


def test_row_security_on_the_portal_hides_nothing_from_the_routing(db: Db) -> None:
    platform(db)
    for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):
        db.execute(f"alter table portal.{table} enable row level security".encode())
    db.execute("update portal.auth_user set email = 'new@example.org' where id = 1")
    db.execute("insert into portal.student_courseenrollment (user_id, course_id) values (2, 'K')")
    assert db.execute("select id, email from course_k.auth_user order by id").fetchall() == [
        (1, "new@example.org"),
        (2, ""),
    ]
    assert db.execute("select * from rollbook.verify()").fetchall() == []
    assert db.execute("select * from rollbook.repair()").fetchall() == []


def test_functions_of_another_schema_are_not_called_for_a_superuser(db: Db) -> None:
    db.execute("create table public.called (by text)")
    db.execute(
        "create function public.format(text, name) returns text language sql as "
        "$$ insert into public.called values (current_user); select pg_catalog.format($1, $2) $$"
    )
    db.execute("set search_path = public, pg_catalog")
    db.execute("select rollbook.create_course('K')")
    assert db.execute("select * from public.called").fetchall() == []


def test_null_for_drop_local_drops_nothing_of_the_course(db: Db) -> None:
    platform(db)
    db.execute("alter table course_k.auth_user add column karma integer")
    refused(db, "RB007", "select rollbook.drop_course('K', null)")
    assert db.execute("select karma from course_k.auth_user").fetchall() == [(None,)]


def test_nobody_outside_can_hold_up_the_deletion_of_users(db: Db, session: Callable[[], Db]) -> None:
    platform(db)
    db.execute("create role plain")
    other = session()
    other.execute("set role plain")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), other.transaction():
        other.execute("lock table rollbook.course in exclusive mode")
    db.execute("set lock_timeout = '2s'")
    db.execute("delete from portal.auth_user where id = 2")
    assert db.execute("select id from course_r.auth_user").fetchall() == [(1,)]
    other.execute("reset role")
    db.execute("drop role plain")


def test_everything_of_a_course_has_a_comment(db: Db) -> None:
    platform(db)
    assert (
        db.execute(
            """
            select c.oid::regclass::text, a.attname
            from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
            where c.relnamespace = 'course_k'::regnamespace and c.relkind = 'r'
                and col_description(c.oid, a.attnum) is null
            """
        ).fetchall()
        == []
    )


def test_a_dump_restores_into_a_working_database(db: Db, dsn: str, cluster: Any) -> None:
    import os
    import subprocess

    platform(db)
    before = db.execute("select schema_name, enrolled, copied_users from rollbook.course_status order by 1").fetchall()
    pg_dump, psql_program = postgres_program("pg_dump"), postgres_program("psql")
    env = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    dump = subprocess.run([pg_dump, dsn], capture_output=True, check=True, env=env).stdout
    target = cluster.server.dsn("restored")
    db.execute("create database restored")
    try:
        psql = [psql_program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target]
        done = subprocess.run(psql, input=dump, capture_output=True, check=False, env=env)
        assert (done.returncode, done.stderr.decode()) == (0, "")
        with psycopg.connect(target, autocommit=True) as copy:
            query = "select schema_name, enrolled, copied_users from rollbook.course_status order by 1"
            assert copy.execute(query).fetchall() == before
            copy.execute("update portal.auth_user set email = 'new@example.org' where id = 1")
            assert copy.execute("select email from course_k.auth_user").fetchall() == [("new@example.org",)]
            assert copy.execute("select * from rollbook.verify()").fetchall() == []
    finally:
        db.execute("drop database restored with (force)")
