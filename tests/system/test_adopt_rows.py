"""What `schema adopt` finds in the rows of a Django site, and each repair that --fix can name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg import Connection, IsolationLevel

from rollbook.core.db import Conn, connect
from rollbook.system.adoption.rules import find, rejects
from rollbook.system.adoption.site import Site, find_site, read_site
from tests.django_site import DIRTY, add_clean

Db = Connection[Any]


@contextmanager
def reading(site: Db) -> Iterator[tuple[Conn, Site]]:
    """A session as `schema adopt` has it, and the site that it reads; rolled back in the end."""
    with connect(site.info.dsn, name="test", migrated=False, keep=False) as conn:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        yield conn, read_site(conn, find_site(conn, None))


def found(site: Db) -> dict[str, tuple[int, list[int]]]:
    """Each fault: rule, table, column -> count and first ids."""
    with reading(site) as (conn, there):
        return {f"{f.rule} {f.table} {f.column}": (f.count, f.first_ids) for f in find(conn, there)}


STOCK = {
    "username auth_user username": (4, [101, 102, 103, 105]),
    "email auth_user email": (3, [101, 102, 103]),
    "email-form auth_user email": (3, [104, 105, 106]),
    "meta auth_userprofile meta": (5, [201, 202, 203, 204, 205]),
    "year auth_userprofile year_of_birth": (5, [201, 202, 203, 204, 205]),
    "gender auth_userprofile gender": (5, [201, 202, 203, 204, 205]),
    "level auth_userprofile level_of_education": (5, [201, 202, 203, 204, 205]),
    "course student_courseenrollment course_id": (1, [301]),
    "allowed student_courseenrollmentallowed email": (2, [401, 402]),
    "course student_courseenrollmentallowed course_id": (1, [403]),
    "group student_usertestgroup name": (1, [502]),
    "taken student_usertestgroup name": (2, [51, 501]),
    "request student_pendingnamechange new_name": (1, [701]),
    "request student_pendingemailchange new_email": (1, [801]),
    "key student_pendingemailchange activation_key": (1, [801]),
}


def test_every_fault_of_stock_tables_is_found_at_once(site: Db, tmp_path: Path) -> None:
    add_clean(site)
    assert found(site) == {}
    site.execute(DIRTY)
    assert found(site) == STOCK

    file = tmp_path / "rejects.csv"
    with reading(site) as (conn, there):
        assert rejects(conn, there, str(file)) == sum(count for count, _ in STOCK.values())
        locks = conn.execute(
            """select distinct l.mode from pg_locks as l inner join pg_class as c on c.oid = l.relation
            where l.pid = pg_backend_pid() and c.relnamespace = 'public'::regnamespace"""
        ).fetchall()
    assert locks == [{"mode": "AccessShareLock"}]
    with file.open(newline="") as lines:
        assert list(csv.reader(lines)) == [
            ["table", "id", "column", "value", "rule"],
            ["auth_user", "101", "username", "John Doe", "username"],
            ["auth_user", "102", "username", "tab\there", "username"],
            ["auth_user", "103", "username", "", "username"],
            ["auth_user", "105", "username", " \a ", "username"],
            ["auth_user", "104", "email", "not an address", "email-form"],
            ["auth_user", "105", "email", "a@@b", "email-form"],
            ["auth_user", "106", "email", "@example.org", "email-form"],
            ["auth_user", "101", "email", "john@example.org", "email"],
            ["auth_user", "102", "email", "JOHN@example.org", "email"],
            ["auth_user", "103", "email", "John@Example.org", "email"],
            ["auth_userprofile", "201", "gender", "x", "gender"],
            ["auth_userprofile", "202", "gender", "male", "gender"],
            ["auth_userprofile", "203", "gender", " Femal", "gender"],
            ["auth_userprofile", "204", "gender", "M", "gender"],
            ["auth_userprofile", "205", "gender", " ", "gender"],
            ["auth_userprofile", "201", "level_of_education", "p", "level"],
            ["auth_userprofile", "202", "level_of_education", "a", "level"],
            ["auth_userprofile", "203", "level_of_education", "M", "level"],
            ["auth_userprofile", "204", "level_of_education", "phd", "level"],
            ["auth_userprofile", "205", "level_of_education", " ", "level"],
            ["auth_userprofile", "201", "meta", "[]", "meta"],
            ["auth_userprofile", "202", "meta", "not json", "meta"],
            ["auth_userprofile", "203", "meta", '"text"', "meta"],
            ["auth_userprofile", "204", "meta", '{"a": 1', "meta"],
            ["auth_userprofile", "205", "meta", "null", "meta"],
            ["auth_userprofile", "201", "year_of_birth", "20133", "year"],
            ["auth_userprofile", "202", "year_of_birth", "0", "year"],
            ["auth_userprofile", "203", "year_of_birth", "-5", "year"],
            ["auth_userprofile", "204", "year_of_birth", "1850", "year"],
            ["auth_userprofile", "205", "year_of_birth", "2100", "year"],
            ["student_courseenrollment", "301", "course_id", "", "course"],
            ["student_courseenrollmentallowed", "401", "email", "nobody", "allowed"],
            ["student_courseenrollmentallowed", "402", "email", "", "allowed"],
            ["student_courseenrollmentallowed", "403", "course_id", "", "course"],
            ["student_usertestgroup", "502", "name", "", "group"],
            ["student_usertestgroup", "51", "name", "testers", "taken"],
            ["student_usertestgroup", "501", "name", "testers", "taken"],
            ["student_pendingnamechange", "701", "new_name", "X", "request"],
            ["student_pendingemailchange", "801", "new_email", "x", "request"],
            ["student_pendingemailchange", "801", "activation_key", "(secret)", "key"],
        ]
