"""`rollbook doctor`: every known trap that holds on this installation, with the line that removes it."""

from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import AnyCourses
from rollbook.core.command import Format, Run, command
from rollbook.core.values import one_line

if TYPE_CHECKING:
    from rollbook.system.doctor.finding import Finding

app = typer.Typer()

COLUMNS = ("check", "where", "state", "found", "wanted", "fix")


@command(
    app, "doctor", sets=("data",), columns=COLUMNS,
    examples=("doctor", "doctor --all", "doctor MITx/6.002x/2012_Fall --json"),
    exits="0 no trap found, 1 unknown course, 3 the portal or a server does not answer, 4 traps found",
    see="rollbook schema check, rollbook status",
)  # fmt: skip
def doctor(
    run: Run,
    course: AnyCourses = [],  # noqa: B006
    all_: Annotated[bool, typer.Option("--all", help="List the checks that found nothing, too.")] = False,
) -> int:
    """Look for traps on the portal, its servers and this machine, and print what removes each. Changes nothing.

    A step for a server begins with `on server NAME: `. What ends with `;` is SQL; anything else is for a shell there.
    """
    from rollbook.system.doctor.examine import examine

    with run.connect(migrated=False) as conn:
        conn.autocommit = True
        found, are_all = examine(conn, run.dsn, course, run.caller())
    shown = [each for each in found if all_ or each.state != "ok"]
    if render.chosen_format(run) is Format.table and not run.fields:
        render.text(run, screen(shown) + summary(found))
    else:
        render.rows(run, [vars(each) for each in shown], COLUMNS, empty="no trap found")
    hidden = sum(each.state == "unknown" and each.check != "server" for each in found)
    if hidden:
        many = render.plural(hidden, "check")
        render.note(run, f"{many} could not be made: the fix of each line that is unknown is what this role lacks")
    return 3 if not are_all else 4 if any(each.state == "attention" for each in found) else 0


def screen(found: "list[Finding]") -> str:
    """Return the findings as paragraphs: a fix is whole, to be pasted, where a table would cut it."""
    marks = {"attention": "✗", "unknown": "?", "ok": "✓"}
    lines = []
    for each in found:
        lines.append(f"{marks[each.state]} {each.check} ({each.where}): {each.found}")
        lines += [f"    wanted: {each.wanted}"] if each.wanted else []
        lines += [f"    fix:    {each.fix}"] if each.fix else []
    return "".join(f"{one_line(line)}\n" for line in lines)


def summary(found: "list[Finding]") -> str:
    """Return the last line: what was found in all."""
    places = len({each.where for each in found})
    bad = sum(each.state == "attention" for each in found)
    well = sum(each.state == "ok" for each in found)
    return (
        f"{render.plural(bad, 'trap')}; {render.plural(well, 'check')} of {render.plural(places, 'place')} found none\n"
    )
