"""A Django site to adopt: the tables that `migrate` makes, in any schema, and people in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, sql

from rollbook.core.db import session
from rollbook.system.adoption.run import adopt
from rollbook.system.adoption.site import read_site

TABLES = (Path(__file__).parent / "stock_site.sql").read_text()

PEOPLE = """
insert into auth_user (
    password, last_login, is_superuser, username, first_name, last_name, email, is_staff, is_active, date_joined
)
select
    'pbkdf2_sha256$260000$salt$hash', null, false, 'user' || n, '', '', 'user' || n || '@example.org', false, true,
    '2020-01-01T00:00:00Z'::timestamptz + n * interval '1 minute'
from generate_series(1, %(users)s) as n;
insert into auth_userprofile (name, meta, courseware, language, location, year_of_birth, gender, avatar, user_id)
select 'User ' || u.id, '', 'course.xml', 'en', '', 1980 + u.id %% 20, 'f', 'a.png', u.id from auth_user as u;
insert into student_courseenrollment (course_id, created, is_active, user_id)
select 'edX/course' || (u.id + 7 * k) %% %(courses)s || '/2012', '2021-01-01T00:00:00Z', true, u.id
from auth_user as u cross join generate_series(1, %(each)s) as k
on conflict do nothing;
insert into forum_post (body, user_id) select 'hello', u.id from auth_user as u where u.id %% 10 = 0;
"""


def make_site(conn: Connection[Any], schema: str = "public") -> None:
    """Make the tables in a schema, as Django makes them; ids are integers."""
    conn.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
    inside(conn, schema, TABLES)


def fill_site(
    conn: Connection[Any], schema: str = "public", *, users: int = 30, courses: int = 3, each: int = 2
) -> None:
    """Make users, each with a profile and enrollments in some courses; every tenth has written a post."""
    counts = {"users": users, "courses": courses, "each": each}
    statements = PEOPLE
    for name, value in counts.items():
        statements = statements.replace(f"%({name})s", str(value))
    inside(conn, schema, statements.replace("%%", "%"))


def adopt_site(dsn: str) -> None:
    """Make the tables in schema public and adopt them in place: the portal's names are views, ids integers."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        make_site(conn)
    with session(dsn, name="tests", long=True) as conn:
        adopt(conn, read_site(conn, "public"), in_place=True, courses="none")


def inside(conn: Connection[Any], schema: str, statements: str) -> None:
    """Run statements that name tables without schema."""
    with conn.transaction():
        conn.execute(sql.SQL("set local search_path = {}, pg_catalog").format(sql.Identifier(schema)))
        conn.execute(statements.encode())
