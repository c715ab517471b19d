"""The invented platform on the private server: a portal, five courses, 1,200 students. Each step can be run again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, sql

from admin import queries, schema
from admin.db import session, translated
from admin.demo.server import PrivateServer

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

# A student who is in exactly three of the five courses, so that the screen shows both: there, and not there.
TRAVELLER = """
select u.id, u.username, u.email, p.name
from portal.auth_user as u
inner join portal.auth_userprofile as p on p.user_id = u.id
inner join portal.student_courseenrollment as e on e.user_id = u.id
group by u.id, u.username, u.email, p.name having count(*) = 3 order by u.id limit 1
"""

CHANGE = sql.SQL("update {0} set email = email || 'x' where id = (select min(id) from {0}) returning id")
LOSE = sql.SQL("delete from {0} where id = (select max(id) from {0}) returning id")
INVENT = sql.SQL(
    "insert into {0} (id, user_id, course_id, created) "
    "select max(id) + 1000000, min(user_id), min(course_id), now() from {0} returning id"
)


def demo_home() -> Path:
    """Return where the demo lives: ROLLBOOK_DEMO_DIR, else one folder a user below the temporary directory."""
    given = os.environ.get("ROLLBOOK_DEMO_DIR")
    return Path(given).absolute() if given else Path(tempfile.gettempdir()) / f"rollbook-demo-{os.geteuid()}"


class Platform:
    """The demo's server and portal database."""

    def __init__(self) -> None:
        self.server = PrivateServer(demo_home())
        self.dsn = self.server.dsn("portal")

    def connect(self) -> Connection[Row]:
        """Connect to the portal in a transaction."""
        with translated():
            return session(self.dsn, name="rollbook demo")

    def start(self) -> str:
        """Start the server, make the portal database and bring it to the head; return the server's version."""
        self.server.start()
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
            if not conn.execute("select 1 from pg_database where datname = 'portal'").fetchone():
                conn.execute("create database portal")
        schema.upgrade(self.dsn)
        with self.connect() as conn:
            return str(conn.info.parameter_status("server_version")).split()[0]

    def create_courses(self, *, late: bool) -> int:
        """Make the demo's courses that do not exist yet; the late one only if so. Return how many were made."""
        made = 0
        with self.connect() as conn:
            there = {row["course"] for row in queries.courses(conn)}
            for course_id, on_leave in COURSES.items():
                if course_id not in there and (late or course_id != LATE):
                    queries.create_course(conn, course_id, on_leave)
                    made += 1
        return made

    def load(self, advance: Callable[[int], None] = lambda _: None) -> tuple[int, int]:
        """COPY the roster in and enter it, in one transaction; who is there stays. Return the rows added."""
        with self.connect() as conn:
            conn.execute(STAGE)
            for table in ("student", "enrollment"):
                statement = sql.SQL("copy {} from stdin (format csv, header)").format(sql.Identifier("pg_temp", table))
                with conn.cursor().copy(statement) as copy:
                    copy.write((ROSTER / f"{table}s.csv").read_bytes())
                advance(1)
            students = conn.execute(ENTER).rowcount
            advance(1)
            enrollments = conn.execute(ENROLL).rowcount
            advance(1)
        with self.connect() as conn:
            conn.autocommit = True
            conn.execute("analyze")
        return students, enrollments

    def change_a_user(self) -> tuple[Row, str, list[Row]]:
        """Change one student's e-mail in the portal; return who, the statement, and what each course holds then."""
        with self.connect() as conn:
            who = queries.one(conn, TRAVELLER)
            box, _, host = who["email"].partition("@")
            email = f"{box.removesuffix('.new') if box.endswith('.new') else box + '.new'}@{host}"
            statement = sql.SQL("update portal.auth_user set email = {} where username = {}").format(
                email, who["username"]
            )
            conn.execute(statement)
            conn.commit()
            seen = []
            for course in queries.courses(conn):
                copy = conn.execute(
                    sql.SQL("select email from {} where id = %s").format(
                        sql.Identifier(course["schema_name"], "auth_user")
                    ),
                    [who["id"]],
                ).fetchone()
                seen.append(
                    {"course": course["course"], "schema": course["schema_name"], "email": copy and copy["email"]}
                )
            return who | {"email": email}, statement.as_string(conn), seen

    def break_course(self) -> list[Row]:
        """Damage one course as an accident would, past the guards: a changed row, a missing one, an extra one."""
        with self.connect() as conn:
            course = queries.course(conn, BROKEN)
            user, profile, enrollment = (
                sql.Identifier(course["schema_name"], table)
                for table in ("auth_user", "auth_userprofile", "student_courseenrollment")
            )
            conn.execute("set local session_replication_role = replica")
            damage = (
                ("changed", "auth_user", CHANGE.format(user)),
                ("missing", "auth_userprofile", LOSE.format(profile)),
                ("extra", "student_courseenrollment", INVENT.format(enrollment)),
            )
            return [
                {"course": BROKEN, "table": table, "damage": word, "row_id": queries.one(conn, statement)["id"]}
                for word, table, statement in damage
            ]
