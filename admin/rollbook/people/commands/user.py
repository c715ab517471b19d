"""`rollbook user`: accounts. This module lists and shows them; the modules user_* hold the other commands."""

from enum import StrEnum
from typing import IO, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import OfCourse, OfCourses, OfGroup, Users
from rollbook.core.command import Run, command
from rollbook.core.nouns import noun
from rollbook.core.users import expanded, find_users
from rollbook.people.queries import user as accounts
from rollbook.replication.queries.courses import known_courses

app = noun("user")

COUNTED = ("key", "users", "active")
COLUMNS = (
    "id", "username", "email", "name", "is_active", "is_staff", "is_superuser", "date_joined", "last_login", "courses",
)  # fmt: skip


class By(StrEnum):
    """How users are counted."""

    course = "course"
    day = "day"
    week = "week"
    month = "month"
    country = "country"


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="date_joined",
    examples=(
        "user list --match ada", "user list --since yesterday",
        "user list --course edX/DemoX/2012_Fall --inactive --csv",
    ),
    exits="0 even if no user is found, 1 unknown course or group, 3 unreachable, 4 not migrated",
    see="rollbook user show",
)  # fmt: skip
def list_(
    run: Run,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only these.")] = None,
    staff: Annotated[bool | None, typer.Option("--staff/--no-staff", help="Only these.")] = None,
    superuser: Annotated[bool | None, typer.Option("--superuser/--no-superuser", help="Only these.")] = None,
    course: OfCourse = None,
    group: OfGroup = None,
    pending: Annotated[
        bool | None, typer.Option("--pending/--no-pending", help="With a pending change of name or e-mail.")
    ] = None,
) -> None:
    """List users by id. --match searches username, e-mail and name."""
    filters = {
        "match": run.match, "course": course, "group": group, "pending": pending, "is_active": active,
        "is_staff": staff, "is_superuser": superuser, **run.period,
    }  # fmt: skip
    with run.connect() as conn:
        if course is not None:
            known_courses(conn, [course])
        if group is not None:
            accounts.known_group(conn, group)
        found, total = accounts.listed(conn, render.fetch_limit(run), filters)
    render.listing(
        run, found, COLUMNS, empty="no user found; --match TEXT searches username, e-mail and name", total=total
    )


@command(
    app, "show", sets=("document",),
    examples=("user show ada", "user show ada@example.org id:42 --json"),
    exits="0 found, 1 unknown or ambiguous, 3 unreachable, or a course server is, 4 a copy differs, or not migrated",
    see="rollbook replication repair --user, rollbook history list --user, rollbook enrollment add",
)  # fmt: skip
def show(run: Run, user: Users, course: OfCourses = []) -> int:  # noqa: B006
    """Show users: account, profile, key, pending changes, groups, enrollments, test centre, copies in courses.

    The course servers are asked for their copies, all at once. --course limits the copies to a course.
    """
    from rollbook.replication.commands.users import report
    from rollbook.replication.person import look_everywhere
    from rollbook.replication.person_report import copies_of, in_short

    with run.connect() as conn:
        found = find_users(conn, expanded(user))
        asked = known_courses(conn, list(dict.fromkeys(course)))
        reports = [accounts.report(conn, row["id"]) for row in found]
        conn.rollback()
        everywhere = look_everywhere(conn, [row["id"] for row in found], asked, run.caller(), all_courses=not course)
    for row, parts in zip(found, reports, strict=True):
        parts.update(copies_of(everywhere, row["id"], {each["course"] for each in parts["enrollments"]}))

    def draw(out: IO[str]) -> None:
        for parts in reports:
            hidden = {"not_compared", *(["differences"] if not parts["differences"] else [])}  # the first is on stderr
            shown = {title.replace("_", " "): part for title, part in parts.items() if title not in hidden}
            shown["copies"] = [in_short(line) for line in parts["copies"]]
            render.sections(run, out, shown)

    render.document(run, reports, draw)
    report(run, user, found, everywhere)
    return 3 if everywhere.is_unreachable else 4 if everywhere.uncompared or everywhere.differing else 0


@command(
    app, "count", sets=("data",), columns=COUNTED, times="date_joined",
    examples=("user count", "user count --by course", "user count --by day --since -7d"),
    exits="0 counted, 3 unreachable, 4 not migrated", see="rollbook user list",
)  # fmt: skip
def count(run: Run, by: Annotated[By | None, typer.Option(help="One row for each.")] = None) -> None:
    """Count users and active users: all, by course, by country of the candidate record, or over the time of joining.

    Over time each day, ISO week (from Monday) or month of UTC has a row, also an empty one; on a terminal with bars.
    """
    with run.connect() as conn:
        found = accounts.count(conn, by, run.period)
    render.rows(run, found, COUNTED if by else COUNTED[1:], empty="nobody", bar="users" if by else None)
