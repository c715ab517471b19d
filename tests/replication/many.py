"""Many courses on two servers, made quickly: their schemas first, and the rows by the stream, without first copies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection

from rollbook.core.db import Caller
from rollbook.replication import build, link, subscription
from rollbook.replication.session import opened
from rollbook.replication.steps import Steps

Db = Connection[Any]


def course_ids(number: int) -> list[str]:
    """Return the ids of so many courses."""
    return [f"Many/C{n:04}/2013" for n in range(number)]


def make_courses(portal: Db, number: int, users: int) -> list[str]:
    """Make users with profiles, and courses that are empty; return their ids. `enroll_all` fills them."""
    for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):  # past the ids of `populate`
        portal.execute(f"alter table portal.{table} alter column id restart with 100000".encode())
    portal.execute(
        "insert into portal.auth_user (username, email, first_name) "
        "select 'many' || n, 'many' || n || '@example.com', 'First' || n from generate_series(1, %s) as n", [users],
    )  # fmt: skip
    portal.execute(
        "insert into portal.auth_userprofile (user_id, name, goals) select id, first_name, 'To learn' "
        "from portal.auth_user where username like 'many%'"
    )
    names = course_ids(number)
    for turn, name in enumerate(names):
        portal.execute("select rollbook.create_course(%s, %s)", [name, "remove" if turn % 2 else "keep"])
    return names


def enroll_all(portal: Db, number: int, each: int = 3) -> None:
    """Enroll each user in so many of the courses, spread evenly."""
    portal.execute(
        "insert into portal.student_courseenrollment (user_id, course_id) "
        "select u.id, format('Many/C%%s/2013', lpad(((u.id * 7 + k * 17) %% %s)::text, 4, '0')) "
        "from portal.auth_user as u, generate_series(0, %s) as k where u.username like 'many%%' "
        "on conflict do nothing", [number, min(each, number) - 1],
    )  # fmt: skip


def attach_empty(portal_dsn: str, server_name: str, courses: Sequence[str]) -> None:
    """Put courses without rows on a server."""
    from rollbook.core.db import connect

    with connect(portal_dsn, name="rollbook test", long=True) as portal:
        portal.autocommit = True
        server = link.find_server(portal, server_name)
        with opened(portal, server, Caller("rollbook test"), catch_up=60, changes=True) as session:
            portal.execute(
                "update rollbook.course set server = %s, state = 'ok' where course_id = any (%s)",
                [server_name, list(courses)],
            )
            found = portal.execute(
                "select course_id, schema_name::text from rollbook.course where course_id = any (%s)", [list(courses)]
            ).fetchall()
            for hop in session.hops:
                build.prepare(hop, Steps())
                build.create_schemas(hop, [(row["course_id"], row["schema_name"]) for row in found], Steps())
                hop.source.execute(build.publish(portal, hop.server))
                subscription.refresh(hop, Steps(), copy=False)


@dataclass
class Load:
    """What writers did meanwhile: how many statements, and how long the slowest took, in seconds."""

    written: int = 0
    longest: float = 0.0
    broken: list[str] = field(default_factory=list)


@contextmanager
def load(dsn: str, clients: int = 2, pause: float = 0.0) -> Iterator[Load]:
    """Change users, profiles and enrollments all the time; each statement is a transaction."""
    stop, found, lock = threading.Event(), Load(), threading.Lock()

    def write(client: int) -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as conn:
                ids = [
                    row[0] for row in conn.execute("select id from portal.auth_user where username like 'many%' "
                                                   "order by id")
                ]  # fmt: skip
                names = [row[0] for row in conn.execute("select course_id from rollbook.course order by 1")]
                turn = client * 1000
                while not stop.is_set():
                    turn += clients
                    user, course = ids[turn * 13 % len(ids)], names[turn * 7 % len(names)]
                    query, given = (
                        ("update portal.auth_user set first_name = %s where id = %s", [f"f{turn}", user]),
                        ("update portal.auth_userprofile set goals = %s where user_id = %s", [f"g{turn}", user]),
                        ("update portal.auth_user set last_login = now() where id = %s", [user]),
                        ("delete from portal.student_courseenrollment where user_id = %s and course_id = %s",
                         [user, course]),
                        ("insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s) "
                         "on conflict do nothing", [user, course]),
                    )[turn // clients % 5]  # fmt: skip
                    began = time.perf_counter()
                    conn.execute(query, given)
                    took = time.perf_counter() - began
                    with lock:
                        found.written += 1
                        found.longest = max(found.longest, took)
                    if pause:
                        time.sleep(pause)
        except psycopg.Error as exc:
            found.broken.append(str(exc))

    threads = [threading.Thread(target=write, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()
