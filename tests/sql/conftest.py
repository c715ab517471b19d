"""Where the tests of sql/ start: two courses, one of each policy, and a login that an application has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from tests.sql.helpers import COURSES, Db, create, run


@pytest.fixture
def portal(db: Db) -> Db:
    """A database without courses, whose users, profiles and enrollments never share an id."""
    run(db, "alter table portal.auth_userprofile alter id set start 5001 restart")
    run(db, "alter table portal.student_courseenrollment alter id set start 9001 restart")
    return db


@pytest.fixture
def school(portal: Db) -> Db:
    """`portal` with a course that keeps leavers and one that removes them."""
    for course, on_leave in COURSES.items():
        create(portal, course, on_leave)
    return portal


@pytest.fixture
def app(school: Db, dsn: str) -> Iterator[Connection[Any]]:
    """A login that may read and write the portal's tables, and has no right in rollbook or in a course."""
    run(
        school,
        """do $$ begin create role portal_app login; exception when duplicate_object then null; end $$;
        grant usage on schema portal to portal_app;
        grant select, insert, update, delete on all tables in schema portal to portal_app""",
    )
    with psycopg.connect(dsn, user="portal_app", autocommit=True) as connection:
        yield connection
