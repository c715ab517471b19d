"""The platforms whose shapes ship: tables, the statements that they write with, and an oracle that asks no Rollbook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

from psycopg import Connection, sql

from rollbook.core import shape
from rollbook.core.shape import SHAPES, Shape, Table

Db = Connection[Any]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Platform:
    """A platform. The statements take persons :first to :last, or person :n, and course :c, as psycopg's parameters."""

    name: str
    courses: tuple[str, str]  # as course IDs: one that keeps leavers, one that removes them
    furnish: LiteralString  # courses, and what else the platform has before there are persons
    join: LiteralString  # the platform's own statement that enrolls a person
    off: LiteralString  # the one that ends an enrollment and keeps its row
    on: LiteralString
    leave: LiteralString  # the row goes
    again: LiteralString | None  # a second row of one person in one course; None: the platform allows one
    off_one: LiteralString | None  # ends the second one alone
    add: LiteralString  # persons with profiles
    change_person: LiteralString
    change_profile: LiteralString | None
    ignored: LiteralString  # a write of what does not travel
    copy: LiteralString  # COPY of memberships
    lines: tuple[tuple[Any, ...], tuple[Any, ...]]  # its fields for :n and :c: a row that counts, one that does not

    @property
    def shape(self) -> Shape:
        """The shape that ships."""
        return shape.load(SHAPES / f"{self.name}.toml")

    @property
    def tables(self) -> str:
        """The SQL that makes its tables."""
        return (HERE / f"{self.name}.sql").read_text()


OPEN_EDX = Platform(
    "open_edx",
    ("course-v1:edX+DemoX+2026", "course-v1:MITx+6.002x+2026"),
    furnish="",
    add="""
        with people as (
            insert into auth_user (password, is_superuser, username, first_name, last_name, email, is_staff, is_active,
                date_joined)
            select '!', false, 'user' || n, '', '', 'user' || n || '@example.org', false, true, '2026-01-01Z'
            from generate_series(%(first)s::integer, %(last)s::integer) as n
            returning id, username
        )
        insert into auth_userprofile (name, meta, courseware, language, location, level_of_education, city, country,
            bio, state, user_id)
        select username, '', 'course.xml', '', '', case id %% 2 when 0 then 'p' else 'a' end, 'Köln', 'DE', 'I',
            null, id
        from people""",
    join="insert into student_courseenrollment (course_id, created, is_active, mode, user_id) "
    "values (%(c)s, now(), true, 'audit', %(n)s) on conflict (user_id, course_id) do update set is_active = true",
    off="update student_courseenrollment set is_active = false where user_id = %(n)s and course_id = %(c)s",
    on="update student_courseenrollment set is_active = true, mode = 'verified' "
    "where user_id = %(n)s and course_id = %(c)s",
    leave="delete from student_courseenrollment where user_id = %(n)s and course_id = %(c)s",
    again=None,
    off_one=None,
    change_person="update auth_user set email = 'retired__' || id || '@retired.invalid', username = 'retired__' || id "
    "where id = %(n)s",
    change_profile="update auth_userprofile set bio = 'Knows circuits', phone_number = '+49', state = 'CA' "
    "where user_id = %(n)s",
    ignored="update auth_user set last_login = now() where id = %(n)s",
    copy="copy student_courseenrollment (user_id, course_id, created, is_active, mode) from stdin",
    lines=((":n", ":c", "2026-02-02Z", True, "honor"), (":n", ":c", None, False, "audit")),
)
DJANGO = Platform(
    "django",
    ("algebra", "logic"),
    furnish="insert into learning_course (slug, title) values ('algebra', 'Algebra'), ('logic', 'Logic')",
    add="""
        with people as (
            insert into auth_user (password, is_superuser, username, first_name, last_name, email, is_staff, is_active,
                date_joined)
            select '!', false, 'user' || n, '', '', '', false, true, '2026-01-01Z'
            from generate_series(%(first)s::integer, %(last)s::integer) as n
            returning id, username
        )
        insert into people_profile (display_name, country, birth_date, about, avatar, settings, balance, user_id)
        select username, 'FR', '1990-05-05', 'Ça va', 'a.png', '{"mail": true}', 0, id from people""",
    join="insert into learning_enrollment (status, term, created_at, note, course_id, user_id) "
    "values ('active', '2026/1', now(), '', %(c)s, %(n)s)",
    off="update learning_enrollment set status = 'withdrawn' where user_id = %(n)s and course_id = %(c)s",
    on="update learning_enrollment set status = 'completed' where user_id = %(n)s and course_id = %(c)s",
    leave="delete from learning_enrollment where user_id = %(n)s and course_id = %(c)s",
    again="insert into learning_enrollment (status, term, created_at, note, course_id, user_id) "
    "values ('active', '2026/2', now(), '', %(c)s, %(n)s)",
    off_one="update learning_enrollment set status = 'withdrawn' "
    "where user_id = %(n)s and course_id = %(c)s and term = '2026/2'",
    change_person="update auth_user set first_name = 'Émile' where id = %(n)s",
    change_profile="update people_profile set settings = settings || '{\"dark\": true}', birth_date = null "
    "where user_id = %(n)s",
    ignored="update auth_user set last_login = now(), password = 'new' where id = %(n)s",
    copy="copy learning_enrollment (user_id, course_id, status, term, created_at, note) from stdin",
    lines=(
        (":n", ":c", "completed", "2025/2", "2026-02-02Z", ""),
        (":n", ":c", "pending", "2027/1", "2026-02-02Z", ""),
    ),
)
MOODLE = Platform(
    "moodle",
    ("42", "4300000000"),
    furnish="insert into mdl_enrol (id, enrol, courseid) "
    "values (1, 'manual', 42), (2, 'manual', 4300000000), (3, 'self', 42), (4, 'self', 4300000000)",
    add="insert into mdl_user (username, firstname, lastname, email, country) "
    "select 'user' || n, 'First' || n, 'Łast', 'same@example.org', 'PL' "
    "from generate_series(%(first)s::integer, %(last)s::integer) as n",
    join="insert into mdl_user_enrolments (enrolid, userid, timecreated) "
    "select min(id), %(n)s, 1767225600 from mdl_enrol where courseid = %(c)s::bigint",
    off="update mdl_user_enrolments as u set status = 1 from mdl_enrol as e "
    "where e.id = u.enrolid and u.userid = %(n)s and e.courseid = %(c)s::bigint",
    on="update mdl_user_enrolments as u set status = 0 from mdl_enrol as e "
    "where e.id = u.enrolid and u.userid = %(n)s and e.courseid = %(c)s::bigint",
    leave="delete from mdl_user_enrolments as u using mdl_enrol as e "
    "where e.id = u.enrolid and u.userid = %(n)s and e.courseid = %(c)s::bigint",
    again="insert into mdl_user_enrolments (enrolid, userid) "
    "select max(id), %(n)s from mdl_enrol where courseid = %(c)s::bigint",
    off_one="update mdl_user_enrolments as u set status = 1 from (select max(id) as id from mdl_enrol "
    "where courseid = %(c)s::bigint) as e where e.id = u.enrolid and u.userid = %(n)s",
    change_person="update mdl_user set email = 'new@example.org', suspended = 1 where id = %(n)s",
    change_profile=None,
    ignored="update mdl_user set lastaccess = lastaccess + 1 where id = %(n)s",
    copy="copy mdl_course_member (id, userid, courseid, status, timecreated) from stdin",
    lines=((":id", ":n", ":c", 0, 1767225600), (":id", ":n", ":c", 7, 0)),
)
PLATFORMS = {platform.name: platform for platform in (OPEN_EDX, DJANGO, MOODLE)}


def ids(conn: Db, query: sql.Composed, *values: Any) -> set[int]:
    """Return the only column of a query."""
    return {row[0] for row in conn.execute(query, values)}


def relation(table: Table) -> sql.Composable:
    """Return a declared table as SQL."""
    return sql.Identifier(*shape.split(table.relation))


def members(conn: Db, declared: Shape, course: str) -> set[int]:
    """Return the persons who are in a course, by the platform's own rows."""
    table = declared.table("membership")
    assert table is not None
    assert table.course is not None
    query = sql.SQL("select {} from {} where {}::text = %s and ({})").format(
        sql.Identifier(table.person), relation(table), sql.Identifier(table.course),
        sql.SQL(table.condition or "true"),
    )  # fmt: skip
    return ids(conn, query, course)


def rows(conn: Db, table: Table, source: sql.Composable, left_out: set[str]) -> dict[int, tuple[Any, ...]]:
    """Return what travels of each row, as text, by key."""
    listed = [sql.SQL("{}::text").format(sql.Identifier(name)) for name in table.columns if name not in left_out]
    query = sql.SQL("select {}, {} from {}").format(sql.Identifier(table.key), sql.SQL(", ").join(listed), source)
    return {row[0]: row[1:] for row in conn.execute(query)}


def gaps(conn: Db, declared: Shape, *, there: dict[str, Db] | None = None) -> list[str]:
    """Compare all copies with the platform's rows; `there`: course -> the server that holds its copies too."""
    found = []
    for course, name, on_leave, without in conn.execute(
        "select course_id, schema_name, on_leave, without from rollbook.course"
    ).fetchall():
        enrolled = members(conn, declared, course)
        for place in (conn, *([there[course]] if there and course in there else [])):
            left_out = set(without)
            person = declared.tables[0]
            held = set(rows(place, person, sql.Identifier(name, person.name), left_out))
            due_persons = enrolled | held if on_leave == "keep" else enrolled
            for table in declared.tables:
                ours = rows(conn, table, relation(table), left_out)
                copies = rows(place, table, sql.Identifier(name, table.name), left_out)
                due = {
                    row[0]
                    for row in conn.execute(
                        sql.SQL("select {} from {} where {} = any (%s) and ({})").format(
                            sql.Identifier(table.key), relation(table), sql.Identifier(table.person),
                            condition(table, course),
                        ),
                        [list(due_persons)],
                    )
                }  # fmt: skip
                found += [f"{course}: {table.name} {key} is absent" for key in due - copies.keys()]
                found += [f"{course}: {table.name} {key} is not due" for key in copies.keys() - due]
                found += [
                    f"{course}: {table.name} {key}: {copies[key]} instead of {ours[key]}"
                    for key in due & copies.keys()
                    if copies[key] != ours[key]
                ]
    return found


def condition(table: Table, course: str) -> sql.Composable:
    """Return which rows of a table can be due in a course."""
    if table.course is None:
        return sql.SQL("true")
    return sql.SQL("({}) and {}::text = {}").format(
        sql.SQL(table.condition or "true"), sql.Identifier(table.course), sql.Literal(course)
    )  # fmt: skip
