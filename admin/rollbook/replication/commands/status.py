"""`rollbook status`: the whole system on one screen; and the verdicts that it shows."""

import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import typer

from rollbook.core import render
from rollbook.core.arguments import AnyCourses
from rollbook.core.command import Format, Run, command
from rollbook.core.table import table

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.render import Row

app = typer.Typer()

COLUMNS = (
    "course", "target", "kind", "state", "lag_bytes", "lag_seconds", "pending_changes", "oldest_pending_seconds",
    "error_count", "verified_at", "verdict", "observed_at", "reason", "fix",
)  # fmt: skip
SHOWN = 5  # courses that need attention and are explained on a screen
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


def note_verdicts(conn: "Conn", report: "list[Row]", at: Any, run_at: Any = None) -> None:  # noqa: ANN401
    """Note for each course the worst verdict of its tables, for `status`; a role that may not write notes nothing."""
    from psycopg import errors

    from rollbook.replication.queries.copies import note_verification

    try:
        with conn.transaction():  # of its own: what the caller has done stays
            for course_id in dict.fromkeys(row["course"] for row in report):
                tables = [row for row in report if row["course"] == course_id]
                words = {row["verdict"] for row in tables}
                word = next(word for word in ("unreachable", "not_comparable", "differs", "match") if word in words)
                known = word in ("differs", "match")
                rows = sum(row["missing"] + row["changed"] + row["extra"] for row in tables) if known else None
                note_verification(conn, course_id, at, word, rows, run_at)
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


def states(run: Run, conn: "Conn", asked: list[str]) -> "list[Row]":
    """Return the state of the courses asked for, all for none; course servers are asked now."""
    from rollbook.replication import state
    from rollbook.replication.queries.courses import known_courses

    conn.autocommit = True
    ids = known_courses(conn, asked) if asked else None
    return state.status(conn, ids, run.caller())


def advice(found: "list[Row]") -> str:
    """Return for the worst courses why they need attention, and the command that helps."""
    needy = [row for row in found if row["state"] != "ok"]
    if not needy:
        return ""
    verb = "needs" if len(needy) == 1 else "need"
    lines = [f"\n{len(needy)} of {render.plural(len(found), 'course')} {verb} attention:"]
    alike: dict[tuple[str, str], list[str]] = {}  # one server's silence is one line, however many courses it has
    for row in needy:
        alike.setdefault((row["reason"] or row["state"], row["fix"] or ""), []).append(row["course"])
    for (reason, fix), courses in list(alike.items())[:SHOWN]:
        more = f" and {len(courses) - 1} more" if len(courses) > 1 else ""
        lines += [f"  {courses[0]}{more}: {reason}", *([f"  {fix}"] if fix else [])]
    return "\n".join(lines) + "\n"


def exit_code(found: "list[Row]") -> int:
    """Return 3 if a server gave no answer, so that nothing is known of its courses, 4 if a course needs attention."""
    words = {row["state"] for row in found}
    return 3 if "unreachable" in words else 4 if words - {"ok"} else 0


def courses_once(run: Run, asked: list[str]) -> int:
    """Write the state of the courses asked for; return the exit code."""
    with run.connect() as conn:
        found = states(run, conn, asked)
    terminal = render.chosen_format(run) is Format.table
    render.rows(
        run,
        found,
        SCREEN if terminal and not run.fields else COLUMNS,
        empty="no courses yet: rollbook course create COURSE",
    )
    if terminal:
        render.text(run, advice(found))
    return exit_code(found)


def once(run: Run, asked: list[str]) -> int:
    """Write the portal's numbers, the state of the courses, and the command for each that needs attention."""
    from rollbook.core.db import revision
    from rollbook.core.migrating import known_revisions
    from rollbook.replication.queries.copies import count_portal

    with run.connect() as conn:
        found = states(run, conn, asked)
        portal = count_portal(conn)
        portal["revision"] = revision(conn)
        portal["is_head"] = portal["revision"] == known_revisions()[-1]

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
        table(run, out, [{name: row[name] for name in SCREEN} for row in found], list(SCREEN))
        out.write(advice(found))

    if render.chosen_format(run) in (Format.csv, Format.tsv):
        render.rows(run, found, COLUMNS)
    else:
        render.document(run, {"portal": portal, "courses": found}, draw)
    return exit_code(found)


@command(
    app, "status", sets=("data", "watch"), columns=COLUMNS,
    examples=("status", "status --json", "status --watch 5"),
    exits="0 all ok, 1 unknown course, 3 unreachable, 4 a course needs attention or the database is not migrated",
    see="rollbook replication verify",
)  # fmt: skip
def status(
    run: Run,
    course: AnyCourses = [],  # noqa: B006
) -> int:
    """Show the portal and every course on one screen, the worst first, with the command that helps."""
    return repeated(run, lambda: once(run, course))
