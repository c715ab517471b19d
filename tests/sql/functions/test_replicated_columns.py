"""sql/functions/shape/replicated_columns.sql: the whitelist, and proof that every path carries each of its columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import sql

from tests.sql.helpers import (
    COLUMNS,
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    TABLES,
    USER,
    Db,
    create,
    faults,
    findings,
    insert,
    plant,
    refused,
    run,
    schema,
    select,
    value,
    versions,
)

Row = dict[str, Any]
EVERY = [(table, column) for table in TABLES for column in COLUMNS[table]]
TIME = datetime(2012, 9, 1, 12, 30, 15, 123456, UTC)

ROW_IDS = {USER: 1, PROFILE: 5001, ENROLLMENT: 9001}

# A row in which no value is a default, and for each column another value.
USER_ROW: Row = {
    "username": "rusty",
    "first_name": "Rusty",
    "last_name": "Skids",
    "email": "rusty@edx.org",
    "password": "pbkdf2_sha256$1$salt$hash",
    "is_staff": True,
    "is_active": False,
    "is_superuser": True,
    "last_login": TIME,
    "date_joined": TIME - timedelta(days=366),
}
PROFILE_ROW: Row = {
    "name": "Rusty Skids",
    "meta": '{"old_names": [["Dusty", "typo", "2012-09-01T00:00:00+00:00"]]}',
    "courseware": "6002x.xml",
    "language": "Монгол",
    "location": "Ulaanbaatar",
    "year_of_birth": 1989,
    "gender": "f",
    "level_of_education": "p_oth",
    "mailing_address": "1 Main Street\n14200 Ulaanbaatar",
    "goals": "World domination",
}
OTHER: dict[str, Row] = {
    USER: {
        "username": "dusty",
        "first_name": "",
        "last_name": "Skidš",
        "email": "",
        "password": "!",
        "is_staff": False,
        "is_active": True,
        "is_superuser": False,
        "last_login": None,
        "date_joined": TIME + timedelta(microseconds=1),
    },
    PROFILE: {
        "id": 700,
        "user_id": 3,
        "name": "",
        "meta": "",
        "courseware": "course.xml",
        "language": "",
        "location": "ulaanbaatar",
        "year_of_birth": None,
        "gender": "",
        "level_of_education": None,
        "mailing_address": "",
        "goals": None,
    },
    ENROLLMENT: {"id": 900, "user_id": 3, "course_id": REMOVE, "created": None},
}


@pytest.fixture
def rusty(school: Db) -> Db:
    """User 1 with every value set, and user 2 with the defaults, in both courses; user 3 in both without a profile."""
    for number, columns in enumerate((USER_ROW, {"username": "bob"}, {"username": "cy"}), 1):
        assert insert(school, USER, columns) == number
        if number < 3:
            insert(school, PROFILE, {"user_id": number} | (PROFILE_ROW if number == 1 else {}))
        insert(school, ENROLLMENT, {"user_id": number, "course_id": KEEP, "created": TIME})
    return school


def change(db: Db, table: str, column: str, row_id: int, new: Any, *, bulk: bool) -> None:
    """Give a portal row another value; in bulk every row of the table is written."""
    statement = sql.SQL(
        "update {t} set {k} = case when id = %(id)s then %(new)s else {k} end"
        if bulk
        else "update {t} set {k} = %(new)s where id = %(id)s"
    )
    db.execute(
        statement.format(t=sql.Identifier("portal", table), k=sql.Identifier(column)), {"id": row_id, "new": new}
    )


def test_the_whitelist_is_the_contracts(db: Db) -> None:
    for table in TABLES:
        assert value(db, "select rollbook.replicated_columns(%s)", table) == COLUMNS[table]
    assert value(db, "select rollbook.replicated_columns('auth_registration')") is None


@pytest.mark.made
def test_all_columns_of_profile_and_enrollment_travel_and_of_a_user_eleven(school: Db) -> None:
    for table in TABLES:
        portal, copy = (
            run(
                school,
                """select attname::text, format_type(atttypid, atttypmod), attnotnull from pg_attribute
                where attrelid = format('%%I.%%I', %s::text, %s::text)::regclass and attnum > 0 order by attnum""",
                where,
                table,
            )
            for where in ("portal", schema(school, KEEP))
        )
        assert [name for name, _, _ in copy] == COLUMNS[table]
        assert copy == (portal[:11] if table == USER else portal)


@pytest.mark.parametrize(("table", "column"), EVERY)
def test_each_column_travels_and_drift_in_it_is_found_as_exactly_that_and_mended(
    rusty: Db, table: str, column: str
) -> None:
    if (table, column) == (USER, "id"):
        refused(rusty, "23R02", "update portal.auth_user set id = 9")
        return
    row_id, new = ROW_IDS[table], OTHER[table][column]
    run(rusty, "delete from portal.student_courseenrollment where user_id = 3")
    for bulk in (False, True):
        with rusty.transaction(force_rollback=True):
            change(rusty, table, column, row_id, new, bulk=bulk)
            course = new if column == "course_id" else KEEP
            copies: dict[int, Any] = dict(select(rusty, schema(rusty, course), table, ["id", column]))
            there = copies[new if column == "id" else row_id]
            assert (there, type(there)) == (new, type(new))
            assert faults(rusty) == []
    if column == "id":
        return
    name, before = schema(rusty, KEEP), versions(rusty)
    right = select(rusty, name, table, COLUMNS[table])
    plant(rusty, "update {c}.{t} set {k} = %s where id = %s", new, row_id, c=name, t=table, k=column)
    assert select(rusty, name, table, COLUMNS[table]) != right
    assert findings(rusty, KEEP) == [(table, "changed", row_id, [column])]
    assert findings(rusty) == [(KEEP, table, "changed", row_id, [column])]
    assert run(rusty, "select * from rollbook.repair(%s)", KEEP) == [(KEEP, table, 0, 1, 0)]
    assert select(rusty, name, table, COLUMNS[table]) == right
    assert run(rusty, "select * from rollbook.repair(%s)", KEEP) == []
    assert {key for key, version in versions(rusty).items() if before[key] != version} == {(KEEP, table, row_id)}


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_put_by_enrollment_and_by_create_course(rusty: Db, table: str) -> None:
    insert(rusty, ENROLLMENT, {"user_id": 1, "course_id": REMOVE, "created": TIME})
    insert(rusty, ENROLLMENT, {"user_id": 1, "course_id": "edX/late", "created": TIME})
    create(rusty, "edX/late")
    expected = {
        USER: {"id": 1, **USER_ROW},
        PROFILE: {"id": 5001, "user_id": 1, **PROFILE_ROW},
        ENROLLMENT: {"user_id": 1, "created": TIME},
    }[table]
    for course in (KEEP, REMOVE, "edX/late"):
        copy = dict(zip(COLUMNS[table], select(rusty, schema(rusty, course), table, COLUMNS[table])[0], strict=True))
        assert copy == {**copy, **expected}
        assert copy.get("course_id", course) == course
        for column in expected.keys() - {"id", "user_id"}:
            assert type(copy[column]) is type(expected[column])


@pytest.mark.parametrize("table", TABLES)
def test_drift_in_an_id_is_one_row_missing_and_one_extra(rusty: Db, table: str) -> None:
    row_id = ROW_IDS[table]
    plant(rusty, "update {c}.{t} set id = 777 where id = %s", row_id, c=schema(rusty, KEEP), t=table)
    assert sorted(findings(rusty, KEEP)) == [(table, "extra", 777, None), (table, "missing", row_id, None)]
    assert run(rusty, "select * from rollbook.repair()") == [(KEEP, table, 1, 0, 1)]
    assert faults(rusty) == []


def test_infinite_and_ancient_times_travel(rusty: Db) -> None:
    run(rusty, "update portal.auth_user set last_login = 'infinity', date_joined = '0044-03-15 12:00 BC' where id = 1")
    run(rusty, "update portal.student_courseenrollment set created = '-infinity'")
    name = schema(rusty, KEEP)
    times = "select last_login::text, date_joined::text from {c}.auth_user where id = 1"
    assert run(rusty, times, c=name) == run(rusty, times, c="portal")
    assert value(rusty, "select min(created)::text from {c}.student_courseenrollment", c=name) == "-infinity"
    assert findings(rusty) == []
