"""What the tests of sql/ share: the whitelist as the contract has it, rows to start from, an oracle of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.rows import dict_row

from rollbook.core import declaring
from rollbook.core import shape as shapes

Db = Connection[Any]
Rows = list[tuple[Any, ...]]

KEEP, REMOVE = "edX/toy/2012_Fall", "edx/full/6.002_Spring_2012"
COURSES = {KEEP: "keep", REMOVE: "remove"}
USER, PROFILE, ENROLLMENT = TABLES = ("auth_user", "auth_userprofile", "student_courseenrollment")

# Written down once more, so that a slip in rollbook.replicated_columns cannot hide itself.
COLUMNS: dict[str, list[str]] = {
    USER: [
        *("id", "username", "first_name", "last_name", "email", "password"),
        *("is_staff", "is_active", "is_superuser", "last_login", "date_joined"),
    ],
    PROFILE: [
        *("id", "user_id", "name", "meta", "courseware", "language", "location"),
        *("year_of_birth", "gender", "level_of_education", "mailing_address", "goals"),
    ],
    ENROLLMENT: ["id", "user_id", "course_id", "created"],
}


def run(db: Db, query: LiteralString, *values: Any, **names: str) -> Rows:
    """Execute one statement; `{name}` in it stands for an identifier. Return its rows, if it has any."""
    statement = sql.SQL(query)
    composed = statement.format(**{name: sql.Identifier(text) for name, text in names.items()}) if names else statement
    cursor = db.execute(composed, values or None)
    return cursor.fetchall() if cursor.description else []


def value(db: Db, query: LiteralString, *values: Any, **names: str) -> Any:
    """Return the only value of the only row."""
    ((only,),) = run(db, query, *values, **names)
    return only


def refused(db: Db, code: str, query: LiteralString, *values: Any, **names: str) -> psycopg.errors.Diagnostic:
    """Assert that the statement fails with our `code` and with a remedy; return what the server said.

    A rule on data, 23Rnn, is an integrity error to the driver, and its constraint is RB0nn.
    """
    with pytest.raises(psycopg.Error) as refusal, db.transaction():
        run(db, query, *values, **names)
    said = refusal.value.diag
    assert (said.sqlstate, bool(said.message_hint)) == (code, True), str(refusal.value)
    if code.startswith("23R"):
        assert (type(refusal.value), said.constraint_name) == (psycopg.IntegrityError, f"RB0{code[3:]}")
    return said


def fails(db: Db, error: type[psycopg.Error], query: LiteralString, *values: Any, **names: str) -> None:
    """Assert that PostgreSQL refuses the statement; a transaction goes on."""
    with pytest.raises(error), db.transaction():
        run(db, query, *values, **names)


def create(db: Db, course: str, on_leave: str = "keep") -> str:
    """Make a course; return its schema."""
    return str(value(db, "select rollbook.create_course(%s, %s)", course, on_leave))


def schema(db: Db, course: str) -> str:
    """Return the schema of a course, by the catalog of courses."""
    return str(value(db, "select schema_name from rollbook.course where course_id = %s", course))


def add_foreign_keys(db: Db, *courses: str) -> None:
    """Let the profiles and enrollments of courses refer to their users, as a course may."""
    for course in courses:
        for table in (PROFILE, ENROLLMENT):
            run(
                db,
                "alter table {c}.{t} add foreign key (user_id) references {c}.auth_user",
                c=schema(db, course),
                t=table,
            )


def add_user(db: Db, username: str, *, profile: bool = True, **columns: Any) -> int:
    """Add a user, with a profile that tells whose it is; return the id."""
    columns = {"username": username, "email": f"{username}@edx.org", **columns}
    user_id = int(insert(db, USER, columns))
    if profile:
        insert(db, PROFILE, {"user_id": user_id, "name": f"{username} Foo", "goals": "World peace"})
    return user_id


def insert(db: Db, table: str, columns: dict[str, Any]) -> int:
    """Insert one row into a portal table; return its id."""
    statement = sql.SQL("insert into {} ({}) values ({}) returning id").format(
        sql.Identifier("portal", table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
    )
    ((row_id,),) = db.execute(statement, list(columns.values())).fetchall()
    return int(row_id)


def enroll(db: Db, user_id: int, *courses: str) -> list[int]:
    """Enroll a user, one statement a course; return the ids of the enrollments."""
    return [insert(db, ENROLLMENT, {"user_id": user_id, "course_id": course}) for course in courses]


def declare(dsn: str, condition: str | None) -> None:
    """Let only those rows be memberships for which a condition is true, by a session of its own; None: all rows."""
    with psycopg.connect(dsn, row_factory=dict_row) as conn:
        declared = shapes.of(conn)
        table = declared.table("membership")
        assert table is not None
        changed = declared.changed(dataclasses.replace(table, condition=condition))
        declaring.declare(conn, declaring.check(conn, changed))


def flip(db: Db, user_id: int, *courses: str, to: bool) -> None:
    """Set the condition of a user's enrollments, in one statement."""
    run(
        db,
        "update portal.student_courseenrollment set is_active = %s where user_id = %s and course_id = any (%s)",
        to, user_id, list(courses),
    )  # fmt: skip


def leave(db: Db, user_id: int, course: str) -> None:
    """End an enrollment."""
    run(db, "delete from portal.student_courseenrollment where user_id = %s and course_id = %s", user_id, course)


def plant(db: Db, query: LiteralString, *values: Any, **names: str) -> None:
    """Write behind Rollbook's back, as a restore or another replicator does."""
    run(db, "set session_replication_role = replica")
    run(db, query, *values, **names)
    run(db, "reset session_replication_role")


def select(db: Db, where: str, table: str, columns: Iterable[str]) -> Rows:
    """Return columns of a table in schema `where`, by id."""
    listed = sql.SQL(", ").join(map(sql.Identifier, columns))
    query = sql.SQL("select {} from {} order by id").format(listed, sql.Identifier(where, table))
    return db.execute(query).fetchall()


def held(db: Db, course: str) -> tuple[list[int], list[int], list[int]]:
    """Return whose users, profiles and enrollments the course holds, as ids of users."""
    name = schema(db, course)
    users, profiles, enrollments = (
        sorted(row[0] for row in select(db, name, table, ["id" if table == USER else "user_id"])) for table in TABLES
    )
    return users, profiles, enrollments


def everybody(*user_ids: int) -> tuple[list[int], list[int], list[int]]:
    """Return what `held` returns where a course holds all three rows of these users."""
    return sorted(user_ids), sorted(user_ids), sorted(user_ids)


def versions(db: Db, *courses: str) -> dict[tuple[str, str, int], tuple[str, str]]:
    """Return where each copy lies and who wrote it: equal before and after means not written."""
    return {
        (course, table, row_id): (place, writer)
        for course in courses or [row[0] for row in run(db, "select course_id from rollbook.course")]
        for table in TABLES
        for row_id, place, writer in run(
            db, "select id, ctid::text, xmin::text from {c}.{t}", c=schema(db, course), t=table
        )
    }


def findings(db: Db, course: str | None = None) -> Rows:
    """Return what verify says: table, finding, id, columns; with the course in front when asked for all of them."""
    if course is None:
        return run(db, "select course_id, table_name, finding, row_id, columns from rollbook.verify()")
    return run(db, "select table_name, finding, row_id, columns from rollbook.verify(%s)", course)


def faults(db: Db) -> list[str]:
    """Compare all copies with the portal, by value, without asking Rollbook; then verify must say the same: nothing."""
    found: list[str] = []
    enrolled: dict[str, set[int]] = {}
    counts: LiteralString = "coalesce((to_jsonb(e) ->> 'is_active')::boolean, not to_jsonb(e) ? 'is_active')"
    counting = run(db, "select id, user_id, course_id from portal.student_courseenrollment as e where " + counts)
    for _, user_id, course in counting:
        enrolled.setdefault(course, set()).add(user_id)
    portal = {table: {row[0]: row for row in select(db, "portal", table, COLUMNS[table])} for table in TABLES}
    for course, name, on_leave in run(db, "select course_id, schema_name, on_leave from rollbook.course"):
        members = enrolled.get(course, set())
        if on_leave == "keep":  # whoever left stays: a user who is there and in the portal may be there
            members = members | {row[0] for row in select(db, name, USER, ["id"])}
        for table in TABLES:
            copies = {row[0]: row for row in select(db, name, table, COLUMNS[table])}
            owner = COLUMNS[table].index("id" if table == USER else "user_id")
            due = {row_id for row_id, row in portal[table].items() if row[owner] in members}
            if table == ENROLLMENT:
                due = {row_id for row_id, _, where in counting if where == course}
            found += [f"{course}: {table} {row_id} is absent" for row_id in due - copies.keys()]
            found += [f"{course}: {table} {row_id} is not due" for row_id in copies.keys() - due]
            found += [
                f"{course}: {table} {row_id}: {ours} instead of {portal[table][row_id]}"
                for row_id, ours in copies.items()
                if row_id in due and ours != portal[table][row_id]
            ]
    return found or [f"verify: {row}" for row in findings(db)]
