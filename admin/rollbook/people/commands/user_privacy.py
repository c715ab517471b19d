"""`rollbook user report` and `erase`: what is held on a person, and its removal."""

from typing import IO, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import User
from rollbook.core.command import Run, command
from rollbook.core.errors import PartialError, UnreachableError
from rollbook.core.rows import Row
from rollbook.core.shell import quoted
from rollbook.people.commands.user import app

__all__ = ["app"]

ERASED = ("place", "object", "rows", "outcome", "detail", "lsn", "at")
HELD = ("place", "object", "rows")


@command(
    app, "report", sets=("document",), long=True,
    examples=("user report ada -o ada.json", "user report id:42"),
    exits="0 complete, 1 unknown or ambiguous, 3 unreachable, or something could not be read: the report says what",
    see="rollbook user erase, rollbook user show",
)  # fmt: skip
def report(run: Run, user: User) -> int:
    """Write everything held on a user, everywhere, as JSON: the answer to a request of the person.

    Portal, history, exchange files by name, every course and every course server, with the course's own columns. The
    file is readable by you alone. Passwords and keys are not in it. Without -o it prints what there is, not the rows.
    """
    from rollbook.people.reporting import report as reported

    if run.output != "-" and run.format is None:
        run.json = True
    found = reported(run, user)

    def draw(out: IO[str]) -> None:
        rows: list[Row] = [row | {"rows": len(row["rows"])} for row in found.places]
        files = [{"file": row["name"], "kind": row["kind"], "at": row["at"]} for row in found.exchange_files]
        render.sections(run, out, {"User": found.user, "Held": rows, "Exchange files": files})

    render.document(run, vars(found), draw)
    for each in found.open:
        render.note(run, f"not in the report: {each['place']}: {each['object']}: {each['why']}")
    for each in found.not_searched:
        render.note(run, f"not searched: {each['place']}: {each['object']} has no foreign key to a copy")
    return UnreachableError.exit_code if found.open else 0


@command(
    app, "erase", sets=("data", "writes"), columns=ERASED, long=True,
    examples=(
        "user erase ada -n", "user erase ada --confirm ada --reason 'request 2012-17' -o receipt.csv",
        "user erase ada --policy policy.toml -n",
    ),
    exits="0 erased everywhere, 1 refused (unknown, rows of other tables forbid it), nothing changed, 2 wrong policy, "
    "3 a server was not reached, or the role may not, 5 something else is open: run it again, 6 not confirmed",
    see="rollbook user report, rollbook user delete, rollbook history erase",
)  # fmt: skip
def erase(
    run: Run,
    user: User,
    confirm: Annotated[str | None, typer.Option(metavar="USERNAME", help="Repeat the username to confirm.")] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="FILE", help="TOML: [[keep]] with the table, reason and until of each law.")
    ] = None,
    remove_references: Annotated[
        bool, typer.Option("--remove-references", help="Delete rows of other tables that refer to the user, too.")
    ] = False,
    with_kept: Annotated[
        bool, typer.Option("--with-kept", help="Also what an earlier policy kept: its time is over.")
    ] = False,
) -> int:
    """Erase a person everywhere, for good: portal, history, all courses and servers. Prints a receipt of each place.

    Only the role that migrates may. Without --confirm it prints the plan. What is not reached is `open`: run the same
    command again to finish it. Files that were sent are listed and stay. Backups: docs/privacy.md.
    """
    from rollbook.people.erasing import Options
    from rollbook.people.erasing import erase as erased
    from rollbook.people.keeping import read_policy

    options = Options(read_policy(policy), remove_references, with_kept)
    number, lines = erased(run, user, confirm, options)
    render.rows(run, [vars(line) for line in lines], ERASED, empty="nothing is held on this user")
    still_open = [line for line in lines if line.outcome == "open"]
    if run.dry_run or not still_open:
        return 0
    render.note(run, f"not finished: {render.plural(len(still_open), 'place')} open; when they answer: "
                f"rollbook user erase id:{number} --confirm {quoted(f'id:{number}')}")  # fmt: skip
    unreached = any(line.place.startswith("server ") for line in still_open)
    return UnreachableError.exit_code if unreached else PartialError.exit_code
