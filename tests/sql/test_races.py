"""Races: sessions change the copies of one student, in every order, at every isolation level.

Whatever they do, each side commits, or gets 40001 (or a plain refusal of the portal's own constraints), and never a
deadlock; then every copy equals the portal, by rollbook.verify and by a comparison that Rollbook has no part in.

Also tests what serializes them: lock_courses, lock_course_set with hold_courses, touch_routes.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle, product
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.databases import Databases
from tests.sql.helpers import Db, Rows, create, findings, plant, run
from tests.sql.helpers import schema as schema_of
from tests.sql.stepping import JOURNAL, LEVELS, LIMIT_SECONDS, POOL, Case, Result, Stepper, gaps, race

Session = Callable[[], Db]
Steppers = tuple[Stepper, Stepper, Stepper]
SERIALIZATION, DEADLOCK, NO_USER, DUPLICATE = "40001", "40P01", "23503", "23505"
COURSES = {"K": "keep", "R": "remove", "F": "keep", "N": "keep", "M": "remove"}  # members of K and R, formerly of F
POLICIES = ["keep", "remove", "remove", "keep"]
VARIANTS = list(product((True, False), product(LEVELS, LEVELS), (True, False)))  # who is first, levels, overlapping
ALIKE_OR_MIXED = [("RC", "RC"), ("RR", "RR"), ("SER", "SER"), ("RC", "RR"), ("RR", "RC")]

ENROL: LiteralString = "insert into portal.student_courseenrollment (user_id, course_id) "
LEAVE: LiteralString = "delete from portal.student_courseenrollment where "
MOVE: LiteralString = "update portal.student_courseenrollment set course_id = "
INSERT_PROFILE: LiteralString = "insert into portal.auth_userprofile (user_id, name) values "
DELETE_USER: LiteralString = "delete from portal.auth_user where id = "
# One statement each, on user %(u)s. %(v)s tells the two sessions apart, so that a lost update shows.
OPERATIONS: dict[str, LiteralString] = {
    "enrol": ENROL + "values (%(u)s, 'N'), (%(u)s, 'M')",
    "re-enrol": ENROL + "values (%(u)s, 'F'), (%(u)s, 'K'), (%(u)s, 'R') "
    "on conflict (user_id, course_id) do update set created = now()",
    "leave (keep)": LEAVE + "user_id = %(u)s and course_id = 'K'",
    "leave (remove)": LEAVE + "user_id = %(u)s and course_id = 'R'",
    "move": MOVE + "case course_id when 'K' then 'M' else 'N' end where user_id = %(u)s and course_id in ('K', 'R')",
    "update user": "update portal.auth_user set first_name = %(v)s, is_active = false where id = %(u)s",
    "update profile": "update portal.auth_userprofile set name = %(v)s where user_id = %(u)s",
    "insert profile": INSERT_PROFILE + "(%(u)s, %(v)s)",
    "delete profile": "delete from portal.auth_userprofile where user_id = %(u)s",
    "delete user": DELETE_USER + "%(u)s",
}
# The same where enrollments count while is_active. A case of "flip on" starts with those of K and R false.
FLIP: LiteralString = "update portal.student_courseenrollment set is_active = "
FLIPS: dict[str, LiteralString] = {
    "flip off": FLIP + "false where user_id = %(u)s and course_id in ('K', 'R')",
    "flip on": FLIP + "true where user_id = %(u)s and course_id in ('K', 'R')",
}
# The same on course %(c)s, for the races with its creation, its end and its repair.
IN_COURSE: dict[str, LiteralString] = OPERATIONS | {
    "enrol": ENROL + "values (%(u)s, %(c)s)",
    "leave": LEAVE + "user_id = %(u)s and course_id = %(c)s",
    "move": MOVE + "%(c)s where course_id = 'moves to ' || %(c)s",
    "create course": "select rollbook.create_course(%(c)s, %(p)s)",
    "drop course": "select rollbook.drop_course(%(c)s)",
    "repair": "select * from rollbook.repair(%(c)s)",
    "repair users": "select * from rollbook.repair_users(array[%(u)s], array[%(c)s])",
    "pause course": "select rollbook.pause_course(%(c)s)",
    "resume course": "select * from rollbook.resume_course(%(c)s)",
    "let travel": "select * from rollbook.update_course(%(c)s, '{}')",
    "leave out": "select * from rollbook.update_course(%(c)s, '{first_name,name}')",
    "flip off": FLIP + "false where user_id = %(u)s and course_id = %(c)s",
    "flip on": FLIP + "true where user_id = %(u)s and course_id = %(c)s",
}
LEAVING = ["delete user", *FLIPS]
# What the portal's own constraints may answer to an operation that races with another. Nothing else is allowed.
REFUSALS = {
    **{(operation, "delete user"): NO_USER for operation in ("enrol", "re-enrol", "insert profile")},
    **{(operation, operation): DUPLICATE for operation in ("enrol", "insert profile")},
    **dict.fromkeys([("enrol", "move"), ("move", "enrol"), ("insert profile", "delete profile")], DUPLICATE),
}
# These do not meet: an update of a profile that is not there yet changes nothing.
APART = {frozenset({"insert profile", "update profile"})}


@pytest.fixture(scope="session")
def grounds(databases: Databases, flagged_databases: Databases) -> Callable[[bool, bool], Databases]:
    """Databases with the courses and the journal: (enrollments count while is_active, a course for each case)."""

    @cache
    def made(flagged: bool, course_each: bool) -> Databases:
        where = flagged_databases if flagged else databases
        return where.filled(f"races_{flagged}_{course_each}".lower(), begin_with_each if course_each else begin)

    return made


@pytest.fixture
def course_each() -> None:
    """With this, `db` has a course for each case of `matrix`."""


@pytest.fixture
def db(request: pytest.FixtureRequest, grounds: Callable[[bool, bool], Databases]) -> Iterator[Db]:
    """A database with the courses and the journal; where a flip is played, enrollments count while is_active."""
    played = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
    kind = grounds(bool(FLIPS.keys() & set(played)), "course_each" in request.fixturenames)
    with kind.lent() as conn:
        yield conn


def begin(db: Db) -> None:
    """Make the courses and the journal."""
    for course, on_leave in COURSES.items():
        create(db, course, on_leave)
    db.execute(JOURNAL)


def begin_with_each(db: Db) -> None:
    """Make a course for each case besides."""
    begin(db)
    for number, (on_leave, *_) in enumerate(zip(cycle(POLICIES), VARIANTS), start=1):
        create(db, f"course {number}", on_leave)


@pytest.fixture
def steppers(db: Db, session: Session) -> Steppers:
    """Three sessions on a database with the courses."""
    return Stepper(session(), db), Stepper(session(), db), Stepper(session(), db)


def add_users(db: Db, how_many: int, *, profiles: bool = True, courses: str = "KRF") -> None:
    """Add users 1, 2, ... with profiles, enrolled in the courses; they leave F again."""
    users: LiteralString = (
        "insert into portal.auth_user (id, username) select n, 'user' || n from generate_series(1, %s) as n"
    )
    run(db, users, how_many)
    if profiles:
        run(db, "insert into portal.auth_userprofile (user_id) select id from portal.auth_user")
    run(db, ENROL + "select u.id, c.id from portal.auth_user as u, unnest(%s::text[]) as c (id)", list(courses))
    run(db, LEAVE + "course_id = 'F'")


def allowed(error: str, operation: str, other: str, level: str) -> bool:
    """Say whether an operation may end so. Dropping a course may be refused where the snapshot can be old."""
    refused = (
        operation in {"drop course", "resume course", "let travel", "leave out"}
        and level != "RC"
        and error.startswith("RB")
    )
    return refused or error in {"", SERIALIZATION, REFUSALS.get((operation, other))}


def faults(db: Db, results: list[Result]) -> list[str]:
    """Name the cases that ended wrongly: errors, sessions that passed each other by, copies that differ."""
    by_user = {result.case.user: result for result in results}
    told = []
    for result in results:
        case, (error, other_error) = result.case, result.errors
        right = allowed(error, case.first, case.second, case.levels[0])
        right = right and allowed(other_error, case.second, case.first, case.levels[1])
        if not right or result.errors == (SERIALIZATION, SERIALIZATION):
            told.append(f"{case}: {result.errors}")
        if not result.met() and case.sides not in APART:
            told.append(f"{case}: the second did not notice the first")
    told += [f"{by_user[user].case} {by_user[user].errors}: {words}" for user, words in gaps(db)]
    return told + [f"verify: {finding}" for finding in findings(db)]


@pytest.mark.parametrize("one", FLIPS | OPERATIONS)
def test_two_operations_on_one_user(db: Db, steppers: Steppers, one: str) -> None:
    """Every pair, in a test for each operation with itself and those below it."""
    operations = FLIPS | OPERATIONS
    others = list(operations)[list(operations).index(one) :]
    orders = [order for other in others for order in sorted({(one, other), (other, one)})]
    variants = product(orders, product(LEVELS, LEVELS) if one in FLIPS else ALIKE_OR_MIXED, (True, False))
    cases = [Case(user, *order, levels, overlap) for user, (order, levels, overlap) in enumerate(variants, start=1)]
    add_users(db, len(cases))
    without = [case.user for case in cases if "insert profile" in case.sides and "delete profile" not in case.sides]
    run(db, "delete from portal.auth_userprofile where user_id = any (%s)", without)
    if one in FLIPS:
        starts_off = [case.user for case in cases if "flip on" in case.sides and case.first != "flip off"]
        run(db, FLIP + "false where user_id = any (%s)", starts_off)
    assert faults(db, [race(*steppers[:2], case, operations) for case in cases]) == []


def matrix(db: Db, one: str, other: str, *, routed: bool = True) -> list[Case]:
    """Return all cases of an operation against one on a course, each with a user and a course of its own.

    Users who are not routed have been nowhere yet and have no profile: the row where sessions meet is not there either.
    """
    policies = cycle(POLICIES)
    cases = [
        Case(user, *((one, other) if is_first else (other, one)), levels, overlap, f"course {user}", next(policies))
        for user, (is_first, levels, overlap) in enumerate(VARIANTS, start=1)
    ]
    add_users(db, len(cases), profiles=routed and other != "insert profile", courses="KRF" if routed else "")
    if other != "enrol":
        start = "moves to course " if other == "move" else "course "
        into: LiteralString = ENROL if other != "flip on" else ENROL.replace(")", ", is_active)")
        run(db, into + "select id, %s || id" + (", false" if into != ENROL else "") + " from portal.auth_user", start)
    return cases


@pytest.mark.parametrize(
    ("operation", "routed"),
    [
        *product(["enrol", "leave", "update user", "insert profile", "delete user"], [True, False]),
        *product(["move", *FLIPS], [True]),
    ],
)
def test_create_course_against(db: Db, steppers: Steppers, operation: str, routed: bool) -> None:
    cases = matrix(db, "create course", operation, routed=routed)
    results = [race(*steppers[:2], case, IN_COURSE) for case in cases]
    # Who left before the course was there has never been in it.
    left = [r.case.user for r in results if r.case.first in {"leave", "flip off"} and r.errors[0] == ""]
    run(db, "delete from public.joined where course_id = 'course ' || user_id and user_id = any (%s)", left)
    assert faults(db, results) == []


@pytest.mark.usefixtures("course_each")
@pytest.mark.parametrize("operation", ["enrol", "leave", "move", "update user", *LEAVING])
def test_drop_course_against(db: Db, steppers: Steppers, operation: str) -> None:
    cases = matrix(db, "drop course", operation)
    schemas = {case: schema_of(db, case.course) for case in cases}
    results = [race(*steppers[:2], case, IN_COURSE) for case in cases]
    dropped = {schemas[r.case]: r for r in results if r.errors[r.case.first != "drop course"] == ""}
    schemas_left = run(db, "select nspname, 'schema' from pg_namespace where nspname = any (%s)", list(dropped))
    routes_left = run(db, "select unnest(schemas), 'route of user ' || user_id from rollbook.route")
    told = [f"{dropped[name].case}: {what} left" for name, what in schemas_left + routes_left if name in dropped]
    assert told + faults(db, results) == []
    run(db, "update portal.auth_user set first_name = 'after'")  # nobody is routed to what is gone
    assert gaps(db) == []


# What is wrong in a course before its repair meets an operation.
CHANGED: LiteralString = "update {schema}.auth_user set first_name = 'drift' where id = %s"
LACKING: LiteralString = "delete from {schema}.auth_userprofile where user_id = %s"
NOT_DUE: LiteralString = "insert into {schema}.auth_user select * from portal.auth_user where id = %s"
UNROUTED: LiteralString = "update rollbook.route set schemas = '{{course_f,course_k,course_r}}' where user_id = %s"
DRIFT: dict[str, list[LiteralString]] = {
    "enrol": [NOT_DUE, CHANGED],
    "leave": [CHANGED, LACKING],
    "update user": [CHANGED, LACKING, UNROUTED],
    "delete user": [LACKING],
    "flip off": [CHANGED, LACKING],
    "flip on": [NOT_DUE, CHANGED],
}


@pytest.mark.usefixtures("course_each")
@pytest.mark.parametrize("repair", ["repair", "repair users"])
@pytest.mark.parametrize("operation", DRIFT)
def test_repair_against(db: Db, steppers: Steppers, operation: str, repair: str) -> None:
    results = []
    for case in matrix(db, repair, operation):
        schema = schema_of(db, case.course)
        for statement in DRIFT[operation]:
            plant(db, statement, case.user, schema=schema)
        results.append(race(*steppers[:2], case, IN_COURSE))
        if results[-1].errors[case.first != repair] == SERIALIZATION:
            run(db, "select rollbook.repair(%s)", case.course)
    assert faults(db, results) == []


@pytest.mark.usefixtures("course_each")
@pytest.mark.parametrize("operation", ["enrol", "leave", "move", "update user", "update profile", *LEAVING])
def test_resume_course_against(db: Db, steppers: Steppers, operation: str) -> None:
    """A writer comes before the repair that resume does, or sees the course resumed."""
    results = []
    for case in matrix(db, "resume course", operation):
        run(db, "select rollbook.pause_course(%s)", case.course)
        run(db, "update portal.auth_userprofile set goals = 'behind' where user_id = %s", case.user)
        results.append(race(*steppers[:2], case, IN_COURSE))
        if results[-1].errors[case.first != "resume course"]:  # above READ COMMITTED it is refused
            run(db, "select rollbook.resume_course(%s)", case.course)
    assert faults(db, results) == []


@pytest.mark.usefixtures("course_each")
@pytest.mark.parametrize("update", ["let travel", "leave out"])
@pytest.mark.parametrize("operation", ["enrol", "leave", "move", "update user", "update profile", *LEAVING])
def test_update_course_against(db: Db, steppers: Steppers, operation: str, update: str) -> None:
    """A column travels again, or stays at home, while somebody writes it: no value is missed, and none overwritten."""
    results = []
    for case in matrix(db, update, operation):
        schema = schema_of(db, case.course)
        if update == "let travel":
            run(db, "select rollbook.update_course(%s, '{first_name,name}')", case.course)
            run(db, "update {schema}.auth_user set first_name = 'own'", schema=schema)
            run(db, "update {schema}.auth_userprofile set name = 'own'", schema=schema)
        results.append(race(*steppers[:2], case, IN_COURSE))
        if update == "leave out" or results[-1].errors[case.first != update]:  # above READ COMMITTED it is refused
            run(db, "select rollbook.update_course(%s, '{}')", case.course)
    assert faults(db, results) == []


@pytest.mark.usefixtures("course_each")
@pytest.mark.parametrize("operation", ["enrol", "leave", "move", "update user", *LEAVING])
def test_pause_course_against(db: Db, steppers: Steppers, operation: str) -> None:
    """They need not notice each other: the one who comes late writes a copy that resume would write."""
    results = []
    for case in matrix(db, "pause course", operation):
        results.append(race(*steppers[:2], case, IN_COURSE))
        run(db, "select rollbook.resume_course(%s)", case.course)
    assert [str(r.case) for r in results if r.waited or r.errors != ("", "")] == []
    assert gaps(db) + findings(db) == []


# Name -> a statement that a third session stops half-way by a lock on a row of user 1, and one that comes then.
# Users 1 to 4 are in K and R; X and Z are not made yet.
MEMBERS = ENROL + "values (1, 'N'), (3, 'N'), (1, 'X'), (2, 'X'), (4, 'Z')"
MIDWAY: dict[str, tuple[LiteralString, LiteralString]] = {
    "drop course, delete user": ("select rollbook.drop_course('K')", DELETE_USER + "2"),
    "drop course, move back": ("select rollbook.drop_course('N')", MOVE + "'N' where user_id = 3 and course_id = 'R'"),
    "create course, delete user": ("select rollbook.create_course('X')", DELETE_USER + "2"),
    "move, move": (MOVE + "'Z' where user_id = 1 and course_id = 'X'", MOVE + "'X' where course_id = 'Z'"),
    "truncate, move": ("truncate portal.auth_userprofile", MOVE + "'N' where user_id = 2 and course_id = 'R'"),
    "truncate, delete user": ("truncate portal.student_courseenrollment", DELETE_USER + "2"),
    "leave, truncate": (LEAVE + "user_id = 1 and course_id = 'K'", "truncate portal.auth_user cascade"),
    "profile, truncate": (
        "update portal.auth_userprofile set name = 'new' where user_id = 1",
        "truncate portal.auth_user cascade",
    ),
    "repair, update": ("select rollbook.repair()", "update portal.auth_user set first_name = 'new' where id in (2, 3)"),
}


@pytest.mark.parametrize("name", MIDWAY)
def test_no_deadlock_midway(db: Db, steppers: Steppers, name: str) -> None:
    one, two, holder = steppers
    add_users(db, 4)
    run(db, MEMBERS)
    run(db, LEAVE + "user_id = 3 and course_id = 'N'")
    if name == "repair, update":
        plant(db, "update course_k.auth_user set first_name = 'drift' where id = 3")
        plant(db, "update course_r.auth_user set first_name = 'drift' where id in (1, 2)")
    for stepper in steppers:
        stepper.begin()
    held: LiteralString = "portal.auth_userprofile" if name == "profile, truncate" else "rollbook.route"
    holder.step("select from " + held + " where user_id = 1 for update")
    assert one.step(MIDWAY[name][0]), "the first is not held up"
    two.step(MIDWAY[name][1])
    assert holder.end() == ""
    second = POOL.submit(two.end)
    assert (one.end(), second.result()) == ("", "")
    assert gaps(db) + findings(db) == []


# What others commit after the snapshot of a REPEATABLE READ transaction, and what that does then. User 3 has no
# profile, no course and no route; user 4 got a profile and an enrollment in R behind Rollbook's back.
JOIN = ENROL + "values (3, 'K')"
OLD_SNAPSHOT: dict[str, tuple[list[LiteralString], LiteralString]] = {
    "delete a user who came and went": ([JOIN, LEAVE + "user_id = 3"], DELETE_USER + "3"),
    "leave after a repair": (["select rollbook.repair()"], LEAVE + "user_id = 4"),
    "delete profile after a repair": (
        ["select rollbook.repair()"],
        "delete from portal.auth_userprofile where user_id = 4",
    ),
    "truncate enrollments": ([JOIN], "truncate portal.student_courseenrollment"),
    "truncate profiles": ([JOIN, INSERT_PROFILE + "(3, 'new')"], "truncate portal.auth_userprofile"),
    "truncate users": ([JOIN], "truncate portal.auth_user cascade"),
}


@pytest.mark.parametrize("name", OLD_SNAPSHOT)
def test_an_old_snapshot_leaves_no_copy_behind(db: Db, steppers: Steppers, name: str) -> None:
    meanwhile, late = OLD_SNAPSHOT[name]
    add_users(db, 2)
    run(db, "insert into portal.auth_user (id, username) values (3, 'user3'), (4, 'user4')")
    if name.endswith("repair"):
        plant(db, INSERT_PROFILE + "(4, '')")
        plant(db, ENROL + "values (4, 'R')")
    steppers[0].begin("RR")
    for statement in meanwhile:
        run(db, statement)
    steppers[0].step(late)
    error = steppers[0].end()
    assert error in {"", SERIALIZATION} or (late.startswith("truncate") and error.startswith("RB"))
    assert gaps(db) + findings(db) == []


# All on different users: those of the one session are far from those of the other in every index.
APART_STATEMENTS: list[LiteralString] = [
    ENROL + "values (%(first)s, 'N'), (%(first)s, 'M')",
    LEAVE + "user_id = %(first)s + 2 and course_id = 'K'",
    LEAVE + "user_id = %(first)s + 4 and course_id = 'R'",
    "update portal.auth_user set first_name = 'new' where id = %(first)s + 6",
    "update portal.auth_userprofile set name = 'new' where user_id = %(first)s + 8",
    ENROL + "values (%(first)s + 10, 'N')",
]


def test_serializable_writers_of_different_users_are_not_refused(db: Db, steppers: Steppers) -> None:
    add_users(db, 2000, courses="KRFMN")
    run(db, LEAVE + "course_id in ('M', 'N') and user_id % 2 = 0")
    db.execute("vacuum analyze")
    one, two, _ = steppers
    for stepper in (one, two):
        stepper.begin("SER")
    for statement in APART_STATEMENTS:
        for first, stepper in ((100, one), (1900, two)):
            assert not stepper.step(statement, {"first": first})
    assert (one.end(), two.end()) == ("", "")
    assert gaps(db) + findings(db) == []


# Name -> what sessions run side by side: the first statements at the same moment, then the second ones.
# Each locks the portal's own rows in an order that could not deadlock without Rollbook.
SOME: LiteralString = "case {} % 2 when 0 then 'K' else 'N' end"
OTHERS: LiteralString = "case {} % 2 when 1 then 'K' else 'N' end"
RENAME: LiteralString = """
    with locked as (select id from portal.auth_user where id between {} order by id for no key update)
    update portal.auth_user as u set first_name = clock_timestamp()::text from locked where u.id = locked.id"""
ALL: LiteralString = "select id, {} from portal.auth_user order by id on conflict do nothing"
CLASHES: dict[str, list[list[LiteralString]]] = {
    "enrol and leave in opposite order": [
        [ENROL + ALL.replace("{}", SOME.replace("{}", "id")), LEAVE + "course_id = " + SOME.replace("{}", "user_id")],
        [
            ENROL + ALL.replace("{}", OTHERS.replace("{}", "id")).replace("order by id", "order by id desc"),
            LEAVE + "course_id = " + OTHERS.replace("{}", "user_id"),
        ],
    ],
    "update users and profiles": [
        [RENAME.replace("{}", "1 and 150")],
        [RENAME.replace("{}", "50 and 200")],
        ["update portal.auth_userprofile set name = clock_timestamp()::text"],
    ],
    "enrol, truncate profiles": [
        [ENROL + ALL.replace("{}", "'K'"), LEAVE + "course_id = 'K'"],
        [
            "truncate portal.auth_userprofile",
            "insert into portal.auth_userprofile (user_id) select id from portal.auth_user",
        ],
    ],
    "enrol, truncate enrollments": [
        [ENROL + ALL.replace("{}", "'K'"), ENROL + ALL.replace("{}", "'N'")],
        ["truncate portal.student_courseenrollment", "truncate portal.student_courseenrollment"],
    ],
    "leave, delete a user": [
        [LEAVE + "course_id = 'R'", ENROL + ALL.replace("{}", "'R'")],
        [DELETE_USER + "100", "insert into portal.auth_user (id, username) values (100, 'user100')"],
    ],
}


def clash(session: Session, rounds: int, scripts: list[list[LiteralString]]) -> Counter[str]:
    """Run scripts side by side, statement by statement at the same moment; count what they met with."""
    start = threading.Barrier(len(scripts), timeout=LIMIT_SECONDS)

    def play(connection: Db, script: list[LiteralString]) -> Counter[str]:
        met = Counter[str]()
        for statement in script * rounds:
            start.wait()
            try:
                connection.execute(statement)
            except psycopg.Error as error:
                met[f"{error.sqlstate}: {statement}"] += 1
        return met

    return sum((played.result() for played in [POOL.submit(play, session(), script) for script in scripts]), Counter())


@pytest.mark.parametrize("name", CLASHES)
def test_bulk_statements_do_not_deadlock(db: Db, session: Session, name: str) -> None:
    add_users(db, 200, courses="RF")
    assert clash(session, 10, CLASHES[name]) == {}
    assert gaps(db) + findings(db) == []


# What random clients do. Only the first 30 users are ever deleted, only the others move, and only to a later course:
# else the portal's own rows and unique keys could deadlock by themselves.
STATEMENTS: list[LiteralString] = [
    ENROL + "values (%(anybody)s, %(lower)s) on conflict do nothing",
    ENROL + "values (%(anybody)s, %(higher)s)",
    LEAVE + "user_id = %(anybody)s and course_id = %(lower)s",
    LEAVE + "user_id = %(anybody)s and course_id = %(higher)s",
    MOVE + "%(higher)s where user_id = %(mover)s and course_id = %(lower)s",
    "update portal.auth_user set first_name = %(v)s where id = %(anybody)s",
    "update portal.auth_userprofile set name = %(v)s where user_id = %(anybody)s",
    INSERT_PROFILE + "(%(anybody)s, %(v)s) on conflict do nothing",
    "delete from portal.auth_userprofile where user_id = %(anybody)s",
    DELETE_USER + "%(mortal)s",
    FLIP + "not is_active where user_id = %(anybody)s and course_id = %(lower)s",
    FLIP + "not is_active where user_id = %(anybody)s",
    "insert into portal.auth_user (id, username) values (%(mortal)s, 'user' || %(mortal)s) on conflict do nothing",
]
ORPHANS: LiteralString = """
    select * from {schema}.student_courseenrollment as e
    where not exists (select from {schema}.auth_user as u where u.id = e.user_id)"""


def write(connection: Db, deadline: float, longest: int, chance: random.Random) -> Counter[str]:
    """Run random transactions, each until it is not to be tried again; count how they ended."""
    ended = Counter[str]()
    while time.monotonic() < deadline:
        lower, higher = sorted(chance.sample("KMNR", 2))
        values: dict[str, Any] = {"lower": lower, "higher": higher, "v": str(chance.random())}
        values |= {"anybody": chance.randint(1, 40), "mortal": chance.randint(1, 30), "mover": chance.randint(31, 40)}
        script = chance.sample(STATEMENTS, chance.randint(1, longest))
        begin = sql.SQL("begin isolation level {}").format(sql.SQL(LEVELS[chance.choice(list(LEVELS))]))
        error: str | None = SERIALIZATION
        while error in {SERIALIZATION, DEADLOCK}:
            try:
                connection.execute(begin)
                for statement in script:
                    connection.execute(statement, values)
                connection.execute("commit")
                error = ""
            except psycopg.Error as caught:
                connection.execute("rollback")
                error = caught.sqlstate
            ended[str(error)] += 1
    return ended


def read(connection: Db, deadline: float) -> Rows:
    """Look at everything in one snapshot, again and again; return what is wrong in it."""
    wrong: Rows = []
    while time.monotonic() < deadline and not wrong:
        connection.execute("begin isolation level repeatable read")
        wrong = findings(connection)
        for course in COURSES:
            wrong += run(connection, ORPHANS, schema=f"course_{course.lower()}")
        connection.execute("commit")
    return wrong


def test_random_statements_at_mixed_levels(flagged: Db, flagged_session: Session) -> None:
    """Transactions of one statement never deadlock; longer ones may, as they may without Rollbook, and are repeated."""
    db, session = flagged, flagged_session
    begin(db)
    add_users(db, 40)
    for longest, seconds, may_end in (1, 4, set[str]()), (3, 2, {DEADLOCK}):
        deadline = time.monotonic() + seconds
        reading = POOL.submit(read, session(), deadline)
        writing = [POOL.submit(write, session(), deadline, longest, random.Random(seed)) for seed in range(4)]
        ended = sum((written.result() for written in writing), Counter[str]())
        assert reading.result() == []
        assert {"", SERIALIZATION} <= set(ended) <= {"", SERIALIZATION, NO_USER, DUPLICATE} | may_end, ended
        assert gaps(db) + findings(db) == []
