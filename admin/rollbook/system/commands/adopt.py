"""`rollbook schema adopt`: a Django site moves in; schema.py has the other commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from rollbook.core import render
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.rows import Row
from rollbook.core.shell import quoted
from rollbook.system.commands.schema import app

if TYPE_CHECKING:
    from rollbook.system.adoption.plan import Plan
    from rollbook.system.adoption.run import Report

__all__ = ["app"]  # schema.py has its other commands

LINES = ("kind", "object", "rule", "rows", "ids", "detail", "lock", "is_online", "seconds", "fix")
SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "min": 60.0}


@command(
    app, "adopt", sets=("data", "writes", "yes"), columns=LINES, long=True,
    needs="the role that owns the tables of the site",
    examples=(
        "schema adopt --dry-run --rejects faults.csv",
        "schema adopt --fix email=blank-younger,year=null --dry-run",
        "schema adopt --to portal --courses none --yes",
        "schema adopt --undo --yes",
    ),
    exits="0 adopted, or can be (--dry-run), 1 refused, 2 unknown repair, 3 unreachable, 4 something is in the way "
    "(--dry-run), or rows differ, 5 not all of it, 6 not confirmed",
    see="rollbook schema check, docs/adoption.md",
)  # fmt: skip
def adopt(
    run: Run,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="SCHEMA", help="The site's schema. Default: the one with Django's users."),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="The tables stay in their schema; the default.")
    ] = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="portal", help="Move the tables to schema portal instead.")
    ] = None,
    rejects: Annotated[
        str | None, typer.Option("--rejects", metavar="FILE", help="Write every faulty row to this CSV file.")
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option("--fix", metavar="RULE=WORD,...", help="Repair the rows that break these rules.")
    ] = None,
    widen: Annotated[bool, typer.Option("--widen", help="Make integer ids bigint. It rewrites the tables.")] = False,
    lock_timeout: Annotated[
        str, typer.Option("--lock-timeout", metavar="TIME", help="Wait for a lock no longer, then try again.")
    ] = "2s",
    courses: Annotated[
        str,
        typer.Option("--courses", metavar="all|FILE|none", help="Create these courses; FILE has a course ID a line."),
    ] = "all",
    undo: Annotated[bool, typer.Option("--undo", help="Remove Rollbook again; the rows stay as they are.")] = False,
    keep_fixes: Annotated[
        bool, typer.Option("--keep-fixes", help="With --undo: repaired rows stay repaired.")
    ] = False,
) -> int:  # fmt: skip
    """Make the tables of a Django site the portal. --dry-run shows the plan, and every fault of every row at once.

    Nothing is repaired that --fix does not name. Before it asks, it rehearses everything and rolls it back.
    """
    from rollbook.system.adoption.plan import make_plan, plan_lines
    from rollbook.system.adoption.records import begun
    from rollbook.system.adoption.repairs import parsed

    if to not in (None, "portal") or (to and in_place):
        raise UsageError(
            "--in-place and --to exclude each other" if in_place else f"--to takes portal, not {to}",
            fix="choose --in-place or --to portal",
        )
    if undo:
        return take_back(run, keep_fixes=keep_fixes)
    if keep_fixes:
        raise UsageError("--keep-fixes goes with --undo")
    how: How = {"in_place": to is None, "widen": widen, "courses": courses, "lock_timeout": duration(lock_timeout)}
    fixes = [f"{rule}={word}" for rule, word in parsed(fix or [])]
    with run.connect(migrated=False) as conn:
        if state := begun(conn):
            from_, how["in_place"] = state.schema, state.in_place
            place = "in place" if state.in_place else "with its tables in schema portal"
            render.note(run, f"schema {from_} {'was adopted' if state.is_done else 'is being adopted'}, {place}")
        if not (state and state.is_moved):
            plan = make_plan(
                conn, from_, in_place=how["in_place"], widen=widen, fixes=fixes, author=run.author, rejects_file=rejects
            )
    if state and state.is_moved:
        return resumed(run, state.schema, how)
    if run.dry_run:
        show(run, plan_lines(plan))
        render.note(run, plan.verdict)
        return 4 if plan.is_stopped else 0
    if plan.is_stopped:
        raise refusal(plan, from_, fixes, how)
    return carried_out(run, plan, fixes, how)


class How(TypedDict):
    """How a site is adopted."""

    in_place: bool
    widen: bool
    courses: str
    lock_timeout: float


def resumed(run: Run, schema: str, how: How) -> int:
    """Go on with an adoption whose tables are the portal already: what is left are its courses."""
    from rollbook.system.adoption.run import adopt as adopt_site
    from rollbook.system.adoption.site import read_site

    if run.dry_run:
        render.rows(run, [], LINES, empty="the tables are the portal already")
        return 0
    with run.connect(migrated=False) as conn:
        site = read_site(conn, schema)
        done = adopt_site(conn, site, progress=lambda step: render.note(run, step), **how)
    return finished(run, done)


def carried_out(run: Run, plan: Plan, fixes: list[str], how: How) -> int:
    """Rehearse, ask, repair and adopt."""
    from rollbook.system.adoption.fixes import repair_all
    from rollbook.system.adoption.run import adopt as adopt_site
    from rollbook.system.adoption.run import rehearse

    with run.connect(migrated=False) as conn:
        render.note(run, "rehearsing, to be rolled back: readers and writers of the tables wait meanwhile")
        rehearsal = rehearse(conn, plan.site, fixes=fixes, progress=lambda step: render.note(run, step), **how)
    render.note(run, f"rehearsed, and rolled back: the tables were locked for {rehearsal.lock_seconds:.1f} s")
    where = "in place" if how["in_place"] else "and move them to schema portal"
    rows = render.plural(sum(plan.rows.values()), "row")
    render.confirm(run, f"adopt the tables of schema {plan.site.schema} ({rows}) {where}")
    with run.connect(migrated=False) as conn:
        repair_all(conn, plan.site, fixes, run.author, run.reason, how["lock_timeout"])
    with run.connect(migrated=False) as conn:
        done = adopt_site(conn, plan.site, progress=lambda step: render.note(run, step), **how)
    return finished(run, done)


def take_back(run: Run, *, keep_fixes: bool) -> int:
    """Undo an adoption."""
    from rollbook.system.adoption.records import begun
    from rollbook.system.adoption.undo import undo

    with run.connect(migrated=False) as conn:
        if begun(conn):  # else the undo says so
            render.confirm(run, f"remove Rollbook from {conn.info.dbname}, with the copies of every course")
        done = undo(conn, keep_fixes=keep_fixes)
    return finished(run, done)


def finished(run: Run, done: Report) -> int:
    """Show what was done; return the exit code."""
    from rollbook.system.adoption.plan import report_lines

    show(run, list(report_lines(done)))
    return 4 if done.findings else 5 if done.left else 0


def show(run: Run, lines: list[Row]) -> None:
    """Write the lines: in sections for a reader, else as rows."""
    from rollbook.system.adoption.plan import sections

    if render.chosen_format(run) is Format.table and not run.fields:
        render.document(run, None, lambda out: render.sections(run, out, sections(lines)))
    else:
        render.rows(run, lines, LINES)


def refusal(plan: Plan, schema: str | None, fixes: list[str], how: How) -> RefusedError:
    """Return the error that names everything that is in the way, and the commands that go on."""
    again = "rollbook schema adopt" + (f" --from {quoted(schema)}" if schema else "")
    again += ("" if how["in_place"] else " --to portal") + (" --widen" if how["widen"] else "")
    why = [f"{each.object}: {each.reason}" for each in plan.blocked]
    why += [
        f"{each.rule}: {render.plural(each.count, 'row')} of {each.table}, id {', '.join(map(str, each.first_ids))}"
        for each in plan.faults
    ]
    steps = [each.fix for each in plan.blocked if each.fix]
    if plan.faults:
        given = f" --fix {','.join(fixes)}" if fixes else ""
        steps.append(f"{again}{given} --dry-run --rejects faults.csv")
        named = [word for each in plan.faults if (word := first_word(each.rule))]
        if named:
            steps.append(f"{again} --fix {','.join(dict.fromkeys([*fixes, *named]))}")
    return RefusedError(plan.verdict, why="\n".join(why), fix="\n".join(steps))


def first_word(rule: str) -> str | None:
    """Return the first repair of a rule, as --fix takes it."""
    from rollbook.system.adoption.repairs import REPAIRS

    return next((f"{rule}={word}" for word in REPAIRS.get(rule, {})), None)


def duration(text: str) -> float:
    """Return seconds from 2s, 500ms, 1min or a number of seconds. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s|min|)", text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--lock-timeout takes a time above zero, not {text}", fix="write it as 2s or 500ms")
    return float(found[1]) * SECONDS[found[2]]
