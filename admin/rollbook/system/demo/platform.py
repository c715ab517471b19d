"""The invented platform on two private servers: a portal, five courses, 1,200 students, and a course server.

Each step can be run again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, sql

from rollbook.core.db import session
from rollbook.core.migrating import ROOT
from rollbook.core.rows import one
from rollbook.core.sqlstate import translated
from rollbook.replication.queries.courses import create_course, find_course, list_courses
from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer

Row = dict[str, Any]
ROSTER = Path(__file__).parent / "roster"

# Course -> on_leave. The last one is made after the roster is loaded: its students wait for it.
COURSES = {
    "MITx/6.002x/2012_Fall": "keep",
    "BerkeleyX/CS188.1x/2012_Fall": "keep",
    "HarvardX/PH207x/2012_Fall": "keep",
    "edX/DemoX/2012_Fall": "remove",
    "edX/toy/2013_Spring": "keep",
}
LATE = "edX/toy/2013_Spring"
BROKEN = "edX/DemoX/2012_Fall"
MOVED = "MITx/6.002x/2012_Fall"  # the one that moves to the course server
BOUNDED = {"max_slot_wal_keep_size": "1GB"}  # what a server that is down may cost the portal

STAGE = """
create temporary table student (
    username text, email text, first_name text, last_name text, is_active boolean, date_joined timestamptz, name text,
    language text, location text, year_of_birth integer, gender text, level_of_education text, mailing_address text,
    goals text
) on commit drop;
create temporary table enrollment (username text, course_id text, created timestamptz) on commit drop
"""

ENTER = """
with account as (
    insert into portal.auth_user (username, email, first_name, last_name, is_active, date_joined)
    select username, email, first_name, last_name, is_active, date_joined from student
    on conflict (username) do nothing
    returning id, username
)
insert into portal.auth_userprofile
    (user_id, name, language, location, year_of_birth, gender, level_of_education, mailing_address, goals)
select a.id, s.name, s.language, s.location, s.year_of_birth, s.gender, s.level_of_education, s.mailing_address, s.goals
from account as a inner join student as s on s.username = a.username
"""

ENROLL = """
insert into portal.student_courseenrollment (user_id, course_id, created)
select u.id, e.course_id, e.created
from enrollment as e inner join portal.auth_user as u on u.username = e.username
on conflict (user_id, course_id) do nothing
"""

# A student with exactly three of the five courses: the screen shows courses with and without a copy.
TRAVELLER = """
select u.id, u.username, u.email, p.name
from portal.auth_user as u
inner join portal.auth_userprofile as p on p.user_id = u.id
inner join portal.student_courseenrollment as e on e.user_id = u.id
group by u.id, u.username, u.email, p.name having count(*) = 3 order by u.id limit 1
"""

# Three students who are to sit an exam, chosen again each time.
FORGET = "delete from portal.student_testcenteruser where user_id = any(%s)"
SITTING = """
select distinct u.id, u.username, p.name
from portal.auth_user as u
inner join portal.auth_userprofile as p on p.user_id = u.id and p.name ~ '^[A-Za-z]+ [A-Za-z]+$'
inner join portal.student_courseenrollment as e on e.user_id = u.id and e.course_id = %s
order by u.id limit 3
"""
CHANGE = sql.SQL("update {0} set email = email || 'x' where id = (select min(id) from {0}) returning id")
LOSE = sql.SQL("delete from {0} where id = (select max(id) from {0}) returning id")
INVENT = sql.SQL(
    "insert into {0} (id, user_id, course_id, created) "
    "select max(id) + 1000000, min(user_id), min(course_id), now() from {0} returning id"
)


def demo_home() -> Path:
    """Return the demo's directory: ROLLBOOK_DEMO_DIR, else a temporary one, one for each user and installation."""
    if given := os.environ.get("ROLLBOOK_DEMO_DIR"):
        return Path(given).absolute()
    installation = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:6]
    return Path(tempfile.gettempdir()) / f"rollbook-demo-{os.geteuid()}-{installation}"


def with_database(server: PrivateServer, name: str) -> None:
    """Start a server and make a database there, unless it is there."""
    server.start()
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        if not conn.execute("select 1 from pg_database where datname = %s", [name]).fetchone():
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


class Platform:
    """The demo's portal, and the server that holds one of its courses."""

    def __init__(self) -> None:
        home = demo_home()
        self.server = PrivateServer(home, settings=BOUNDED)
        self.dsn = self.server.dsn("portal")
        self.east = PrivateServer(home / "east")
        self.east_dsn = self.east.dsn("courses")

    def connect(self) -> Connection[Row]:
        """Connect to the portal in a transaction."""
        with translated():
            return session(self.dsn, name="rollbook demo")

    def start(self) -> str:
        """Start the server, make the portal database and bring it to the head; return the server's version."""
        with_database(self.server, "portal")
        schema.upgrade(self.dsn)
        with self.connect() as conn:
            return str(conn.info.parameter_status("server_version")).split()[0]

    def start_east(self) -> None:
        """Start the course server and make its database."""
        with_database(self.east, "courses")

    def remove(self) -> None:
        """Stop both servers and delete everything they had."""
        self.east.remove()
        self.server.remove()

    def create_courses(self, *, late: bool) -> int:
        """Make the demo's courses that do not exist yet; the late one only if so. Return how many were made."""
        made = 0
        with self.connect() as conn:
            there = {row.course for row in list_courses(conn)}
            for course_id, on_leave in COURSES.items():
                if course_id not in there and (late or course_id != LATE):
                    create_course(conn, course_id, on_leave)
                    made += 1
        return made

    def load(self, advance: Callable[[int], None] = lambda _: None) -> tuple[int, int]:
        """Add the students and enrollments that are missing, in one transaction; return how many of each.

        The first time it also adds the groups, requests and exams that the examples of the help name.
        """
        with self.connect() as conn:
            first = one(conn, "select to_regrole('demo_team') is null as yes")["yes"]
            conn.execute(STAGE)
            for table in ("student", "enrollment"):
                statement = sql.SQL("copy {} from stdin (format csv, header)").format(sql.Identifier("pg_temp", table))
                with conn.cursor().copy(statement) as copy:
                    copy.write((ROSTER / f"{table}s.csv").read_bytes())
                advance(1)
            students = conn.execute(ENTER).rowcount
            advance(1)
            enrollments = conn.execute(ENROLL).rowcount
            if first:
                conn.execute((ROSTER / "named.sql").read_bytes())
            advance(1)
        with self.connect() as conn:
            conn.autocommit = True
            conn.execute("analyze")
        return students, enrollments

    def change_there(self, who: Row, email: str) -> tuple[str, float | None]:
        """Change a student's e-mail in the portal; return the statement, and the seconds until the server had it.

        The answer comes from the server's own copy, asked again and again; None if it had not come after 10 s.
        """
        statement = sql.SQL("update portal.auth_user set email = {} where username = {}").format(email, who["username"])
        look = sql.SQL("select email = {} as yes from {} where id = {}").format(
            email, sql.Identifier("course_mitx_6_002x_2012_fall", "auth_user"), who["id"]
        )
        with self.connect() as conn, session(self.east_dsn, name="rollbook demo") as there:
            there.autocommit = True
            conn.execute(statement)
            conn.commit()
            began = time.monotonic()
            while not one(there, look)["yes"]:
                if time.monotonic() - began > 10:
                    return statement.as_string(conn), None
            return statement.as_string(conn), time.monotonic() - began

    def change_a_user(self) -> tuple[Row, str, list[Row]]:
        """Change one student's e-mail in the portal; return who, the statement, and what each course holds then."""
        with self.connect() as conn:
            who = one(conn, TRAVELLER)
            box, _, host = who["email"].partition("@")
            email = f"{box.removesuffix('.new') if box.endswith('.new') else box + '.new'}@{host}"
            statement = sql.SQL("update portal.auth_user set email = {} where username = {}").format(
                email, who["username"]
            )
            conn.execute(statement)
            conn.commit()
            seen = []
            for course in list_courses(conn):
                copy = conn.execute(
                    sql.SQL("select email from {} where id = %s").format(
                        sql.Identifier(course.schema_name, "auth_user")
                    ),
                    [who["id"]],
                ).fetchone()
                seen.append({"course": course.course, "schema": course.schema_name, "email": copy and copy["email"]})
            return who | {"email": email}, statement.as_string(conn), seen

    def exam_takers(self) -> list[Row]:
        """Choose three students of a course who are not candidates yet: id, username, name."""
        with self.connect() as conn:
            who = conn.execute(SITTING, [MOVED]).fetchall()
            conn.execute(FORGET, [[row["id"] for row in who]])
        return who

    def break_course(self) -> list[Row]:
        """Damage one course as an accident would, bypassing the guards: a changed row, a missing one, an extra one."""
        with self.connect() as conn:
            course = find_course(conn, BROKEN)
            user, profile, enrollment = (
                sql.Identifier(course.schema_name, table)
                for table in ("auth_user", "auth_userprofile", "student_courseenrollment")
            )
            conn.execute("set local session_replication_role = replica")
            damage = (
                ("changed", "auth_user", CHANGE.format(user)),
                ("missing", "auth_userprofile", LOSE.format(profile)),
                ("extra", "student_courseenrollment", INVENT.format(enrollment)),
            )
            return [
                {"course": BROKEN, "table": table, "damage": word, "row_id": one(conn, statement)["id"]}
                for word, table, statement in damage
            ]
