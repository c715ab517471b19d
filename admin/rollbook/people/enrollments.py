"""Enrollments created, ended and moved, and the roster of a course, each write recorded in the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core import importing as bulk
from rollbook.core.errors import RefusedError
from rollbook.core.progress import progress
from rollbook.core.sheet import Sheet, line_count, shown
from rollbook.core.shell import quoted
from rollbook.people.queries import enrollment as queries
from rollbook.people.queries.names import find_hits
from rollbook.people.queries.remains import of_enrollments
from rollbook.people.removals import Limit, named
from rollbook.replication.queries.courses import known_courses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.remains import Remain
    from rollbook.core.users import User

TURN = "rollbook enrollment import"  # an import and a roster wait for each other
ROSTER = Sheet(("user",), ("user",), ("user",))


@dataclass(frozen=True)
class Linked:
    """What a command did to the enrollment of a user: created, removed, changed or unchanged."""

    course: str
    username: str
    email: str
    outcome: str
    remains: list[Remain]


def link(conn: Conn, run: Run, course: str, users: Sequence[User], *, join: bool) -> list[Linked]:
    """Enroll users, or end their enrollments."""
    outcome = "created" if join else "removed"
    touched = (queries.enroll if join else queries.leave)(conn, course, [user["id"] for user in users])
    history.record_many(conn, run, [
        {"kind": "enrollment", "object": user["username"], "outcome": outcome, "user_id": user["id"],
         "course_id": course, "after" if join else "before": touched[user["id"]]}
        for user in users if user["id"] in touched
    ])  # fmt: skip
    left = {} if join else of_enrollments(conn, course, list(touched))
    return [
        Linked(
            course, user["username"], user["email"], outcome if user["id"] in touched else "unchanged",
            left.get(str(user["id"]), []),
        )
        for user in users
    ]  # fmt: skip


# --- move -------------------------------------------------------------------------------------------------------------


def check_courses(conn: Conn, source: str, target: str) -> None:
    """Raise RefusedError unless the target is a course, and the source is one or has enrollments."""
    known_courses(conn, [target])
    if not queries.has_enrollments(conn, source):
        known_courses(conn, [source])


def move(
    conn: Conn, run: Run, source: str, target: str, users: Sequence[User], *, skip_strangers: bool
) -> tuple[list[Linked], list[RefusedError]]:
    """Move enrollments; return what was done, and an error for each user in neither course that was skipped.

    Raises RefusedError for a user in neither course; with `skip_strangers` only if all are.
    """
    seats = queries.seats(conn, source, target, [user["id"] for user in users])
    strangers = [
        RefusedError(f"{seat.username} is not enrolled in {source}", fix=f"rollbook user show {quoted(seat.username)}")
        for seat in seats if seat.outcome is None
    ]  # fmt: skip
    if strangers and (not skip_strangers or len(strangers) == len(seats)):
        raise strangers[0]
    history.begin(conn)
    queries.move(
        conn, source, target, [seat.enrollment_id for seat in seats if seat.outcome == "changed"],
        [seat.enrollment_id for seat in seats if seat.outcome == "removed"],
    )  # fmt: skip
    history.record_written(conn, run)
    left = of_enrollments(conn, source, [seat.user_id for seat in seats if seat.outcome in ("changed", "removed")])
    return [
        Linked(
            source if seat.outcome == "removed" else target, seat.username, seat.email, seat.outcome,
            left.get(str(seat.user_id), []),
        )
        for seat in seats if seat.outcome
    ], strangers  # fmt: skip


# --- roster -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a roster changes in a course."""

    course: str
    rows: list[queries.Planned]

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of users by outcome."""
        words = ("created", "removed", "unchanged")
        return {word: sum(row.outcome == word for row in self.rows) for word in words}

    @property
    def is_empty(self) -> bool:
        """Return whether it changes nothing."""
        return all(row.outcome == "unchanged" for row in self.rows)

    @property
    def removed(self) -> list[str]:
        """Return the names of the users that it removes."""
        return [row.username for row in self.rows if row.outcome == "removed"]

    @property
    def missing(self) -> str:
        """Return the sentence that names the users whom the file lacks."""
        return named(self.removed)

    def __str__(self) -> str:
        counts = self.counts
        return f"{self.course}: add {counts['created']}, remove {counts['removed']}, keep {counts['unchanged']}"


def read_roster(conn: Conn, run: Run, course: str, file: str, limit: Limit) -> tuple[Plan, int]:
    """Read a file of users; return the plan for the course, and the number of wrong rows that were skipped.

    Raises RefusedError for an unknown course, wrong rows, or more removals than the limit.
    """
    known_courses(conn, [course])
    bulk.begin(conn)
    with progress(run, run.verb, line_count(file)) as advance:
        staged = bulk.stage(conn, run, ROSTER, file, advance)
    find_hits(conn)
    rejected = bulk.judged(conn, run, staged)
    plan = Plan(course, queries.plan(conn, course))
    present = sum(row.outcome != "created" for row in plan.rows)
    limit.check(plan.removed, present, course, plan.missing)
    return plan, rejected


def follow(conn: Conn, run: Run, plan: Plan, file: str) -> int:
    """Change the course as planned; return the number of the batch."""
    bulk.take_turn(conn, run, TURN)  # only now: no import waits for an answer on a terminal
    queries.follow(conn, plan.course, plan.rows)
    return bulk.record_batch(conn, run, f"{plan.course}: {shown(file)}", plan.counts, plan.course)
