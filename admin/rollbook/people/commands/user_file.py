"""`rollbook user import` and `export`; its `app` has all commands of `rollbook user`."""

from enum import StrEnum
from typing import Annotated

import typer

from rollbook.core import exporting
from rollbook.core import importing as bulk
from rollbook.core.arguments import ImportFile, OfCourse
from rollbook.core.command import Run, command
from rollbook.core.db import Conn
from rollbook.core.errors import UsageError
from rollbook.core.rows import Row
from rollbook.core.sheet import Sheet
from rollbook.people import oneroster as roster
from rollbook.people.commands import (  # noqa: F401 (each adds its commands to app)
    user_access,
    user_link,
    user_merge,
    user_password,
    user_privacy,
    user_pseudonym,
    user_write,
)
from rollbook.people.commands.removals_option import MaxRemovals
from rollbook.people.commands.source_option import Source
from rollbook.people.commands.user import app
from rollbook.people.queries import user_file
from rollbook.people.removals import parsed_limit
from rollbook.people.roster_links import SOURCE, TURN, checked
from rollbook.replication.queries.courses import known_courses

__all__ = ["app"]

IMPORTED = ("line", "username", "outcome", "detail")
EXPORTED = user_file.COLUMNS


class Mode(StrEnum):
    """Which users an import creates or changes."""

    create = "create"
    update = "update"
    upsert = "upsert"


@command(
    app, "import", sets=("data", "writes", "yes", "bulk"), columns=IMPORTED, long=True,
    examples=(
        "user import people.csv --dry-run",
        "user import people.csv --mode upsert --on-error skip --rejects wrong.csv",
        "user import --oneroster bundle/ --dry-run",
        "user import --oneroster bundle/ --source sis --max-removals 5% --yes",
        "user import --template",
    ),
    exits="0 done, 1 invalid rows or file, or too many removals; nothing changed, 2 invalid header, 3 unreachable, "
    "5 some rows skipped, 6 not confirmed",
    see="rollbook user export, rollbook enrollment import",
)  # fmt: skip
def import_(
    run: Run,
    file: ImportFile = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="create (default): all users are new; update: all exist; upsert: either (default for a bundle)."
        ),
    ] = None,
    oneroster: Annotated[
        str | None,
        typer.Option(metavar="DIR|ZIP", help="A OneRoster 1.1 or 1.2 bundle: its users, classes and enrollments."),
    ] = None,
    source: Source = SOURCE,
    max_removals: MaxRemovals = "10%",
    deactivate_missing: Annotated[
        bool,
        typer.Option("--deactivate-missing", help="Block users who are not in a bulk users.csv any more."),
    ] = False,
) -> int:
    r"""Create or change accounts from a file, all or nothing. A blank field leaves a value unchanged, \N empties it.

    A row names its user by username, or by id where an existing user gets another username.
    """
    if oneroster is not None:
        if file is not None:
            raise UsageError("FILE and --oneroster exclude each other", fix="name one of them")
        allowed = roster.Allowed(parsed_limit(max_removals), deactivates=deactivate_missing)
        return roster.imported(run, oneroster, str(mode or Mode.upsert), IMPORTED, allowed, checked("--source", source))
    if source != SOURCE or deactivate_missing:
        raise UsageError("--source and --deactivate-missing are for a bundle", fix="add --oneroster DIR")
    chosen = str(mode or Mode.create)
    required = () if chosen == Mode.update else ("username", "email")
    kind = bulk.Import(
        sheet=Sheet(user_file.COLUMNS, required, ("username",), either=("username", "id")),
        turn=TURN,
        check=lambda conn, staged: user_file.check(conn, chosen, with_ids="id" in staged.header),
        apply=lambda conn, _: user_file.apply(conn, run.reason or ""),
        columns=IMPORTED,
    )
    return bulk.imported(run, kind, file)


@command(
    app, "export", sets=("data", "listing"), columns=EXPORTED, long=True,
    examples=("user export -o people.csv", "user export --course edX/DemoX/2012_Fall --inactive > waiting.csv"),
    exits="0 even if there are none, 1 unknown course, 3 unreachable, 4 not migrated",
    see="rollbook user import, rollbook user list",
)  # fmt: skip
def export(
    run: Run,
    course: OfCourse = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only these.")] = None,
    with_id: Annotated[
        bool,
        typer.Option("--with-id", help="Include the ids: an import of the file into this portal can rename users."),
    ] = False,
    with_password_hash: Annotated[
        bool, typer.Option("--with-password-hash", help="Include the password hashes, which are secrets.")
    ] = False,
) -> None:
    """Write accounts as `user import` reads them, by id. The default format is CSV."""

    def accounts(conn: Conn, limit: int | None) -> list[Row]:
        if course is not None:
            known_courses(conn, [course])
        return user_file.export(
            conn, with_hash=with_password_hash, match=run.match, course=course, active=active, limit=limit
        )

    if with_password_hash:
        run.needs = "rollbook_operator"
    left_out = {"id": not with_id, "password_hash": not with_password_hash}
    columns = [name for name in EXPORTED if not left_out.get(name)]
    exporting.export(run, columns, accounts, what=f"course {course}" if course else "users", course=course)
