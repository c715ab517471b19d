"""`rollbook schema`: the migrations, Alembic behind them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.errors import NotConfirmedError, RefusedError, UnreachableError
from rollbook.core.nouns import noun
from rollbook.core.progress import progress
from rollbook.core.shell import quoted

if TYPE_CHECKING:
    from rollbook.core.shape import Shape

CURRENT = ("database", "revision", "is_head", "pending")
HISTORY = ("revision", "down_revision", "title", "locks", "reversible")
MOVED = ("database", "from", "to", "outcome")
CHECKED = ("object", "kind", "difference", "fix")

app = noun("schema")


def current_revision(run: Run) -> tuple[str, str | None]:
    """Return the database's name and its revision, None where Rollbook is not installed."""
    from rollbook.core.db import revision

    with run.connect(migrated=False) as conn:
        return conn.info.dbname, revision(conn)


@command(
    app, "current", sets=("data",), columns=CURRENT,
    examples=("schema current", "schema current --json"),
    exits="0 at the head, 3 unreachable, 4 not at the head", see="rollbook schema upgrade",
)  # fmt: skip
def current(run: Run) -> int:
    """Show the database's revision, and how many revisions it lacks."""
    from rollbook.core.migrating import known_revisions

    database, found = current_revision(run)
    known = known_revisions()
    pending = [name for name in known if found is None or name > found]
    row = {"database": database, "revision": found, "is_head": found == known[-1], "pending": len(pending)}
    render.rows(run, [row], CURRENT)
    return 0 if row["is_head"] else 4


@command(
    app, "history", sets=("data",), columns=HISTORY,
    examples=("schema history", "schema history --json"),
    exits="0 always; needs no server", see="rollbook schema sql",
)  # fmt: skip
def history(run: Run) -> None:
    """List the revisions that this program ships, and the locks that each takes."""
    from rollbook.system.migration import scripts

    rows = [
        {
            "revision": step.revision,
            "down_revision": step.down_revision,
            "title": (step.doc or "").split("\n")[0].rstrip("."),
            "locks": next(
                (" ".join(p.split())[7:] for p in step.longdoc.split("\n\n") if p.startswith("Locks: ")), None
            ),
            "reversible": hasattr(step.module, "downgrade"),
        }
        for step in reversed(list(scripts().walk_revisions()))
    ]
    render.rows(run, rows, HISTORY)


@command(
    app, "upgrade", sets=("data", "writes"), columns=MOVED, long=True,
    examples=("schema upgrade", "schema upgrade --to 0001 --dry-run"),
    exits="0 upgraded, or at the revision already, 1 refused, 3 unreachable, 4 newer than the program",
    see="rollbook schema sql",
)  # fmt: skip
def upgrade(
    run: Run,
    to: Annotated[str, typer.Option(metavar="REV", help="Up to this revision.")] = "head",
    shape: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The tables to copy, of a site that is there.", show_default=False),
    ] = None,
) -> None:
    """Upgrade the database to the newest revision, one transaction per revision. --dry-run prints the SQL instead."""
    if to == "head" and shape is None and not run.dry_run and is_at_head(run):
        return
    target, database, found = planned(run, to, up=True)
    note_encoding(run, is_new=found is None)
    move(run, target, database, found, up=True, shape=None if shape is None else first_shape(run, Path(shape), found))


def is_at_head(run: Run) -> bool:
    """Return whether nothing is left to upgrade, and report that: without Alembic, which costs 0.4 s."""
    from rollbook.core.migrating import known_revisions

    database, found = current_revision(run)
    if found != known_revisions()[-1]:
        return False
    render.rows(run, [dict(zip(MOVED, (database, found, found, "unchanged"), strict=True))], MOVED)
    note_encoding(run)
    return True


@command(
    app, "downgrade", sets=("data", "writes", "yes"), columns=MOVED, long=True,
    examples=("schema downgrade --to 0001 --dry-run", "schema downgrade --to base --yes"),
    exits="0 downgraded, 1 refused, 3 unreachable, 4 newer than the program, 6 not confirmed",
    see="rollbook schema history",
)  # fmt: skip
def downgrade(
    run: Run,
    to: Annotated[str, typer.Option(metavar="REV", help="Down to this revision; `base` removes everything.")],
    confirm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Repeat the database's name, instead of --yes.")
    ] = None,
) -> None:
    """Undo revisions. Undoing revision 0002 drops all course schemas, including what courses added to them."""
    target, database, found = planned(run, to, up=False)
    goes = found is not None and found >= "0002" and (target == "base" or target < "0002")
    if target == "base":
        refuse_adopted(run)
    if goes:
        refuse_with_servers(run)
    local = what_goes(run, target) if goes else ""
    if not run.dry_run and confirm != database and not run.yes:
        if confirm is not None:
            raise NotConfirmedError(
                f"--confirm {confirm} is not the database {database}", fix=f"add --confirm {quoted(database)}"
            )
        away = f", dropping every course schema{local}" if goes else ""
        render.confirm(run, f"downgrade {database} from {found or 'base'} to {target}{away}")
    if goes and not run.dry_run:
        refuse_others(run)
        drop_courses(run)
    move(run, target, database, found, up=False)


def note_encoding(run: Run, *, is_new: bool = False) -> None:
    """Report a database that is not in UTF8. Raises RefusedError for one in which Rollbook is not yet."""
    from rollbook.core.db import other_encoding

    with run.connect(migrated=False) as conn:
        if (encoding := other_encoding(conn)) and is_new:
            raise RefusedError(
                f"the database {conn.info.dbname} has the encoding {encoding}, not UTF8",
                why="it cannot hold every name, and can feed no course server",
                fix=f"create database {conn.info.dbname}_utf8 encoding 'UTF8' template template0, and use that",
            )
        if encoding:
            render.note(
                run, f"the database has the encoding {encoding}, not UTF8: it cannot hold every name, and can feed no "
                "course server; restore it into a database with encoding 'UTF8'",
            )  # fmt: skip


def planned(run: Run, to: str, *, up: bool) -> tuple[str, str, str | None]:
    """Return the full name of the revision wanted, the database, and its revision. Refuses the wrong direction."""
    from rollbook.core.db import refuse_newer
    from rollbook.system import migration as schema

    target = schema.known(to)
    database, found = current_revision(run)
    refuse_newer(found)
    way = schema.steps(found or "base", target)
    if way < 0 if up else way > 0:
        raise RefusedError(
            f"{to} is {'older' if up else 'newer'} than the database, which is at {found or 'base'}",
            fix=f"rollbook schema {'downgrade' if up else 'upgrade'} --to {to}",
        )
    return target, database, found


def refuse_others(run: Run) -> None:
    """Refuse a role that could drop the courses, and not what comes after them."""
    from rollbook.system.queries import foreign_owner

    with run.connect(migrated=False) as conn:
        if owner := foreign_owner(conn):
            raise UnreachableError(
                "this role may not take the schema away", why=f"schema rollbook belongs to {quoted(owner)}",
                fix=f"run it as the role {quoted(owner)}, or as a member of it",
            )  # fmt: skip


def refuse_adopted(run: Run) -> None:
    """Refuse to drop the tables of a site that was adopted, before a course is dropped; revision 0001 does too."""
    from rollbook.system.portal_tables import is_adopted

    with run.connect(migrated=False) as conn:
        if is_adopted(conn):
            raise RefusedError(
                "the portal's tables belong to a site that was adopted: they are not dropped",
                fix="rollbook schema adopt --undo",
            )


def refuse_with_servers(run: Run) -> None:
    """Refuse while there are course servers: each has a slot here and a subscription there."""
    from rollbook.replication import link

    with run.connect(migrated=False) as conn:
        link.refuse_servers(conn)


def what_goes(run: Run, target: str) -> str:
    """Return in words what courses added themselves. Refuses while something elsewhere stops the downgrade."""
    from rollbook.system.queries import list_dependents, list_local_objects

    with run.connect(migrated=False) as conn:
        if others := list_dependents(conn, portal=target == "base"):
            raise RefusedError(
                f"these depend on the tables that go: {', '.join(name for name, _ in others)}",
                fix=f"in psql: {' '.join(line for _, line in others)}",
            )
        added = list_local_objects(conn)
    return f" with what courses added ({'; '.join(added)})" if added else ""


def drop_courses(run: Run) -> None:
    """Drop all courses, each in a transaction of its own: thousands in one would not fit into the lock table."""
    from rollbook.replication.queries.courses import drop_course, known_courses

    with run.connect(migrated=False) as conn:
        course_ids = known_courses(conn, [])
        with progress(run, "drop courses", len(course_ids)) as advance:
            for course_id in course_ids:
                drop_course(conn, course_id, drop_local=True)
                conn.commit()
                advance(1)


def first_shape(run: Run, path: Path, found: str | None) -> "Shape":
    """Return the shape of a file, checked against the tables that are there. Refuses where one is declared."""
    from rollbook.core import shape
    from rollbook.core.declaring import check_first

    if found is not None and found >= "0002":
        raise RefusedError(
            "this database has a shape", why="--shape is for the first upgrade",
            fix=f"rollbook shape apply {quoted(str(path))}",
        )  # fmt: skip
    with run.connect(migrated=False) as conn:
        return check_first(conn, shape.load(path))


def move(run: Run, target: str, database: str, found: str | None, *, up: bool, shape: "Shape | None" = None) -> None:
    """Upgrade or downgrade and report; a dry run prints the SQL that would run."""
    from rollbook.core.migrating import placed, places
    from rollbook.system import migration as schema

    if run.dry_run:
        with run.connect(migrated=False) as conn:
            render.text(run, placed(schema.offline(found or "base", target, shape), places(conn)))
        return
    schema.move(
        run.dsn, target, up=up, shape=shape, report=lambda words: render.note(run, words), name=run.name,
        timeout=run.timeout, verbose=run.verbose,
    )  # fmt: skip
    reached = current_revision(run)[1]
    outcome = "unchanged" if reached == found else "upgraded" if up else "downgraded"
    render.rows(run, [dict(zip(MOVED, (database, found, reached, outcome), strict=True))], MOVED)


@command(
    app, "sql",
    examples=("schema sql > review.sql", "schema sql --from 0001 --to head"),
    exits="0 printed, 1 unknown revision; needs no server", see="rollbook schema upgrade",
)  # fmt: skip
def sql(
    run: Run,
    from_: Annotated[str, typer.Option("--from", metavar="REV", help="The database's revision.")] = "base",
    to: Annotated[str, typer.Option(metavar="REV", help="The target revision; an older one downgrades.")] = "head",
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE instead of stdout.")
    ] = "-",
) -> None:
    """Print the SQL of the migrations, and nothing else."""
    from rollbook.system import migration as schema

    run.output = output
    render.text(run, schema.offline(from_, to))


@command(
    app, "check", sets=("data",), columns=CHECKED,
    examples=("schema check", "schema check --json"),
    exits="0 as shipped, 3 unreachable, or a course server is, 4 differences", see="rollbook schema grant",
)  # fmt: skip
def check(run: Run) -> int:
    """Compare the database and the copies on course servers with what ships, and find foreign code and rights."""
    from rollbook.system.old_names import remarks
    from rollbook.system.queries import owner_members
    from rollbook.system.schema_check import differences, is_unreachable

    with run.connect() as conn:
        found = differences(conn, run.caller())
        members = owner_members(conn)
        names = [] if found else remarks(conn)  # what they ask may be what is missing
    render.rows(run, [vars(each) for each in found], CHECKED, empty="everything is as this program ships it")
    for remark in names:
        render.note(run, remark)
    if members:
        render.note(run, f"roles that may act for rollbook_owner, and so write copies: {', '.join(members)}")
    return 3 if is_unreachable(found) else 4 if found else 0


@command(
    app, "grant", sets=("writes",),
    examples=("schema grant", "schema grant --dry-run"),
    exits="0 done, 1 refused, 3 unreachable, 4 not migrated", see="rollbook schema check",
)  # fmt: skip
def grant(run: Run) -> None:
    """Make all roles, owners, rights and policies as shipped again, such as after a restore without them.

    On a site that was adopted in place it makes functions and triggers again, too.
    """
    from rollbook.core.migrating import places
    from rollbook.core.shape import of
    from rollbook.system.migration import grant_all, grants

    with run.connect() as conn:
        if run.dry_run:
            render.text(run, grants(of(conn), places(conn)))
            return
        grant_all(conn)
    render.note(run, "roles, owners, rights and policies are as this program ships them")


@command(
    app, "django", sets=("writes",),
    examples=("schema django", "schema django --dry-run"),
    exits="0 done, 1 refused, 3 unreachable, 4 not migrated", see="rollbook schema check",
)  # fmt: skip
def django(
    run: Run,
    role: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Give this login, the site's, its rights on all tables.")
    ] = None,
) -> None:
    """Make what Django's apps auth and contenttypes need beside auth_user, as migrated: `manage.py migrate` works."""
    from rollbook.system.django_tables import make_tables, script

    if run.dry_run:
        render.text(run, script(role))
        return
    with run.connect() as conn:
        place = make_tables(conn, role)
    path = "public" if place == "public" else f"{place},public"
    render.note(run, f"Django's tables are in schema {place}; in its settings: options='-c search_path={path}'")
