"""`rollbook course attach`, `detach`, `move`: the server of a course; course.py and life.py have the rest."""

from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import Courses
from rollbook.core.command import Format, Run, command
from rollbook.core.completion import servers
from rollbook.core.shell import course_word
from rollbook.core.values import one_line
from rollbook.replication.commands.comparison import reporting
from rollbook.replication.commands.life import app
from rollbook.replication.commands.server import show_steps
from rollbook.replication.commands.users import show_failures

__all__ = ["app"]  # course.py and life.py have its other commands

PLACED = ("course", "server", "table", "rows", "outcome")
MOVED = ("course", "from_server", "server", "object", "rows", "outcome", "command")


@command(
    app, "attach", sets=("data", "writes", "yes"), columns=PLACED, long=True,
    examples=(
        "course attach edX/DemoX/2012_Fall --to east",
        "course attach edX/DemoX/2012_Fall edX/toy/2013_Spring --to east --dry-run",
    ),
    exits="0 attached and equal, 1 refused, 3 unreachable, 4 the first copy is not complete, or rows differ, "
    "5 only some",
    see="rollbook server add, rollbook replication status, rollbook course detach",
)  # fmt: skip
def attach(
    run: Run,
    course: Courses,
    to: Annotated[str, typer.Option("--to", metavar="SERVER", help="The course server.", autocompletion=servers)],
) -> int:
    """Place courses on a server: create schemas, copy rows, then replicate every change. The copies here stay.

    It can be interrupted at any point and run again. It ends with a comparison of the rows on the server.
    """
    from rollbook.replication import attach as attaching
    from rollbook.replication.steps import Steps

    steps = Steps(dry=run.dry_run)
    with reporting(run, "copy", attaching.count_copies(run, course, to)) as progress:
        done = attaching.attach(run, course, to, steps, progress)
    if done.outcome == "copying":
        render.note(run, "the first copy continues by itself; watch it with: rollbook replication status")
        return 4
    show_failures(run, done.failures)
    show_steps(run, steps)
    render.rows(run, [vars(row) for row in done.rows], PLACED)
    if done.failures:
        return 5 if done.rows else done.failures[0].error.exit_code
    return 4 if any(row.outcome == "differs" for row in done.rows) else 0


@command(
    app, "detach", sets=("data", "writes", "yes"), columns=PLACED, long=True,
    examples=("course detach MITx/6.002x/2012_Fall --yes", "course detach MITx/6.002x/2012_Fall --keep-data --yes"),
    exits="0 detached, 1 refused, 3 unreachable, 5 detached, but something is left on the server, 6 not confirmed",
    see="rollbook course attach, rollbook server remove",
)  # fmt: skip
def detach(
    run: Run,
    course: Courses,
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Keep the copies there, as they are now.")] = False,
    drop_local: Annotated[
        bool, typer.Option("--drop-local", help="Also drop the columns and tables that the course added there.")
    ] = False,
    unreachable: Annotated[
        bool, typer.Option("--unreachable", help="The server is lost: forget the course here without contacting it.")
    ] = False,
) -> int:
    """Remove courses from their server. The copies there are dropped unless the course added columns or tables.

    The copies in the portal's database stay and remain current.
    """
    from rollbook.replication import attach as attaching
    from rollbook.replication.steps import Steps

    steps = Steps(dry=run.dry_run)
    options = attaching.Detaching(keep_data, drop_local, unreachable)
    found = attaching.list_attached(run, course)
    if placed := [f"{row.course} from {row.server}" for row in found if row.server]:
        rest = "; the rows there stay as they are" if keep_data else ", with its rows there"
        render.confirm(run, "detach " + ", ".join(placed) + rest)
    rows, abandoned = attaching.detach(run, found, options, steps)
    show_steps(run, steps)
    render.removed(run, [{**vars(row), "remains": row.remains} for row in rows], PLACED)
    if abandoned:
        render.note(run, "if that server comes back, drop these schemas there; its subscription no longer feeds them")
    left = not keep_data and any(row.is_left for row in rows)
    return 5 if abandoned or left else 0


@command(
    app, "move", sets=("data", "writes", "yes"), columns=MOVED, long=True,
    examples=(
        "course move edX/DemoX/2012_Fall --to west --yes",
        "course move edX/DemoX/2012_Fall --to west --prepare",
        "course move edX/DemoX/2012_Fall --to west --finish --yes",
    ),
    exits="0 moved and equal, 1 refused, 3 unreachable, 4 the first copy is not complete, rows differ, or the course's "
    "own objects must be carried first, 5 only some, or something is left on the old server, 6 not confirmed",
    see="rollbook course attach, rollbook status",
)  # fmt: skip
def move(
    run: Run,
    course: Courses,
    to: Annotated[str, typer.Option("--to", metavar="SERVER", help="The course server.", autocompletion=servers)],
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only build and compare the copies there; both servers are fed then.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="The course's own objects have been carried: let the old server go.")
    ] = False,
    drop_local: Annotated[
        bool, typer.Option("--drop-local", help="Drop what the course added on the old server, carried or not.")
    ] = False,
    unreachable: Annotated[
        bool, typer.Option("--unreachable", help="The old server is lost: let it go without contacting it.")
    ] = False,
) -> int:
    """Move courses to another server while people write: build and compare their copies there, then drop the old ones.

    It can be interrupted at any point and run again; moving to the old server takes it back. What a course has added to
    its schema is not copied: the command stops, with both servers fed, and prints the commands that carry it; then
    --finish.
    """
    from rollbook.core.errors import UsageError
    from rollbook.replication import move as moving
    from rollbook.replication.carry import MISSING
    from rollbook.replication.steps import Steps

    if prepare and (finish or drop_local):
        raise UsageError("--prepare excludes --finish and --drop-local")
    steps = Steps(dry=run.dry_run)
    options = moving.Moving(prepare, finish, drop_local, unreachable)
    plan = moving.plan_move(run, course, to, options)
    if plan.question and not prepare:
        render.confirm(run, plan.question)
    with reporting(run, "copy", plan.copies or None) as progress:
        done = moving.move(run, plan, options, steps, progress)
    if done.outcome == "copying":
        render.note(run, "the first copy continues by itself; when it is complete, run the command again")
        return 4
    show_failures(run, done.failures)
    show_steps(run, steps)
    table = render.chosen_format(run) is Format.table
    render.rows(run, [vars(row) for row in done.rows], MOVED[:-1] if table and not run.fields else MOVED)
    script = [
        f"# by hand: {one_line(str(row.object))}" for row in done.rows if row.outcome == MISSING and not row.command
    ]
    script += list(dict.fromkeys(row.command for row in done.rows if row.command))
    if script and table:
        render.text(run, "\n# What the course added, and the new server lacks. Let its application pause, then run:\n")
        render.text(run, "\n".join(script) + "\n")
    if done.is_waiting:
        again = " ".join(map(course_word, dict.fromkeys(row.course for row in done.rows if row.outcome == "moving")))
        render.note(
            run, f"both servers are fed. When the new one has all that the course added, and its application writes "
            f"there: rollbook course move {again} --to {to} --finish",
        )  # fmt: skip
    if done.failures:
        return 5 if done.rows else done.failures[0].error.exit_code
    if any(row.is_left for row in done.rows) or (done.is_waiting and any(row.outcome == "moved" for row in done.rows)):
        return 5
    return 4 if done.is_waiting or any(row.outcome == "differs" for row in done.rows) else 0
