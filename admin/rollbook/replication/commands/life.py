"""`rollbook course close`, `open`, `archive`, `restore`, `rename`: the life of a course; course.py has the others."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import Course
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import NotConfirmedError, UsageError
from rollbook.core.remains import Remain
from rollbook.core.shell import course_word
from rollbook.replication.commands.course import app

if TYPE_CHECKING:
    from rollbook.core.db import Conn

__all__ = ["app"]

ARCHIVED = ("course", "place", "file", "bytes", "enrollments", "copied_users", "outcome")
RESTORED = ("course", "schema_name", "enrolled", "copied_users", "rows", "enrolled_again", "outcome")
RENAMED = ("course", "former_id", "schema_name", "server", "enrolled", "outcome")
SHOWN = 5  # users that a line names
CLOSED = ("course", "state", "enrolled", "closed_at", "closed_by", "outcome")


@command(
    app, "close", sets=("data", "writes"), columns=CLOSED,
    examples=("course close MITx/6.002x/2012_Fall", "course close MITx/6.002x/2012_Fall --reason 'term is over' -n"),
    exits="0 closed, also if it was before, 1 unknown course, or a lock was not free in time, 3 unreachable, "
    "4 not migrated",
    see="rollbook course open, rollbook course archive",
)  # fmt: skip
def close(run: Run, course: Course) -> None:
    """Close a course: new enrollments are refused, whoever writes them. Copies stay current, and users can leave.

    It waits for enrollments that are under way. Addresses on the allowed list stay there and enroll nobody.
    """
    from rollbook.replication.queries.courses import close_course

    change(run, course, close_course, "closed")


@command(
    app, "open", sets=("data", "writes"), columns=CLOSED,
    examples=("course open MITx/6.002x/2012_Fall", "course open MITx/6.002x/2012_Fall --dry-run"),
    exits="0 opened, or it was open, 1 unknown course, or a lock was not free in time, 3 unreachable, 4 not migrated",
    see="rollbook course close",
)  # fmt: skip
def open_(run: Run, course: Course) -> None:
    """Open a course that was closed: it takes new enrollments again."""
    from rollbook.replication.queries.courses import open_course

    change(run, course, open_course, "opened")


def change(run: Run, course: str, write: "Callable[[Conn, str], bool]", outcome: str) -> None:
    """Close or open a course, record it and write its row."""
    from rollbook.core import history
    from rollbook.replication.queries.courses import course_sql, find_course

    with run.connect() as conn:
        before = find_course(conn, course)
        is_new = write(conn, course)
        found = find_course(conn, course)
        if is_new:
            sides = ({"closed_at": row.closed_at} for row in (before, found))
            history.record(conn, run, course, outcome, before=next(sides), after=next(sides), course_id=course)
        statement = course_sql("rollbook.close_course" if outcome == "closed" else "rollbook.open_course", [course])
    if run.dry_run and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    render.rows(run, [{**vars(found), "outcome": outcome if is_new else "unchanged"}], CLOSED)


@command(
    app, "archive", sets=("data", "writes"), columns=ARCHIVED, long=True,
    examples=(
        "course archive edX/DemoX/2012_Fall -o demox.tar.gz",
        "course archive edX/DemoX/2012_Fall -o demox.tar.gz --drop --confirm edX/DemoX/2012_Fall",
    ),
    exits="0 archived, 1 unknown course, no pg_dump that fits, or it is moving, 2 FILE cannot be written, "
    "3 unreachable, 5 dropped, but its relay keeps what somebody added there, 6 not confirmed",
    see="rollbook course restore, rollbook course delete",
)  # fmt: skip
def archive(
    run: Run,
    course: Course,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="The file to write.")],
    drop: Annotated[
        bool, typer.Option("--drop", help="Drop the course when the file was written and read again.")
    ] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="COURSE", help="Repeat the course ID to confirm --drop.")
    ] = None,
) -> int:
    """Archive a course in one file: its schema with all that it added, the enrollments, and how it was.

    What lives on a course server is read there, with pg_dump. --drop also drops the course as course delete does, and
    on its server; the portal's enrollments stay. The file holds personal data and is readable by you alone.
    """
    from rollbook.replication import archive as archiving

    if confirm is not None and not drop:
        raise UsageError("--confirm is for --drop", fix="add --drop, or leave it out")
    found = archiving.check_drop(run, course) if drop else None
    if found and not run.dry_run and confirm != course:
        message = f"not confirmed: this drops schema {found.schema_name} once it is archived"
        if confirm is not None:
            message = f"--confirm {confirm} is not the course {course}"
        raise NotConfirmedError(message, fix=f"add --confirm {course_word(course)}")
    done = vars(archiving.archive(run, course, output, is_dropped=drop))
    left = archiving.drop(run, found) if found and not run.dry_run else []
    render.rows(run, [{**done, "outcome": "archived and removed" if drop else "archived"}], ARCHIVED)
    render.remains(run, [each for row in left for each in row.remains])
    return 5 if left else 0


@command(
    app, "restore", sets=("data", "writes"), columns=RESTORED, long=True,
    examples=("course restore demox.tar.gz --dry-run", "course restore demox.tar.gz --enroll"),
    exits="0 restored and equal to the portal, 1 the file is damaged or newer, the course exists, or rows of its own "
    "need a user who is gone, 3 unreachable, 4 not migrated",
    see="rollbook course archive, rollbook course attach",
)  # fmt: skip
def restore(
    run: Run,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file of course archive.")],
    enroll: Annotated[
        bool, typer.Option("--enroll", help="Enroll again who was enrolled then, has an account, and is not now.")
    ] = False,
    remove_references: Annotated[
        bool, typer.Option("--remove-references", help="Remove the course's own rows of users without an account.")
    ] = False,
) -> None:
    """Restore a course from its archive, into the portal: all that it added, and copies as the portal has them now.

    It is one transaction. Users who were enrolled and have no account any more are listed, and not created.
    """
    from rollbook.replication import archive as archiving

    done = archiving.restore(run, file, enroll=enroll, remove_references=remove_references)
    remains = [
        Remain("archive", f"{what}: {', '.join(f'id:{user}' for user in users[:SHOWN])}"
               f"{', ...' if len(users) > SHOWN else ''}", len(users), fix)
        for what, users, fix in (
            ("users who were enrolled and have no account any more", done.gone, None),
            ("users who were enrolled and are not now", done.ended, "restore with --enroll enrolls them again"),
            ("users who have another username and another e-mail address than then", done.others,
             "see who they are before the course is used: what it holds on their ids may be somebody else's"),
        )
        if users
    ]  # fmt: skip
    if done.invokers:
        remains.append(Remain(
            "archive", f"functions that run with the rights of their callers now: {', '.join(done.invokers[:SHOWN])}"
            f"{', ...' if len(done.invokers) > SHOWN else ''}", len(done.invokers),
            f"give each an owner for its task, then: alter function {done.invokers[0]} security definer",
        ))  # fmt: skip
    remains += [
        Remain("archive", f"rows of {name}, of users without an account: removed", rows)
        for name, rows in done.removed.items()
    ]
    render.removed(run, [{**vars(done), "remains": remains}], RESTORED)


@command(
    app, "rename", sets=("data", "writes"), columns=RENAMED, long=True,
    examples=(
        "course rename edX/DemoX/2012_Fall edX/DemoX/2013_Spring --dry-run",
        "course rename edX/DemoX/2012_Fall edX/DemoX/2013_Spring --reason 'moved by a term'",
    ),
    exits="0 renamed, 1 unknown course, the new ID is taken, or a lock was not free in time, 3 unreachable, "
    "4 not migrated",
    see="rollbook course show, rollbook history list --course",
)  # fmt: skip
def rename(
    run: Run,
    course: Course,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The new course ID.", show_default=False)],
) -> None:
    """Rename a course: enrollments, allowed list, exams and authorizations follow; schema, server and data stay.

    It is one transaction: writers of the course's members wait for it. New enrollments with the old ID are refused.
    """
    from rollbook.core import history
    from rollbook.replication.queries.courses import course_sql, find_course, rename_course

    with run.connect() as conn:
        find_course(conn, course)
        rename_course(conn, course, new)
        found = find_course(conn, new)
        history.record_many(conn, run, [
            {"object": course, "outcome": "renamed", "course_id": course, "after": {"course": new}},
            {"object": new, "outcome": "renamed", "course_id": new, "before": {"course": course}},
        ])  # fmt: skip
        statement = course_sql("rollbook.rename_course", [course, new])
    if run.dry_run and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    render.rows(run, [{**vars(found), "former_id": course, "outcome": "renamed"}], RENAMED)
