"""Two or three sessions that move in named steps, and a comparison of portal and copies that Rollbook has no part in.

A step is over when its statement has finished or the server says that it waits for a lock; nothing depends on time.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from tests.sql.helpers import COLUMNS, ENROLLMENT, PROFILE, USER, Db

LIMIT_SECONDS = 30.0  # a step that takes longer fails the test
POOL = ThreadPoolExecutor(8)
LEVELS: dict[str, LiteralString] = {"RC": "read committed", "RR": "repeatable read", "SER": "serializable"}
BLOCKED = """
select count(*) from unnest(pg_blocking_pids(%s)) as b (pid), pg_stat_get_activity(b.pid) as a
where a.backend_type = 'client backend'"""

# What the sessions have done, by the test's own account: who has ever been enrolled where, until the user is deleted.
# Plain inserts into a table that no session reads: no lock and no predicate that could help Rollbook along.
JOURNAL = """
create table public.joined (n bigint generated always as identity, user_id bigint, course_id text);
create function public.note() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        insert into public.joined (user_id) values (old.id);
    elsif coalesce((to_jsonb(new) ->> 'is_active')::boolean, true) then
        insert into public.joined (user_id, course_id) values (new.user_id, new.course_id);
    end if;
    return null;
end $$;
create trigger zz_note after insert or update on portal.student_courseenrollment
    for each row execute function public.note();
create trigger zz_note after delete on portal.auth_user for each row execute function public.note();
"""
# Table -> which of its rows are due in a course.
DUE: dict[str, LiteralString] = {
    USER: "id in (select user_id from due)",
    PROFILE: "user_id in (select user_id from due)",
    ENROLLMENT: "course_id = %(course)s and {counts}",
}
GAPS = """
with due (user_id) as (
    select e.user_id from portal.student_courseenrollment as e where e.course_id = %(course)s and {counts}
    union
    select j.user_id from public.joined as j
    where %(on_leave)s = 'keep' and j.course_id = %(course)s and not exists (
        select from public.joined as gone where gone.user_id = j.user_id and gone.course_id is null and gone.n > j.n
    )
),
expected as (select {columns} from portal.{table} where {condition}),
found as (select {columns} from {schema}.{table})
select 'lacks', to_jsonb(lacking) from (select * from expected except all select * from found) as lacking
union all
select 'holds', to_jsonb(held) from (select * from found except all select * from expected) as held
"""


# Where enrollments count while is_active: made so by `flagged`.
FLAG = "select attname from pg_attribute where attrelid = 'portal.student_courseenrollment'::regclass and attname = %s"


def gaps(db: Db) -> list[tuple[int, str]]:
    """Return what the copies lack, what they hold wrongly, and routes of nobody, as (user, words)."""
    counts = sql.SQL("is_active" if db.execute(FLAG, ["is_active"]).fetchone() else "true")
    found = db.execute(
        "select user_id, 'route of nobody' from rollbook.route where user_id not in (select id from portal.auth_user)"
    ).fetchall()
    for course, schema, on_leave in db.execute(
        "select course_id, schema_name, on_leave from rollbook.course"
    ).fetchall():
        for table, condition in DUE.items():
            query = sql.SQL(GAPS).format(
                columns=sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table])),
                condition=sql.SQL(condition).format(counts=counts),
                counts=counts,
                table=sql.Identifier(table),
                schema=sql.Identifier(schema),
            )
            for side, row in db.execute(query, {"course": course, "on_leave": on_leave}):
                found.append((row.get("user_id", row["id"]), f"{course} {side} {table} {row}"))
    return found


class Stepper:
    """A session whose statements run in a thread, so that the test sees where they wait."""

    def __init__(self, connection: Db, observer: Db) -> None:
        self.connection, self.observer = connection, observer
        connection.execute("set deadlock_timeout = '100ms'")  # a deadlock shows sooner; nothing else changes
        self.running: Future[Any] = Future()

    def begin(self, level: str = "RC") -> None:
        """Open a transaction and take its snapshot, which lasts from REPEATABLE READ on; no table is read for it."""
        self.connection.execute(sql.SQL("begin isolation level {}; select 1").format(sql.SQL(LEVELS[level])))

    def step(self, statement: LiteralString, values: dict[str, Any] | None = None) -> bool:
        """Run a statement until it is done (False) or waits for another session (True)."""
        self.running = POOL.submit(self.connection.execute, statement, values)
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            if wait([self.running], timeout=0.001).done:
                return False
            asked = self.observer.execute(BLOCKED, [self.connection.info.backend_pid]).fetchall()
            if asked != [(0,)]:
                return True
        self.connection.cancel_safe()
        raise AssertionError(f"neither done nor waiting after {LIMIT_SECONDS} s: {statement}")

    def end(self) -> str:
        """Let the statement finish, then commit, or roll back what failed; return the SQLSTATE, empty for a commit."""
        try:
            self.running.result(LIMIT_SECONDS)
            self.connection.execute("commit")
        except TimeoutError:
            self.connection.cancel_safe()
            raise
        except psycopg.Error as error:
            self.connection.execute("rollback")
            return error.sqlstate or str(error)
        return ""


@dataclass(frozen=True)
class Case:
    """Two operations of two sessions on one user: the first commits first."""

    user: int
    first: str
    second: str
    levels: tuple[str, str]
    overlapping: bool  # both statements run before either commits; else the second has its snapshot and waits its turn
    course: str = ""
    on_leave: str = "keep"

    @property
    def sides(self) -> frozenset[str]:
        """Return the two operations, in no order."""
        return frozenset({self.first, self.second})

    def __str__(self) -> str:
        sides = f"{self.first} ({self.levels[0]}), {self.second} ({self.levels[1]})"
        return f"{sides}, {'overlapping' if self.overlapping else 'in turn'}, {self.on_leave}, user {self.user}"


@dataclass(frozen=True)
class Result:
    """How a case ended: the SQLSTATE of each side, empty for a commit, and whether the second had to wait."""

    case: Case
    errors: tuple[str, str]
    waited: bool

    def met(self) -> bool:
        """Say whether the second noticed the first: it waited or failed. In turn, READ COMMITTED sees all anyway."""
        in_sight = not self.case.overlapping and self.case.levels[1] == "RC"
        return in_sight or self.waited or self.errors != ("", "")


def race(one: Stepper, two: Stepper, case: Case, operations: dict[str, LiteralString]) -> Result:
    """Play a case."""
    given = {"u": case.user, "c": case.course, "p": case.on_leave}
    one.begin(case.levels[0])
    two.begin(case.levels[1])
    assert not one.step(operations[case.first], {**given, "v": "first"}), f"{case}: the first waits for nobody"
    early = None if case.overlapping else one.end()
    waited = two.step(operations[case.second], {**given, "v": "second"})
    errors = (one.end() if early is None else early), two.end()
    return Result(case, errors, waited)
