"""`rollbook status`: the whole system on one screen; and the verdicts that it shows."""

import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from admin import render
from admin.options import Format, Run, command

if TYPE_CHECKING:
    from admin.db import Conn
    from admin.render import Row

app = typer.Typer()

COLUMNS = (
    "course", "target", "kind", "state", "lag_bytes", "lag_seconds", "pending_changes", "oldest_pending_seconds",
    "error_count", "verified_at", "verdict", "observed_at",
)  # fmt: skip
SCREEN = ("course", "state", "lag_bytes", "lag_seconds", "verified_at", "verdict", "target")


def repeated(run: Run, once: Callable[[], int]) -> int:
    """Do it once, or with --watch every so many seconds, --count times or until Ctrl-C; return the last code."""
    turn = 1
    code = once()
    while run.watch is not None and turn != run.count:
        time.sleep(run.watch)
        turn += 1
        code = once()
    return code


def note_verdicts(conn: "Conn", report: "list[Row]", at: Any) -> None:  # noqa: ANN401
    """Note for each course the worst verdict of its tables, for `status`; a role that may not write notes nothing."""
    from psycopg import errors

    from admin import queries

    try:
        with conn.transaction():  # of its own: what the caller has done stays
            for course_id in dict.fromkeys(row["course"] for row in report):
                tables = [row for row in report if row["course"] == course_id]
                words = {row["verdict"] for row in tables}
                word = next(word for word in ("not_comparable", "differs", "match") if word in words)
                lame = word == "not_comparable"
                rows = None if lame else sum(row["missing"] + row["changed"] + row["extra"] for row in tables)
                queries.note_verification(conn, course_id, at, word, rows)
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
        pass


def verdict(asked: int, bad: int, rows: int, lame: list[str]) -> str:
    """Return the last line of a verify: a sentence, and the next command."""
    said = f"{render.plural(asked, 'course')} compared; "
    if lame:
        said += f"{len(lame)} could not be compared ({', '.join(lame)}); "
    if bad:
        said += f"{bad} {'differs' if bad == 1 else 'differ'} in {render.plural(rows, 'row')}.\n"
        return said + "  rollbook replication repair    shows what it would do and asks\n"
    if lame:
        return said + ("the others are equal.\n" if asked > len(lame) else "nothing is known.\n")
    return said + "all copies are equal to the portal.\n"


def courses_once(run: Run, asked: list[str]) -> int:
    """Write the state of the courses asked for; return 4 if one needs attention."""
    from admin import queries

    with run.connect() as conn:
        found = queries.status(conn, queries.known_courses(conn, asked) if asked else None)
    columns = SCREEN if render.chosen_format(run) is Format.table and not run.fields else COLUMNS
    render.rows(run, found, columns, empty="no courses yet: rollbook course create COURSE")
    return 4 if any(row["state"] != "ok" for row in found) else 0


def once(run: Run, asked: list[str]) -> int:
    """Write the portal's numbers, the state of the courses, and the command for each that needs attention."""
    from admin import queries
    from admin.db import revision
    from admin.migrating import known_revisions

    with run.connect() as conn:
        found = queries.status(conn, queries.known_courses(conn, asked) if asked else None)
        portal = queries.portal(conn)
        portal["revision"] = revision(conn)
        portal["is_head"] = portal["revision"] == known_revisions()[-1]
    needy = [row for row in found if row["state"] != "ok"]

    def draw(out: IO[str]) -> None:
        head = "head" if portal["is_head"] else "not the head"
        out.write(
            f"{portal['database']} · PostgreSQL {portal['server_version'].split()[0]} · "
            f"schema {portal['revision']} ({head})\n"
            f"{render.plural(portal['users'], 'user')} · "
            f"{render.plural(portal['enrollments'], 'enrollment')}\n\n"
        )
        if not found:
            out.write("(no courses yet: rollbook course create COURSE)\n")
            return
        render.table(run, out, [{name: row[name] for name in SCREEN} for row in found], list(SCREEN))
        if needy:
            verb = "needs" if len(needy) == 1 else "need"
            out.write(f"\n{len(needy)} of {render.plural(len(found), 'course')} {verb} attention:\n")
        for row in needy[:5]:
            verb = "verify" if row["verdict"] != "differs" else "repair"
            out.write(f"  rollbook replication {verb} '{row['course']}'\n")

    if render.chosen_format(run) in (Format.csv, Format.tsv):
        render.rows(run, found, COLUMNS)
    else:
        render.document(run, {"portal": portal, "courses": found}, draw)
    return 4 if needy else 0


@command(
    app, "status", sets=("data", "watch"), columns=COLUMNS, panel="Look",
    examples=("status", "status --json", "status --watch 5"),
    exits="0 all ok, 1 unknown course, 3 unreachable, 4 a course needs attention or the database is not migrated",
    see="rollbook replication verify",
)  # fmt: skip
def status(
    run: Run,
    course: Annotated[list[str], typer.Argument(metavar="[COURSE...]", help="Default: all.", show_default=False)] = [],  # noqa: B006
) -> int:
    """Show the portal and every course on one screen, the worst first, with the command that helps."""
    return repeated(run, lambda: once(run, course))
