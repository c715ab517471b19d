"""Races: two sessions change what one student's copies must show, in every order, at every isolation level.

Whatever they do, each side commits, or gets 40001 (or a plain refusal of the portal's own constraints), never a deadlock;
and afterwards every copy equals the portal, by rollbook.verify and by a comparison that Rollbook has no part in.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations_with_replacement, count, product
from typing import Any, LiteralString

import psycopg
import pytest

from tests.sql.helpers import Db, create, findings, plant, run
from tests.sql.stepping import JOURNAL, LEVELS, LIMIT_SECONDS, POOL, Case, Result, Stepper, gaps, race

Session = Callable[[], Db]
COURSES = {"K": "keep", "R": "remove", "F": "keep", "N": "keep", "M": "remove"}  # in F once, not yet in N and M
ALIKE_OR_MIXED = [("RC", "RC"), ("RR", "RR"), ("SER", "SER"), ("RC", "RR"), ("RR", "RC")]
SERIALIZATION, DEADLOCK, NO_USER, DUPLICATE, NO_COURSE = "40001", "40P01", "23503", "23505", "RB006"

# One statement each, on user %(u)s. %(v)s tells the two sessions apart, so that a lost update shows.
OPERATIONS: dict[str, LiteralString] = {
    "enrol": "insert into portal.student_courseenrollment (user_id, course_id) values (%(u)s, 'N'), (%(u)s, 'M')",
    "re-enrol": "insert into portal.student_courseenrollment (user_id, course_id) "
    "values (%(u)s, 'F'), (%(u)s, 'K'), (%(u)s, 'R') on conflict (user_id, course_id) do update set created = now()",
    "leave (keep)": "delete from portal.student_courseenrollment where user_id = %(u)s and course_id = 'K'",
    "leave (remove)": "delete from portal.student_courseenrollment where user_id = %(u)s and course_id = 'R'",
    "move": "update portal.student_courseenrollment set course_id = case course_id when 'K' then 'M' else 'N' end "
    "where user_id = %(u)s and course_id in ('K', 'R')",
    "update user": "update portal.auth_user set first_name = %(v)s, is_active = false where id = %(u)s",
    "update profile": "update portal.auth_userprofile set name = %(v)s where user_id = %(u)s",
    "insert profile": "insert into portal.auth_userprofile (user_id, name) values (%(u)s, %(v)s)",
    "delete profile": "delete from portal.auth_userprofile where user_id = %(u)s",
    "delete user": "delete from portal.auth_user where id = %(u)s",
}
# The same on course %(c)s, for the races with its creation, its end and its repair.
IN_COURSE: dict[str, LiteralString] = OPERATIONS | {
    "enrol": "insert into portal.student_courseenrollment (user_id, course_id) values (%(u)s, %(c)s)",
    "leave": "delete from portal.student_courseenrollment where user_id = %(u)s and course_id = %(c)s",
    "create course": "select rollbook.create_course(%(c)s, %(p)s)",
    "drop course": "select rollbook.drop_course(%(c)s)",
    "repair": "select * from rollbook.repair(%(c)s)",
}
# What the portal's own constraints may answer to an operation in a race with another. Nothing else is allowed.
DUPLICATES = {("enrol", "enrol"), ("enrol", "move"), ("move", "enrol"), ("insert profile", "insert profile")}
REFUSALS = {
    **{(operation, "delete user"): NO_USER for operation in ("enrol", "re-enrol", "insert profile")},
    **dict.fromkeys([*DUPLICATES, ("insert profile", "delete profile")], DUPLICATE),
}
# These do not meet: an update of a profile that is not there yet changes nothing.
APART = {frozenset({"insert profile", "update profile"})}


@pytest.fixture
def steppers(db: Db, session: Session) -> tuple[Stepper, Stepper, Stepper]:
    """Three sessions on a database with the courses and the journal."""
    for course, on_leave in COURSES.items():
        create(db, course, on_leave)
    db.execute(JOURNAL)
    return Stepper(session(), db), Stepper(session(), db), Stepper(session(), db)


def add_users(db: Db, how_many: int, *, profiles: bool = True, courses: str = "KRF") -> None:
    """Add users 1, 2, ... with profiles, enrolled in the courses; they leave F again."""
    run(db, "insert into portal.auth_user (id, username) select n, 'user' || n from generate_series(1, %s) as n", how_many)
    if profiles:
        run(db, "insert into portal.auth_userprofile (user_id) select id from portal.auth_user")
    run(
        db,
        "insert into portal.student_courseenrollment (user_id, course_id) "
        "select u.id, c.id from portal.auth_user as u, unnest(%s::text[]) as c (id)",
        list(courses),
    )
    run(db, "delete from portal.student_courseenrollment where course_id = 'F'")


def refused_rightly(result: Result) -> bool:
    """Say whether each side committed, or failed as it may, and not both for want of a place in line."""
    sides = (result.case.first, result.case.second)
    allowed = [{"", SERIALIZATION, REFUSALS.get(side)} for side in (sides, sides[::-1])]
    return all(error in may for error, may in zip(result.errors, allowed, strict=True)) and result.errors.count("40001") < 2


def faults(db: Db, results: list[Result]) -> list[str]:
    """Name the cases that ended wrongly: errors, sessions that passed each other by, copies that differ."""
    by_user = {result.case.user: result for result in results}
    told = [f"{result.case}: {result.errors}" for result in results if not refused_rightly(result)]
    told += [f"{r.case}: did not meet" for r in results if not r.met and {r.case.first, r.case.second} not in APART]
    told += [f"{by_user[user].case} {by_user[user].errors}: {words}" for user, words in gaps(db)]
    return told + [f"verify: {finding}" for finding in findings(db)]


@pytest.mark.parametrize(("one", "other"), list(combinations_with_replacement(OPERATIONS, 2)))
def test_two_operations_on_one_user(db: Db, steppers: tuple[Stepper, Stepper, Stepper], one: str, other: str) -> None:
    orders = sorted({(one, other), (other, one)})
    numbers = count(1)
    cases = [
        Case(next(numbers), *order, levels, overlapping)
        for order, levels, overlapping in product(orders, ALIKE_OR_MIXED, (True, False))
    ]
    operations = {one, other}
    add_users(db, len(cases), profiles="insert profile" not in operations or "delete profile" in operations)
    results = [race(*steppers[:2], case, OPERATIONS) for case in cases]
    assert faults(db, results) == []


def matrix(one: str, other: str, course: str = "{}") -> list[Case]:
    """Return the cases of an operation against one on a course: orders, all isolation levels, interleavings."""
    variants = product([(one, other), (other, one)], product(LEVELS, LEVELS), (True, False))
    policies = cycle(["keep", "remove", "remove", "keep"])
    return [
        Case(user, *order, levels, overlapping, course.format(user), next(policies))
        for user, (order, levels, overlapping) in enumerate(variants, start=1)
    ]


def enroll_each(db: Db, cases: list[Case]) -> None:
    """Enroll the user of each case in the case's course."""
    members = [(case.user, case.course) for case in cases]
    with db.cursor() as cursor:
        cursor.executemany("insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)", members)


@pytest.mark.parametrize("operation", ["enrol", "leave", "update user", "insert profile", "delete user"])
def test_create_course_against(db: Db, steppers: tuple[Stepper, Stepper, Stepper], operation: str) -> None:
    cases = matrix("create course", operation, "new/{}")
    add_users(db, len(cases), profiles=operation != "insert profile")
    if operation != "enrol":
        enroll_each(db, cases)
    results = [race(*steppers[:2], case, IN_COURSE) for case in cases]
    # Who left before the course was there has never been in it.
    gone = [r.case.user for r in results if r.case.first == "leave" and r.errors[0] == ""]
    run(db, "delete from public.joined where course_id like 'new/%%' and user_id = any (%s)", gone)
    assert faults(db, results) == []


@pytest.mark.parametrize("operation", ["enrol", "leave", "move", "update user", "delete user"])
def test_drop_course_against(db: Db, steppers: tuple[Stepper, Stepper, Stepper], operation: str) -> None:
    cases = matrix("drop course", operation, "old/{}")
    schemas = {case: create(db, case.course, case.on_leave) for case in cases}
    add_users(db, len(cases))
    if operation in {"enrol", "move"}:
        db.execute("insert into portal.student_courseenrollment (user_id, course_id) select id, 'N' from portal.auth_user")
    else:
        enroll_each(db, cases)
    results = [race(*steppers[:2], case, IN_COURSE) for case in cases]
    told = faults(db, results)
    for result in results:
        at = (result.case.first, result.case.second).index("drop course")
        schema = schemas[result.case]
        if result.errors[at] == "":
            left = run(db, "select 1 from pg_namespace where nspname = %s", schema)
            left += run(db, "select user_id from rollbook.route where schemas @> array[%s]", schema)
            told += [f"{result.case}: schema or route left: {left}"] * bool(left)
    assert told == []


@pytest.mark.parametrize("operation", ["enrol", "leave", "update user", "insert profile", "delete user"])
def test_repair_against(db: Db, steppers: tuple[Stepper, Stepper, Stepper], operation: str) -> None:
    cases = matrix("repair", operation, "R" if operation == "leave" else "K")
    ...
