"""What `replication verify` and `repair` do with --user: some users' rows, everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rollbook.core import render
from rollbook.core.command import Format, Run
from rollbook.core.errors import AttentionError, RefusedError
from rollbook.core.users import expanded, find_recorded, user_word

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.users import User
    from rollbook.replication.person import Everywhere
    from rollbook.replication.repair import Failure, Repaired

SCREEN = ("user", "course", "table", "verdict", "server")  # the rows that differ are below them
NAMED = 5  # users that a printed command names one by one
COMPARED = (
    "user", "course", "table", "portal_rows", "course_rows", "missing", "changed", "extra", "verdict", "server",
    "in_flight",
)  # fmt: skip
DIFFERENCES = ("user", "course", "table", "finding", "row_id", "columns", "server")


def find_named(portal: Conn, users: Sequence[str], courses: Sequence[str]) -> tuple[list[User], list[str]]:
    """Return the users named, who may be deleted ones, and the courses, all for none. Raises RefusedError."""
    from rollbook.replication.queries.courses import known_courses

    named = find_recorded(portal, expanded(list(users)))
    try:
        return named, known_courses(portal, list(dict.fromkeys(courses)))
    except RefusedError as exc:
        exc.fix = "rollbook course list; if it is a user: repeat --user for each"
        raise


def labels(portal: Conn, named: Sequence[User], found: Everywhere) -> dict[int, str]:
    """Return by id what to call these users, and others whose rows a copy has under their ids."""
    from rollbook.replication.queries.users import list_usernames

    ids = dict.fromkeys([*(user["id"] for user in named), *(row.user_id for row in found.rows)])
    return list_usernames(portal, list(ids))


def verify_users(
    run: Run, users: Sequence[str], courses: Sequence[str], tables: Sequence[str], *, list_rows: bool
) -> int:
    """Compare the copies of some users, write what was found, and return the exit code."""
    from rollbook.replication.catalog import require_tables
    from rollbook.replication.person import look_everywhere
    from rollbook.replication.person_report import comparisons, findings

    terminal = render.chosen_format(run) is Format.table
    with run.connect() as portal:
        require_tables(portal, tables)
        named, asked = find_named(portal, users, courses)
        portal.rollback()
        ids = [user["id"] for user in named]
        found = look_everywhere(portal, ids, asked, run.caller(), all_courses=not courses)
        names = labels(portal, named, found)
    if tables:
        found.rows = [row for row in found.rows if row.table in tables]
    lines = comparisons(found, names)
    lines = [line for line in lines if not tables or line.table in tables]
    differences = [vars(row) for row in findings(found, names)]
    shown = COMPARED if run.fields or not terminal else SCREEN
    render.rows(
        run, differences if list_rows else [vars(line) for line in lines], DIFFERENCES if list_rows else shown,
        empty="no differences" if list_rows else "no copies, and none are due",
    )  # fmt: skip
    if terminal and differences and not list_rows:
        render.text(run, "\n")
        render.rows(run, differences, DIFFERENCES)
    report(run, users, named, found)
    return 3 if found.uncompared else 4 if found.differing else 0


def report(run: Run, given: Sequence[str], named: Sequence[User], found: Everywhere) -> None:
    """Report on stderr what was not compared, what is paused, what was kept, and the command that repairs.

    `given`: the users as the command line has them.
    """
    from rollbook.core.shell import quoted
    from rollbook.replication.repair import Failure

    show_failures(run, [Failure(where, error) for where, error in found.obstacles().items()])
    theirs = {row.course for row in found.rows}
    for course, verdict in found.paused.items():
        if course in theirs:
            render.note(run, f"{course}: {verdict.reason}; its copies are not written until: {verdict.fix}")
    for server, schema in found.kept:
        render.note(
            run, f"server {server}: schema {schema} has rows too, which no stream feeds: its course was detached"
        )
    for user in named:
        if not user["username"]:
            render.note(run, f"the portal has no user {user['id']}")
    rows = [row for row in found.differing if row.course not in found.paused]
    words = [quoted(user_word(user)) for user in named if any(row.user_id == user["id"] for row in rows)]
    if words:
        who = ", ".join(words) if len(words) <= NAMED else f"{len(words)} users"
        what = f"{render.plural(len(rows), 'row')} of {who} {'differs' if len(rows) == 1 else 'differ'}"
        if len(words) > NAMED and "-" not in given:
            words = [quoted(each) for each in given]
        fix = " ".join(["rollbook replication repair", *(f"--user {word}" for word in words)])
        render.error(run, AttentionError(what, fix=fix))


def repair_users(run: Run, users: Sequence[str], courses: Sequence[str]) -> tuple[list[Repaired], list[Failure]]:
    """Plan the repair of some users, ask, and do it."""
    from rollbook.replication.person_repair import plan_users, repair_planned

    with run.connect() as portal:
        named, asked = find_named(portal, users, courses)
        portal.rollback()
        ids = [user["id"] for user in named]
        plan = plan_users(run, portal, ids, asked, all_courses=not courses)
        names = labels(portal, named, plan.found)
    if plan.rows and not run.dry_run:
        render.confirm(run, question(plan.rows, [names[number] for number in ids]))
    return repair_planned(run, plan, names, lambda text: render.note(run, text))


def question(rows: Mapping[str, Sequence[object]], users: Sequence[str]) -> str:
    """Return what a repair asks before it writes."""
    who = ", ".join(users[:5]) + (", ..." if len(users) > 5 else "")
    where = ", ".join(f"{course} ({len(found)})" for course, found in list(rows.items())[:5])
    more = ", ..." if len(rows) > 5 else ""
    return f"repair {render.plural(sum(map(len, rows.values())), 'row')} of {who}: {where}{more}"


def show_failures(run: Run, failures: Sequence[Failure]) -> None:
    """Report the courses that the command could not do, each with its error."""
    for failure in failures:
        render.error(run, failure.error.about(failure.course))
