"""`rollbook enrollment`: who is in which course."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from admin import render
from admin.errors import UsageError
from admin.options import Run, command

app = typer.Typer(name="enrollment", help="Enrollments: who is in which course.", no_args_is_help=True)

LINKED = ("course", "username", "email", "outcome")
COUNTED = ("key", "enrollments")
COLUMNS = ("course", "username", "email", "created", "replicated")
Course = Annotated[str, typer.Argument(metavar="COURSE", help="A course, see rollbook course list.")]
Users = Annotated[
    list[str], typer.Argument(metavar="USER...", help="Users; - reads them from stdin, @FILE from a file.")
]


class By(StrEnum):
    """What enrollments are counted by."""

    course = "course"
    day = "day"


def expanded(users: list[str]) -> list[str]:
    """Return the users named, with `-` (stdin) and @FILE replaced by their lines. Raises UsageError."""
    named: list[str] = []
    for user in users:
        if user == "-" or user.startswith("@"):
            try:
                lines = (
                    typer.get_text_stream("stdin").read().removeprefix("\ufeff")
                    if user == "-"
                    else Path(user[1:]).read_text("utf-8-sig")
                )
            except (OSError, UnicodeDecodeError) as exc:
                raise UsageError(f"cannot read {user}", why=str(exc)) from exc
            named += [line.strip() for line in lines.splitlines() if line.strip()]
        else:
            named.append(user)
    if not named:
        raise UsageError("no users named", fix="name users, or pipe them in, one a line")
    return named


def link(run: Run, course: str, users: list[str], *, join: bool) -> None:
    """Enroll users or end their enrollments, all or nothing, and report each."""
    from admin import queries

    named = expanded(users)
    with run.connect() as conn:
        queries.known_courses(conn, [course])
        found = queries.find_users(conn, named)
        touched = (queries.enroll if join else queries.leave)(conn, course, [row["id"] for row in found])
    done = ("would " if run.dry_run else "") + ("create" if join else "remove") + ("" if run.dry_run else "d")
    rows = [{"course": course, **row, "outcome": done if row["id"] in touched else "unchanged"} for row in found]
    render.rows(run, rows, LINKED)


@command(
    app, "add", sets=("data", "writes"), columns=LINKED,
    examples=(
        "enrollment add edX/DemoX/2012_Fall ada bob@example.org",
        "enrollment add edX/DemoX/2012_Fall - < users.txt",
    ),
    exits="0 done (who is in already stays), 1 unknown user or course, nothing changed, 3 unreachable, 4 not migrated",
    see="rollbook enrollment remove, rollbook user show",
)  # fmt: skip
def add(run: Run, course: Course, user: Users) -> None:
    """Enroll users in a course, all or nothing. Their copies stand in the course when the command ends."""
    link(run, course, user, join=True)


@command(
    app, "remove", sets=("data", "writes"), columns=LINKED,
    examples=("enrollment remove edX/DemoX/2012_Fall ada", "enrollment remove edX/DemoX/2012_Fall @leavers.txt -n"),
    exits="0 done (who is not in stays out), 1 unknown user or course, nothing changed, 3 unreachable, 4 not migrated",
    see="rollbook enrollment add, rollbook course show (on_leave)",
)  # fmt: skip
def remove(run: Run, course: Course, user: Users) -> None:
    """End enrollments, all or nothing. What becomes of the copies is the course's on_leave."""
    link(run, course, user, join=False)


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("enrollment list --course edX/DemoX/2012_Fall", "enrollment list --user ada --json"),
    exits="0 also if there is none, 1 unknown user, 3 unreachable, 4 not migrated",
    see="rollbook enrollment count",
)  # fmt: skip
def list_(
    run: Run,
    course: Annotated[str | None, typer.Option(metavar="COURSE", help="Only this course; it need not exist.")] = None,
    user: Annotated[str | None, typer.Option(metavar="USER", help="Only this user.")] = None,
) -> None:
    """List enrollments; `replicated` says whether the copy stands in the course (empty: there is no such course)."""
    from admin import queries

    limit = render.shown_limit(run)
    with run.connect() as conn:
        user_id = queries.find_users(conn, [user])[0]["id"] if user is not None else None
        found, total = queries.enrollments(
            conn, course=course, user_id=user_id, match=run.match, limit=None if run.sort else limit
        )
    rows = render.ordered(run, found)[:limit]
    render.rows(run, rows, COLUMNS, empty="no enrollments; rollbook enrollment add COURSE USER...", total=total)


@command(
    app, "count", sets=("data",), columns=COUNTED,
    examples=("enrollment count", "enrollment count --by day --course edX/DemoX/2012_Fall"),
    exits="0 counted, 3 unreachable, 4 not migrated", see="rollbook enrollment list",
)  # fmt: skip
def count(
    run: Run,
    by: Annotated[By | None, typer.Option(help="One row for each.")] = None,
    course: Annotated[str | None, typer.Option(metavar="COURSE", help="Only this course.")] = None,
) -> None:
    """Count enrollments: all, by course, or by day."""
    from admin import queries

    with run.connect() as conn:
        found = queries.count_enrollments(conn, course, by)
    render.rows(run, found, COUNTED if by else COUNTED[1:], empty="no enrollments")
