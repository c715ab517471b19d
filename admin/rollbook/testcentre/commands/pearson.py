"""`rollbook pearson`: the files that are exchanged with the test centre, Pearson VUE."""

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.completion import courses
from rollbook.core.errors import AttentionError, PartialError, RefusedError, UsageError

if TYPE_CHECKING:
    from rollbook.core.render import Row
    from rollbook.testcentre.exchange_file import Kind

app = typer.Typer(name="pearson", help="Files to and from the test centre, Pearson VUE.", no_args_is_help=True)

EXPORTED = ("batch", "file", "kind", "rows", "set_aside", "sha256")
IMPORTED = ("file", "member", "line", "key", "status", "outcome", "detail")
LISTED = ("batch", "at", "kind", "file", "rows", "accepted", "rejected", "waiting", "set_aside", "archive", "sha256")
SHOWN_PROBLEMS = 20
SHOWN = ("line", "key", "outcome", "status", "message", "answered_at")


class Out(StrEnum):
    """What goes out."""

    cdd = "cdd"
    ead = "ead"


class FileKind(StrEnum):
    """The kinds of exchange files."""

    cdd = "cdd"
    ead = "ead"
    vcdc = "vcdc"
    eac = "eac"


class Report(StrEnum):
    """What a report is about."""

    waiting = "waiting"
    rejected = "rejected"
    accommodation = "accommodation"
    appointments = "appointments"


REPORTS = {
    Report.waiting: ("what", "key", "username", "sent_at", "waits"),
    Report.rejected: ("what", "key", "username", "processed_at", "message"),
    Report.accommodation: ("key", "username", "course", "exam", "created_at", "request"),
    Report.appointments: ("course", "exam", "day", "authorizations", "accepted"),
}


def nothing(_: bytes) -> None:
    """Take a line of a dry run."""


@command(
    app, "export", sets=("data", "writes"), columns=EXPORTED, long=True,
    examples=(
        "pearson export -o /srv/pearson/out",
        "pearson export ead -o /srv/pearson/out --dry-run",
        "pearson export ead -o /srv/pearson/out --all --force-add",
    ),
    exits="0 done, also if nothing is due (a header is written), 1 the folder cannot be written, nothing was stamped, "
    "2 no folder named, 3 unreachable, 5 records were set aside, the others are in the file",
    see="rollbook pearson import, rollbook pearson list",
)  # fmt: skip
def export(
    run: Run,
    output: Annotated[str, typer.Option("-o", "--output", metavar="DIR", help="Where the files go; made if missing.")],
    kind: Annotated[
        list[Out] | None, typer.Argument(metavar="[cdd|ead]...", help="Candidates, authorizations; unsaid: both.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything, not only what is due.")] = False,
    force_add: Annotated[
        bool, typer.Option("--force-add", help="Send authorizations as Add, also those that Pearson knows.")
    ] = False,
) -> int:
    """Write what Pearson has to know into files, and stamp it as sent, in one transaction.

    The file gets its name, flushed to the disk, just before the commit. Killed before that: nothing was stamped, and
    what lies under a hidden name is removed by the next export. Killed between the two: the file is there, whole, and
    its records are due again, so that they are sent twice. The other order could lose them: stamped, and in no file.
    """
    from rollbook.core import history
    from rollbook.core import importing as bulk
    from rollbook.testcentre.exchange_file import Outgoing, file_name
    from rollbook.testcentre.queries import pearson

    if not output:
        raise UsageError("no folder named", fix="name one with -o DIR")
    kinds: list[Kind] = list(dict.fromkeys(k.value for k in kind)) if kind else ["cdd", "ead"]
    written: list[Outgoing] = []
    rows: list[Row] = []
    problems: list[Row] = []
    try:
        with run.connect() as conn:
            bulk.take_turn(conn, run, pearson.TURN, "export")
            for which in kinds:
                at = pearson.now(conn)
                file = None if run.dry_run else Outgoing(Path(output), which, at, pearson.taken_names(conn))
                if file:
                    written.append(file)
                row, aside = pearson.export(
                    conn, which, file.write if file else nothing, name=file.name if file else file_name(which, at),
                    actor=run.actor, everything=all_, force_add=force_add,
                )  # fmt: skip
                sha256 = file.settle() if file else None
                pearson.seal(conn, row["batch"], sha256)
                rows.append({**row, "sha256": sha256, "batch": row["batch"] if file else None})
                problems += aside
                history.record(conn, run, row["file"], "exported", after=rows[-1])
            for file in written:
                file.publish()
    except OSError as exc:  # such as a full disk
        raise RefusedError(
            f"cannot write into {output}", why=exc.strerror, fix="make room there, or name another folder with -o"
        ) from exc
    finally:
        for file in written:
            file.discard()
    render.rows(run, rows, EXPORTED)
    if not problems:
        return 0
    partial = PartialError(
        f"{render.plural(len(problems), 'record')} cannot be written, and set aside: the others are in the file",
        why="; ".join(f"{row['key']} ({row['username']}): {row['reason']}" for row in problems[:SHOWN_PROBLEMS]),
        fix="correct them with rollbook candidate update or rollbook user update, and export again", problems=problems,
    )  # fmt: skip
    render.error(run, partial)
    return partial.exit_code


@command(
    app, "import", sets=("data", "writes"), columns=IMPORTED, long=True,
    examples=("pearson import /srv/pearson/in/*.zip", "pearson import answers.zip --dry-run --json"),
    exits="0 all was applied, or known already (a rejection by Pearson is an answer, no failure), 1 an archive is "
    "refused, nothing was changed, 3 unreachable, 5 some lines could not be applied, the others were",
    see="rollbook pearson report rejected, rollbook pearson list",
)  # fmt: skip
def import_(
    run: Run,
    archive: Annotated[list[str], typer.Argument(metavar="ZIP...", help="Archives of vcdc- and eac- files.")],
) -> int:
    """Apply Pearson's answers. All archives are checked first, and applied in one transaction."""
    from rollbook.core import history
    from rollbook.core import importing as bulk
    from rollbook.testcentre.exchange_file import read_archive
    from rollbook.testcentre.queries import pearson

    archives = [(name, read_archive(Path(name))) for name in dict.fromkeys(archive)]
    with run.connect() as conn:
        bulk.take_turn(conn, run, pearson.IMPORT_TURN)
        rows, trouble = pearson.apply_answers(conn, archives, run.actor)
        for name in dict.fromkeys(archive):
            counts = Counter(row["outcome"] for row in rows if row["file"] == name)
            history.record(conn, run, name, "imported", after=dict(counts))
    render.rows(run, rows, IMPORTED, empty="no answers in it")
    words = ", ".join(f"{n} {outcome}" for outcome, n in sorted(Counter(row["outcome"] for row in rows).items()))
    render.note(run, (words or "no answers") + ("; dry run: nothing was changed" if run.dry_run else ""))
    if not trouble:
        return 0
    partial = PartialError(
        f"{render.plural(trouble, 'line')} of {len(rows)} could not be applied, or not wholly; the others were",
        fix="see the column detail, and ask Pearson", lines=trouble,
    )  # fmt: skip
    render.error(run, partial)
    return partial.exit_code


@command(
    app, "list", sets=("data", "listing"), columns=LISTED,
    examples=("pearson list", "pearson list --kind cdd --max-age 72", "pearson list --json"),
    exits="0 also if there is none, 3 unreachable, 4 a file waits longer than --max-age for answers",
    see="rollbook pearson show, rollbook pearson report waiting",
)  # fmt: skip
def list_(
    run: Run,
    kind: Annotated[FileKind | None, typer.Option(help="Only files of this kind.")] = None,
    max_age: Annotated[
        float | None,
        typer.Option(metavar="HOURS", min=0, max=1_000_000, help="Exit 4 if a file has waited longer for answers."),
    ] = None,
) -> int:
    """List the exchange files, the newest first, and how many of their rows were answered."""
    from rollbook.testcentre.queries import pearson

    with run.connect() as conn:
        found = pearson.files(conn, render.fetch_limit(run), kind=kind, match=run.match)
        late = pearson.overdue(conn, max_age) if max_age is not None else 0
    render.listing(run, found, LISTED, empty="no file yet; rollbook pearson export -o DIR")
    if not late:
        return 0
    error = AttentionError(
        f"{render.plural(late, 'file')} waited longer than {max_age:g} hours for answers",
        fix="ask Pearson; rollbook pearson report waiting names the records",
    )
    render.error(run, error)
    return error.exit_code


@command(
    app, "show", sets=("data",), columns=SHOWN,
    examples=("pearson show 12", "pearson show 12 --json"),
    exits="0 found, 1 no such batch, 3 unreachable", see="rollbook pearson list",
)  # fmt: skip
def show(
    run: Run, batch: Annotated[int, typer.Argument(metavar="BATCH", help="A file, see rollbook pearson list.")]
) -> None:
    """Show the rows of a file: a record each, and what became of it."""
    from rollbook.testcentre.queries import pearson

    with run.connect() as conn:
        found = pearson.file_rows(conn, batch)
    render.rows(run, found, SHOWN, empty="a file without records")


@command(
    app, "dump",
    examples=("pearson dump -o dump.json", "pearson dump --accommodation-pending --course edX/DemoX/2012_Fall"),
    exits="0 also if there is none, 3 unreachable", see="rollbook authorization list",
)  # fmt: skip
def dump(
    run: Run,
    course: Annotated[
        str | None, typer.Option("--course", "--course-id", metavar="COURSE", help="Only this.", autocompletion=courses)
    ] = None,
    exam: Annotated[
        str | None, typer.Option("--exam", "--exam-series-code", metavar="CODE", help="Only this exam.")
    ] = None,
    accommodation_pending: Annotated[
        bool, typer.Option("--accommodation-pending", help="Only requests that nobody has decided.")
    ] = False,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="Write there, not to stdout.")] = "-",
) -> None:
    """Write all authorizations with their states as JSON."""
    from rollbook.core import exporting
    from rollbook.testcentre.queries import pearson

    run.output, run.json = output, True
    run.check(())
    with run.connect() as conn:
        found = pearson.dump(conn, course=course, exam=exam, accommodation_pending=accommodation_pending)
        exporting.record_export(conn, run, "authorizations", len(found), course)
    render.document(run, found, lambda _: None)


@command(
    app, "report", sets=("data",), columns=tuple(dict.fromkeys(name for names in REPORTS.values() for name in names)),
    examples=("pearson report waiting", "pearson report rejected --csv", "pearson report appointments --json"),
    exits="0 also if there is nothing, 2 no such report, 3 unreachable", see="rollbook pearson list",
)  # fmt: skip
def report(
    run: Run,
    what: Annotated[
        Report, typer.Argument(help="Not sent or not answered; refused by Pearson; requests to decide; exams by day.")
    ],
) -> None:
    """Show what waits, what was rejected and why, accommodations to decide, or appointments by exam and day."""
    from rollbook.testcentre.queries import pearson

    run.check(REPORTS[what])
    with run.connect() as conn:
        found = pearson.report(conn, what)
    render.rows(run, found, REPORTS[what], empty="nothing", bar="authorizations")
