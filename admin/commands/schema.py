"""`rollbook schema`: the migrations, Alembic behind them."""

from typing import TYPE_CHECKING, Annotated

import typer

from admin import render
from admin.errors import NotConfirmedError
from admin.options import Run, command

if TYPE_CHECKING:
    from admin.db import Conn

app = typer.Typer(
    name="schema", help="The database's schema: upgrade it, check it, read its SQL.", no_args_is_help=True
)


def current_revision(run: Run) -> tuple[str, str | None]:
    """Return the database's name and its revision, None where Rollbook is not installed."""
    from admin.db import revision

    with run.connect(migrated=False) as conn:
        return conn.info.dbname, revision(conn)


@command(
    app, "current", sets=("data",),
    examples=("schema current", "schema current --json"),
    exits="0 at the head, 3 unreachable, 4 not at the head", see="rollbook schema upgrade",
)  # fmt: skip
def current(run: Run) -> int:
    """Show which revision the database stands at, and how many it lacks."""
    from admin.migrating import known_revisions

    database, found = current_revision(run)
    known = known_revisions()
    pending = [name for name in known if found is None or name > found]
    row = {"database": database, "revision": found, "is_head": found == known[-1], "pending": len(pending)}
    render.rows(run, [row], tuple(row))
    return 0 if row["is_head"] else 4


@command(
    app, "history", sets=("data",),
    examples=("schema history", "schema history --json"),
    exits="0 always; needs no server", see="rollbook schema sql",
)  # fmt: skip
def history(run: Run) -> None:
    """List the revisions that this program ships, with what each locks."""
    from admin.schema import scripts

    rows = [
        {
            "revision": step.revision,
            "down_revision": step.down_revision,
            "title": (step.doc or "").split("\n")[0].rstrip("."),
            "locks": next(
                (" ".join(p.split())[7:] for p in step.longdoc.split("\n\n") if p.startswith("Locks: ")), None
            ),
            "reversible": True,
        }
        for step in reversed(list(scripts().walk_revisions()))
    ]
    render.rows(run, rows, ("revision", "down_revision", "title", "locks", "reversible"))


@command(
    app, "upgrade", sets=("data", "writes"), long=True,
    examples=("schema upgrade", "schema upgrade --to 0001 --dry-run"),
    exits="0 upgraded, or at the revision already, 1 refused, 3 unreachable or a missing right",
    see="rollbook schema sql",
)  # fmt: skip
def upgrade(run: Run, to: Annotated[str, typer.Option(metavar="REV", help="Up to this revision.")] = "head") -> None:
    """Bring the database to the head, one transaction a revision. With --dry-run prints the SQL instead."""
    move(run, to, up=True)


@command(
    app, "downgrade", sets=("data", "writes", "yes"), long=True,
    examples=("schema downgrade --to 0001 --dry-run", "schema downgrade --to base --yes"),
    exits="0 downgraded, 1 refused, 3 unreachable, 6 not confirmed", see="rollbook schema history",
)  # fmt: skip
def downgrade(
    run: Run,
    to: Annotated[str, typer.Option(metavar="REV", help="Down to this revision; `base` takes everything away.")],
    confirm: Annotated[str | None, typer.Option(metavar="NAME", help="The database's name, instead of --yes.")] = None,
) -> None:
    """Take revisions back. Course schemas, with all that courses added to them, go with revision 0002."""
    from admin import queries, schema

    to = schema.known(to)
    database, found = current_revision(run)
    goes = to == "base" or (found is not None and to < "0002" <= found)
    if not run.dry_run and confirm != database and not run.yes:
        what = f"downgrade {database} from {found} to {to}" + (", dropping every course schema" if goes else "")
        if confirm is not None:
            raise NotConfirmedError(
                f"--confirm {confirm} is not the database {database}", fix=f"add --confirm {database}"
            )
        render.confirm(run, what)
    if goes and found and found >= "0002" and not run.dry_run:
        with run.connect() as conn:
            drop_courses(run, conn, [row["course"] for row in queries.courses(conn)])
    move(run, to, up=False)


def drop_courses(run: Run, conn: "Conn", course_ids: list[str]) -> None:
    """Drop all courses, each in a transaction of its own: thousands in one would not fit into the lock table."""
    from admin import queries

    with render.progress(run, "drop courses", len(course_ids)) as advance:
        for course_id in course_ids:
            queries.drop_course(conn, course_id, drop_local=True)
            conn.commit()
            advance(1)


def move(run: Run, to: str, *, up: bool) -> None:
    """Upgrade or downgrade and report; a dry run prints the SQL that would run."""
    from admin import schema

    target = schema.known(to)
    database, found = current_revision(run)
    if run.dry_run:
        render.text(run, schema.offline(found or "base", target))
        return
    schema.move(run.dsn, target, up=up, name=run.name)
    reached = current_revision(run)[1]
    outcome = "unchanged" if reached == found else "upgraded" if up else "downgraded"
    row = {"database": database, "from": found, "to": reached, "outcome": outcome}
    render.rows(run, [row], tuple(row))


@command(
    app, "sql",
    examples=("schema sql > review.sql", "schema sql --from 0001 --to head"),
    exits="0 printed, 1 unknown revision; needs no server", see="rollbook schema upgrade",
)  # fmt: skip
def sql(
    run: Run,
    from_: Annotated[str, typer.Option("--from", metavar="REV", help="The revision the database stands at.")] = "base",
    to: Annotated[str, typer.Option(metavar="REV", help="The revision wanted; an older one downgrades.")] = "head",
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="Write there instead of stdout.")] = "-",
) -> None:
    """Print the SQL of the migrations, and nothing else."""
    from admin import schema

    run.output = output
    render.text(run, schema.offline(from_, to))


@command(
    app, "check", sets=("data",),
    examples=("schema check", "schema check --json"),
    exits="0 as shipped, 3 unreachable, 4 differences", see="rollbook schema upgrade",
)  # fmt: skip
def check(run: Run) -> int:
    """Compare functions, triggers, views, guards and copied columns in the database with what this program ships."""
    from admin.checking import differences

    with run.connect() as conn:
        found = differences(conn)
    render.rows(run, found, ("object", "kind", "difference"), empty="everything is as this program ships it")
    return 4 if found else 0
