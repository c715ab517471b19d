"""sql/functions/api/verify.sql, repair.sql: every difference is found and fixed, and nothing else.

verify and repair read the differences of each course.
"""

from __future__ import annotations

import threading
from typing import LiteralString

import psycopg
import pytest

from tests.sql.helpers import (
    COLUMNS,
    COURSES,
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    TABLES,
    USER,
    Db,
    Rows,
    add_foreign_keys,
    add_user,
    enroll,
    faults,
    findings,
    held,
    leave,
    plant,
    refused,
    run,
    schema,
    select,
    value,
    versions,
)


def settle(school: Db) -> Db:
    """Users 1, 2 and 3 in both courses, 4 who has left both, 5 who was in neither; each course has columns of its own.

    Profiles are 5001 to 5005, enrollments 9001, 9003, 9005 in the keep course and the next in the remove course.
    """
    for name in ("ada", "bob", "cy", "di"):
        enroll(school, add_user(school, name, first_name="Pat", last_name="Foo"), *COURSES)
    for course in COURSES:
        leave(school, 4, course)
    add_user(school, "eve")
    run(school, "update portal.auth_userprofile set mailing_address = null, goals = '' where user_id = 2")
    for course in COURSES:
        name = schema(school, course)
        for table in TABLES:
            run(school, "alter table {c}.{t} add mentor text; update {c}.{t} set mentor = 'm' || id", c=name, t=table)
        run(school, "create table {c}.note as select 'stays' as body", c=name)
    return school


@pytest.fixture
def pupils(school: Db) -> Db:
    """As `settle` says."""
    return settle(school)


@pytest.fixture
def live_pupils(live: Db) -> Db:
    """As `settle` says, committed."""
    return settle(live)


U, P, E = USER, PROFILE, ENROLLMENT
# Drift in the copies of a course -> what verify finds there. Enrollment 1 is that of user 1.
DRIFT: dict[str, tuple[LiteralString, Rows]] = {
    "user missing": ("delete from {c}.auth_user where id = 1", [(U, "missing", 1, None)]),
    "profile missing": ("delete from {c}.auth_userprofile where id = 5001", [(P, "missing", 5001, None)]),
    "all three missing": (
        """delete from {c}.auth_userprofile where user_id = 1;
        delete from {c}.student_courseenrollment where user_id = 1; delete from {c}.auth_user where id = 1""",
        [(U, "missing", 1, None), (P, "missing", 5001, None), (E, "missing", 1, None)],
    ),
    "all gone": (
        "truncate {c}.auth_user, {c}.auth_userprofile, {c}.student_courseenrollment",
        [
            *((U, "missing", i, None) for i in (1, 2, 3)),
            *((P, "missing", 5000 + i, None) for i in (1, 2, 3)),
            *((E, "missing", i, None) for i in (1, 2, 3)),
        ],
    ),
    "null for empty": (
        "update {c}.auth_userprofile set goals = null where goals = ''",
        [(P, "changed", 5002, ["goals"])],
    ),
    "empty for null": (
        "update {c}.auth_userprofile set mailing_address = '' where user_id = 2",
        [(P, "changed", 5002, ["mailing_address"])],
    ),
    "one character": (
        "update {c}.auth_user set email = replace(email, 'a', 'á') where id = 1",
        [(U, "changed", 1, ["email"])],
    ),
    "a trailing blank": (
        "update {c}.auth_user set password = password || ' ' where id = 3",
        [(U, "changed", 3, ["password"])],
    ),
    "upper case": ("update {c}.auth_user set username = 'Ada' where id = 1", [(U, "changed", 1, ["username"])]),
    "a microsecond": (
        "update {c}.auth_user set date_joined = date_joined + '1 us' where id = 2",
        [(U, "changed", 2, ["date_joined"])],
    ),
    "several columns of several rows": (
        """update {c}.auth_user set last_login = now(), is_staff = true, first_name = 'x' where id = 1;
        update {c}.auth_user set is_active = false, last_name = 'y' where id = 2;
        update {c}.auth_userprofile set goals = 'z', name = 'z' where id = 5001""",
        [
            (U, "changed", 1, ["first_name", "is_staff", "last_login"]),
            (U, "changed", 2, ["last_name", "is_active"]),
            (P, "changed", 5001, ["name", "goals"]),
        ],
    ),
    "every column": (
        """update {c}.auth_user set (username, first_name, last_name, email, password, is_staff, is_active,
            is_superuser, last_login, date_joined)
            = ('x', 'x', 'x', 'x', 'x', true, false, true, now(), '2000-01-01') where id = 1""",
        [(U, "changed", 1, COLUMNS[USER][1:])],
    ),
    "values of two rows swapped": (
        "update {c}.auth_user set username = case id when 1 then 'bob' else 'ada' end where id in (1, 2)",
        [(U, "changed", 1, ["username"]), (U, "changed", 2, ["username"])],
    ),
    "ids of two rows swapped": (
        """update {c}.auth_user set id = -id where id in (1, 2);
        update {c}.auth_user set id = 3 + id where id < 0""",
        [
            (U, "changed", 1, ["username", "email"]),
            (U, "changed", 2, ["username", "email"]),
        ],
    ),
    "values moved from a column to the next": (
        "update {c}.auth_user set first_name = '', last_name = 'PatFoo' where id = 2",
        [(U, "changed", 2, ["first_name", "last_name"])],
    ),
    "the profile of another": (
        "update {c}.auth_userprofile set user_id = 2 where id = 5001",
        [(P, "changed", 5001, ["user_id"])],
    ),
    "the enrollment of another": (
        "update {c}.student_courseenrollment set user_id = 5 where user_id = 1",
        [(E, "changed", 1, ["user_id"])],
    ),
    "the enrollment in another course": (
        "update {c}.student_courseenrollment set course_id = course_id || '/' where user_id = 1",
        [(E, "changed", 1, ["course_id"])],
    ),
    "a stranger": (
        "insert into {c}.auth_user select 999, 'x', '', '', '', '!', false, true, false, null, now()",
        [(U, "extra", 999, None)],
    ),
    "a duplicate under another id": (
        """insert into {c}.auth_user select 998, username, first_name, last_name, email, password, is_staff, is_active,
            is_superuser, last_login, date_joined from {c}.auth_user where id = 1;
        insert into {c}.student_courseenrollment select 997, user_id, course_id, created
            from {c}.student_courseenrollment where user_id = 1""",
        [(U, "extra", 998, None), (E, "extra", 997, None)],
    ),
    "a user who was never here": (
        """insert into {c}.auth_user select *, 'm' || id from portal.auth_user where id = 5;
        insert into {c}.auth_userprofile select * from portal.auth_userprofile where user_id = 5;
        insert into {c}.student_courseenrollment
            select 996, 5, course_id, now() from {c}.student_courseenrollment limit 1""",
        [(U, "extra", 5, None), (P, "extra", 5005, None), (E, "extra", 996, None)],
    ),
    "some of each": (
        """delete from {c}.auth_user where id = 1; update {c}.auth_user set email = '' where id = 2;
        insert into {c}.auth_user select 999, 'x', '', '', '', '!', false, true, false, null, now();
        delete from {c}.student_courseenrollment; update {c}.auth_userprofile set user_id = 999""",
        [
            (U, "missing", 1, None),
            (U, "changed", 2, ["email"]),
            (U, "extra", 999, None),
            *((P, "changed", 5000 + i, ["user_id"]) for i in (1, 2, 3)),
            *((E, "missing", i, None) for i in (1, 2, 3)),
        ],
    ),
}


def enrollment_id(number: int, course: str) -> int:
    """The id of the enrollment of user `number`; other ids are their own."""
    return 8999 + 2 * number + list(COURSES).index(course) if number < 10 else number


def expected(course: str, found: Rows) -> Rows:
    """Return what verify finds in a course, in the order of `sorted`."""
    return sorted(
        (table, finding, enrollment_id(row_id, course) if table == ENROLLMENT else row_id, columns)
        for table, finding, row_id, columns in found
    )


def mended(course: str, found: Rows) -> Rows:
    """Return what repair returns for what verify found: course, table, inserted, updated, deleted."""
    counts = {
        table: tuple(sum(row[:2] == (table, finding) for row in found) for finding in ("missing", "changed", "extra"))
        for table in TABLES
    }
    return [(course, table, *counts[table]) for table in TABLES if any(counts[table])]


def assert_found_and_mended(db: Db, found: dict[str, Rows]) -> None:
    """Verify finds exactly `found`, a course; repair mends that and nothing else; later changes arrive."""
    for course, rows in found.items():
        assert sorted(findings(db, course)) == rows
    assert sorted(findings(db)) == sorted((course, *row) for course, rows in found.items() for row in rows)
    before, notes = versions(db), {course: local(db, course) for course in found}
    touched = {(course, table, row_id) for course, rows in found.items() for table, _, row_id, _ in rows}

    first, *rest = found
    assert run(db, "select * from rollbook.repair(%s)", first) == mended(first, found[first])
    assert findings(db, first) == []
    assert run(db, "select * from rollbook.repair()") == [
        row for course in rest for row in mended(course, found[course])
    ]
    assert faults(db) == []
    assert run(db, "select * from rollbook.repair()") == []
    after = versions(db)
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} <= touched
    for course, kept in notes.items():
        now = local(db, course)
        assert {key: now[key] for key in now.keys() & kept.keys()} == {
            key: kept[key] for key in now.keys() & kept.keys()
        }
        assert run(db, "select body from {c}.note", c=schema(db, course)) == [("stays",)]

    run(db, "update portal.auth_user set first_name = 'New' || id")
    run(db, "update portal.auth_user set last_name = 'One' where id = 1")
    run(db, "update portal.auth_userprofile set location = 'New'")
    run(db, "update portal.student_courseenrollment set created = null")
    assert faults(db) == []


def local(db: Db, course: str) -> dict[tuple[str, int], str | None]:
    """Return the course's own column of every copy."""
    name = schema(db, course)
    return {(table, row_id): who for table in TABLES for row_id, who in select(db, name, table, ["id", "mentor"])}


@pytest.mark.parametrize("drift", DRIFT)
def test_drift_in_the_copies_is_found_as_what_it_is_and_mended(pupils: Db, drift: str) -> None:
    statement, found = DRIFT[drift]
    for course in COURSES:
        plant(pupils, statement, c=schema(pupils, course))
    extra: dict[str, Rows] = {KEEP: [], REMOVE: []}
    if drift == "all gone":  # who left the keep course is due there still
        extra[KEEP] = [(U, "missing", 4, None), (P, "missing", 5004, None)]
    if drift == "some of each":
        extra[KEEP] = [(P, "changed", 5004, ["user_id"])]
    assert_found_and_mended(pupils, {course: expected(course, found + extra[course]) for course in COURSES})


# Drift in the portal, which no trigger saw -> what verify finds in the keep course and in the remove course.
PORTAL: dict[str, tuple[LiteralString, Rows, Rows]] = {
    "users changed": (
        "update portal.auth_user set email = 'x' || id || '@x.org', is_active = false where id in (1, 4, 5)",
        [(U, "changed", 1, ["email", "is_active"]), (U, "changed", 4, ["email", "is_active"])],
        [(U, "changed", 1, ["email", "is_active"])],
    ),
    "profiles changed": (
        "update portal.auth_userprofile set year_of_birth = 1815",
        [(P, "changed", 5000 + i, ["year_of_birth"]) for i in (1, 2, 3, 4)],
        [(P, "changed", 5000 + i, ["year_of_birth"]) for i in (1, 2, 3)],
    ),
    "enrolled": (
        "insert into portal.student_courseenrollment (id, user_id, course_id) select 9100, 5, 'edX/toy/2012_Fall'",
        [(U, "missing", 5, None), (P, "missing", 5005, None), (E, "missing", 9100, None)],
        [],
    ),
    "enrolled again": (
        """insert into portal.student_courseenrollment (id, user_id, course_id)
            values (9101, 4, 'edX/toy/2012_Fall'), (9102, 4, 'edx/full/6.002_Spring_2012')""",
        [(E, "missing", 9101, None)],
        [(U, "missing", 4, None), (P, "missing", 5004, None), (E, "missing", 9102, None)],
    ),
    "left": (
        "delete from portal.student_courseenrollment where user_id = 1",
        [(E, "extra", 1, None)],
        [(U, "extra", 1, None), (P, "extra", 5001, None), (E, "extra", 1, None)],
    ),
    "moved": (
        """update portal.student_courseenrollment set user_id = 5 where user_id = 1""",
        [(U, "missing", 5, None), (P, "missing", 5005, None), (E, "changed", 1, ["user_id"])],
        [
            (U, "missing", 5, None),
            (P, "missing", 5005, None),
            (E, "changed", 1, ["user_id"]),
            (U, "extra", 1, None),
            (P, "extra", 5001, None),
        ],
    ),
    "deleted": (
        """delete from portal.student_courseenrollment where user_id in (1, 4);
        delete from portal.auth_userprofile where user_id in (1, 4);
        delete from portal.auth_user where id in (1, 4)""",
        [
            (U, "extra", 1, None),
            (P, "extra", 5001, None),
            (E, "extra", 1, None),
            (U, "extra", 4, None),
            (P, "extra", 5004, None),
        ],
        [(U, "extra", 1, None), (P, "extra", 5001, None), (E, "extra", 1, None)],
    ),
    "profiles deleted": (
        "delete from portal.auth_userprofile where user_id in (2, 4, 5)",
        [(P, "extra", 5002, None), (P, "extra", 5004, None)],
        [(P, "extra", 5002, None)],
    ),
    "profiles deleted and made anew": (
        """delete from portal.auth_userprofile where user_id = 2;
        insert into portal.auth_userprofile (id, user_id) values (5100, 2)""",
        [(P, "extra", 5002, None), (P, "missing", 5100, None)],
        [(P, "extra", 5002, None), (P, "missing", 5100, None)],
    ),
}


@pytest.mark.parametrize("drift", PORTAL)
def test_what_was_written_to_the_portal_without_triggers_is_found_and_mended(pupils: Db, drift: str) -> None:
    statement, kept, removed = PORTAL[drift]
    plant(pupils, statement)
    assert_found_and_mended(pupils, {KEEP: expected(KEEP, kept), REMOVE: expected(REMOVE, removed)})


# Drift in the routes -> findings in both courses.
ROUTES: dict[str, tuple[LiteralString, Rows, Rows]] = {
    "route of a member lost": (
        "delete from rollbook.route where user_id = 1",
        [("route", "missing", 1, None)],
        [("route", "missing", 1, None)],
    ),
    "all routes of members lost": (
        "delete from rollbook.route where user_id <= 3",
        [("route", "missing", i, None) for i in (1, 2, 3)],
        [("route", "missing", i, None) for i in (1, 2, 3)],
    ),
    "route of a member leads to one of two": (
        "update rollbook.route set schemas = array['course_edx_toy_2012_fall'] where user_id = 1",
        [],
        [("route", "missing", 1, None)],
    ),
    "route of a member leads nowhere, and the copies are old": (
        """update rollbook.route set schemas = '{}' where user_id = 1;
        update portal.auth_user set first_name = 'New' where id = 1""",
        [(U, "changed", 1, ["first_name"]), ("route", "missing", 1, None)],
        [(U, "changed", 1, ["first_name"]), ("route", "missing", 1, None)],
    ),
    "route of a stranger leads to a remove course": (
        """update rollbook.route set schemas = schemas || 'course_edx_full_6_002_spring_2012'::text
        where user_id in (4, 5)""",
        [],
        [("route", "extra", 4, None), ("route", "extra", 5, None)],
    ),
    "route of nobody leads to a remove course": (
        "insert into rollbook.route (user_id, schemas) values (999, array['course_edx_full_6_002_spring_2012'])",
        [],
        [("route", "extra", 999, None)],
    ),
}


@pytest.mark.parametrize("drift", ROUTES)
def test_routes_that_lead_astray_are_found_and_mended(pupils: Db, drift: str) -> None:
    statement, kept, removed = ROUTES[drift]
    run(pupils, "insert into rollbook.route (user_id) values (5) on conflict do nothing")
    run(pupils, statement)
    found = {KEEP: sorted(kept), REMOVE: sorted(removed)}
    for course, rows in found.items():
        assert sorted(findings(pupils, course)) == rows
    assert sorted(findings(pupils)) == sorted((course, *row) for course, rows in found.items() for row in rows)
    written = [row for course in COURSES for row in mended(course, found[course])]
    assert run(pupils, "select * from rollbook.repair()") == written
    assert faults(pupils) == []
    run(pupils, "update portal.auth_user set last_name = 'New' || id")
    run(pupils, "update portal.auth_userprofile set location = 'New' where user_id = 1")
    assert faults(pupils) == []
    assert held(pupils, REMOVE)[0] == [1, 2, 3]


def test_a_leaver_of_a_keep_course_whose_copies_were_lost_gets_them_back(pupils: Db) -> None:
    name = schema(pupils, KEEP)
    plant(pupils, "delete from {c}.auth_userprofile where user_id = 4; delete from {c}.auth_user where id = 4", c=name)
    assert sorted(findings(pupils, KEEP)) == [(U, "missing", 4, None), (P, "missing", 5004, None)]
    assert run(pupils, "select * from rollbook.repair()") == [(KEEP, U, 1, 0, 0), (KEEP, P, 1, 0, 0)]
    run(pupils, "update portal.auth_user set password = 'new', is_active = false where id = 4")
    assert (held(pupils, KEEP), faults(pupils)) == (([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3]), [])


def test_nothing_is_found_where_nothing_differs(portal: Db) -> None:
    assert (findings(portal), run(portal, "select * from rollbook.repair()")) == ([], [])
    enroll(portal, add_user(portal, "ada"), "edX/none")
    assert (findings(portal), run(portal, "select * from rollbook.repair()")) == ([], [])
    for on_leave in ("keep", "remove"):
        run(portal, "select rollbook.create_course(%s, %s)", on_leave, on_leave)
    assert (findings(portal), run(portal, "select * from rollbook.repair()")) == ([], [])


def test_an_unknown_course_is_refused(school: Db) -> None:
    for course in ("edX/none", "", "default", KEEP.upper(), schema(school, KEEP)):
        refused(school, "RB006", "select * from rollbook.verify(%s)", course)
        refused(school, "RB006", "select * from rollbook.repair(%s)", course)


BETWEEN_KEYS: dict[str, LiteralString] = {
    "missing": """delete from {c}.auth_user where id = 1; delete from {c}.auth_userprofile where user_id = 2;
        delete from {c}.student_courseenrollment where user_id < 3""",
    "extra": """insert into {c}.student_courseenrollment values (995, 999, 'x', now());
        insert into {c}.auth_userprofile values (994, 999, '', '', '', '', '');
        insert into {c}.auth_user values (999, 'x', '', '', '', '!', false, true, false, null, now())""",
    "changed, to a missing user": """delete from {c}.auth_user where id = 1;
        update {c}.student_courseenrollment set user_id = 2 where user_id = 1""",
    "changed, to an extra user": """
        insert into {c}.auth_user values (999, 'x', '', '', '', '!', false, true, false, null, now());
        update {c}.student_courseenrollment set user_id = 999 where user_id = 3;
        update {c}.auth_userprofile set user_id = 999 where user_id = 2""",
}


@pytest.mark.parametrize("drift", BETWEEN_KEYS)
def test_repair_keeps_the_foreign_keys_of_the_course(pupils: Db, drift: str) -> None:
    add_foreign_keys(pupils, *COURSES)
    for course in COURSES:
        plant(pupils, BETWEEN_KEYS[drift], c=schema(pupils, course))
    run(pupils, "select rollbook.repair()")
    assert faults(pupils) == []
    assert held(pupils, REMOVE) == ([1, 2, 3], [1, 2, 3], [1, 2, 3])


def test_an_extra_row_that_the_course_refers_to_is_refused_by_name(pupils: Db) -> None:
    name = schema(pupils, REMOVE)
    plant(
        pupils, "insert into {c}.auth_user values (999, 'x', '', '', '', '!', false, true, false, null, now())", c=name
    )
    run(pupils, "create table {c}.grade as select 999::bigint as user_id", c=name)
    run(pupils, "alter table {c}.grade add foreign key (user_id) references {c}.auth_user", c=name)
    before = versions(pupils)
    said = refused(pupils, "23R04", "select rollbook.repair()")
    assert REMOVE in str(said.message_primary)
    assert versions(pupils) == before


BROKEN: dict[LiteralString, str] = {
    "drop table {c}.auth_user cascade": USER,
    "drop table {c}.student_courseenrollment": ENROLLMENT,
    "alter table {c}.auth_userprofile drop goals cascade, drop meta cascade": PROFILE,
    "alter table {c}.auth_user rename email to mail": USER,
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_copy_that_lacks_a_table_or_column_cannot_be_compared(pupils: Db, broken: LiteralString) -> None:
    run(pupils, broken, c=schema(pupils, KEEP))
    said = refused(pupils, "RB008", "select * from rollbook.verify(%s)", KEEP)
    assert KEEP in str(said.message_primary)
    assert BROKEN[broken] in str(said.message_primary)
    assert "rollbook.repair(" in str(said.message_hint)
    refused(pupils, "RB008", "select * from rollbook.verify()")
    assert findings(pupils, REMOVE) == []
    compared = run(pupils, "select * from rollbook.compare(null)")
    assert [row for row in compared if row[0] == KEEP and row[1] == BROKEN[broken]] == [
        (KEEP, BROKEN[broken], None, None, None, None, None, "not_comparable")
    ]
    assert {row[7] for row in compared if row[:2] != (KEEP, BROKEN[broken])} == {"match"}
    run(pupils, "select * from rollbook.repair(%s)", KEEP)
    assert faults(pupils) == []


def test_verify_is_as_of_one_snapshot(live_pupils: Db, dsn: str) -> None:
    with psycopg.connect(dsn) as reader:
        run(reader, "declare seen cursor for select * from rollbook.verify()")  # takes the snapshot, computes nothing
        plant(live_pupils, "update {c}.auth_user set email = 'x'", c=schema(live_pupils, KEEP))
        plant(live_pupils, "delete from portal.student_courseenrollment")
        assert run(reader, "fetch all from seen") == []
    assert len(findings(live_pupils)) > 0


def test_verify_finds_nothing_while_writers_write(live_pupils: Db, dsn: str) -> None:
    stop = threading.Event()

    def write(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as writer:
            while not stop.is_set():
                run(writer, "update portal.auth_user set first_name = 'x' || random() where id = %s", number)
                run(writer, "update portal.auth_userprofile set goals = 'x' || random() where user_id = %s", number)
                leave(writer, number, REMOVE)
                enroll(writer, number, REMOVE)

    writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
    for thread in writers:
        thread.start()
    try:
        found = [findings(live_pupils, course) for _ in range(15) for course in (None, REMOVE)]
        repaired = [run(live_pupils, "select * from rollbook.repair()") for _ in range(5)]
    finally:
        stop.set()
        for thread in writers:
            thread.join()
    assert (found, repaired) == ([[]] * 30, [[]] * 5)
    assert faults(live_pupils) == []


def test_compare_counts_what_should_be_what_is_and_what_differs(pupils: Db) -> None:
    assert run(pupils, "select * from rollbook.compare(null)") == [
        (course, table, rows, rows, 0, 0, 0, "match")
        for course in sorted(COURSES)
        for table in TABLES
        for rows in [4 if course == KEEP and table != ENROLLMENT else 3]
    ]
    plant(
        pupils,
        """delete from {c}.auth_user where id = 1; update {c}.auth_user set email = '' where id in (2, 3);
        insert into {c}.auth_user select 990 + i, 'x', '', '', '', '!', false, true, false, null, now()
            from generate_series(1, 5) i;
        delete from {c}.student_courseenrollment""",
        c=schema(pupils, KEEP),
    )
    differing = [
        (KEEP, USER, 4, 8, 1, 2, 5, "differs"),
        (KEEP, PROFILE, 4, 4, 0, 0, 0, "match"),
        (KEEP, ENROLLMENT, 3, 0, 3, 0, 0, "differs"),
    ]
    assert run(pupils, "select * from rollbook.compare(%s)", [KEEP, "edX/none"]) == differing
    assert [row for row in run(pupils, "select * from rollbook.compare(null)") if row[0] == KEEP] == differing
    assert run(pupils, "select * from rollbook.compare('{}')") == []
    run(pupils, "select rollbook.repair()")
    run(pupils, "delete from rollbook.route where user_id = 1")
    assert [row for row in run(pupils, "select * from rollbook.compare(null)") if row[7] != "match"] == [
        (KEEP, "route", None, 4 - 1, 1, 0, 0, "differs"),
        (REMOVE, "route", None, 3 - 1, 1, 0, 0, "differs"),
    ]
    assert value(pupils, "select count(*) from rollbook.verify()") == 2
