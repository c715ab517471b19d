"""`rollbook pearson`: the files exchanged with the test centre, Pearson VUE."""

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rollbook.core import exporting, render
from rollbook.core.command import Run, command
from rollbook.core.completion import courses
from rollbook.core.errors import AttentionError, PartialError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.unknown_names import note_unknown
from rollbook.testcentre.answers import import_archives
from rollbook.testcentre.exchange_file import Kind
from rollbook.testcentre.export import export_files
from rollbook.testcentre.queries import pearson

app = noun("pearson")

EXPORTED = ("batch", "file", "kind", "rows", "set_aside", "sha256")
IMPORTED = ("file", "member", "line", "key", "status", "outcome", "detail")
LISTED = ("batch", "at", "kind", "file", "rows", "accepted", "rejected", "waiting", "set_aside", "archive", "sha256")
SHOWN_PROBLEMS = 20
SHOWN = ("line", "key", "outcome", "status", "message", "answered_at")


class Out(StrEnum):
    """The kinds of files that go out."""

    cdd = "cdd"
    ead = "ead"


class FileKind(StrEnum):
    """The kinds of exchange files."""

    cdd = "cdd"
    ead = "ead"
    vcdc = "vcdc"
    eac = "eac"


class Report(StrEnum):
    """The reports."""

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


@command(
    app, "export", sets=("data", "writes"), columns=EXPORTED, long=True,
    examples=(
        "pearson export -o /srv/pearson/out",
        "pearson export ead -o /srv/pearson/out --dry-run",
        "pearson export ead -o /srv/pearson/out --all --force-add",
    ),
    exits="0 done, even if nothing is due (the file has only a header), 1 the directory cannot be written; nothing "
    "changed, 2 no directory named, 3 unreachable, 5 some records were set aside, the others are in the file",
    see="rollbook pearson import, rollbook pearson list",
)  # fmt: skip
def export(
    run: Run,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="Write the files into DIR, created if missing.")
    ],
    kind: Annotated[
        list[Out] | None,
        typer.Argument(metavar="KIND...", help="cdd: candidates; ead: authorizations. Default: both."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Export all records, not only those that are due.")] = False,
    force_add: Annotated[
        bool, typer.Option("--force-add", help="Send all authorizations as Add, even if Pearson knows them.")
    ] = False,
) -> int:
    """Export the records that are due into files, and stamp them as sent, in one transaction.

    If it is killed, no record is lost: a file gets its name just before the commit. At worst a file is complete and its
    records are still due, so that the next export sends them again.
    """
    if not output:
        raise UsageError("no directory named", fix="name one with -o DIR")
    kinds: list[Kind] = list(dict.fromkeys(k.value for k in kind)) if kind else ["cdd", "ead"]
    files, set_aside = export_files(run, Path(output), kinds, everything=all_, force_add=force_add)
    render.rows(run, map(vars, files), EXPORTED)
    if not set_aside:
        return 0
    partial = PartialError(
        f"{render.plural(len(set_aside), 'record')} cannot be written and {'was' if len(set_aside) == 1 else 'were'} "
        "set aside; the others are in the file",
        why="; ".join(f"{row.key} ({row.username}): {row.reason}" for row in set_aside[:SHOWN_PROBLEMS]),
        fix="correct them with rollbook candidate update or rollbook user update, and export again",
        problems=[vars(row) for row in set_aside],
    )
    render.error(run, partial)
    return partial.exit_code


@command(
    app, "import", sets=("data", "writes"), columns=IMPORTED, long=True,
    examples=("pearson import /srv/pearson/in/*.zip", "pearson import answers.zip --dry-run --json"),
    exits="0 all lines were applied or known already (Pearson's rejections are answers, not failures), 1 an archive is "
    "refused; nothing changed, 3 unreachable, 5 some lines could not be applied, the others were",
    see="rollbook pearson report rejected, rollbook pearson list",
)  # fmt: skip
def import_(
    run: Run,
    archive: Annotated[list[str], typer.Argument(metavar="ZIP...", help="Zip archives of vcdc- and eac- files.")],
) -> int:
    """Apply Pearson's answers. All archives are checked first, then applied in one transaction."""
    verdicts, trouble = import_archives(run, archive)
    render.rows(run, map(vars, verdicts), IMPORTED, empty="no answers")
    counts = Counter(verdict.outcome for verdict in verdicts)
    words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no answers"
    render.note(run, f"{words}; dry run: nothing was changed" if run.dry_run else words)
    if not trouble:
        return 0
    partial = PartialError(
        f"{render.plural(trouble, 'line')} of {len(verdicts)} could not be applied, or only in part; the others were",
        fix="read the column detail, then ask Pearson", lines=trouble,
    )  # fmt: skip
    render.error(run, partial)
    return partial.exit_code


@command(
    app, "list", sets=("data", "listing"), columns=LISTED, times="at",
    examples=("pearson list", "pearson list --kind cdd --max-age 72", "pearson list --json"),
    exits="0 even if there is none, 3 unreachable, 4 a file has waited longer than --max-age for answers",
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
    """List the exchange files, newest first, and how many of their rows were answered."""
    with run.connect() as conn:
        found = pearson.files(conn, render.fetch_limit(run), kind=kind, match=run.match, period=run.period)
        late = pearson.overdue(conn, max_age) if max_age is not None else 0
    render.listing(run, found, LISTED, empty="no files yet; rollbook pearson export -o DIR")
    if not late:
        return 0
    error = AttentionError(
        f"{render.plural(late, 'file')} waited longer than {max_age:g} hours for answers",
        fix="ask Pearson; rollbook pearson report waiting lists the records",
    )
    render.error(run, error)
    return error.exit_code


@command(
    app, "show", sets=("data",), columns=SHOWN,
    examples=("pearson show 1", "pearson show 1 --json"),
    exits="0 found, 1 unknown file, 3 unreachable", see="rollbook pearson list",
)  # fmt: skip
def show(
    run: Run,
    batch: Annotated[int, typer.Argument(metavar="BATCH", help="The id of a file; rollbook pearson list shows it.")],
) -> None:
    """Show the rows of a file: one for each record, with its outcome."""
    with run.connect() as conn:
        found = pearson.file_rows(conn, batch)
    render.rows(run, found, SHOWN, empty="the file has no records")


@command(
    app, "dump",
    examples=("pearson dump -o dump.json", "pearson dump --accommodation-pending --course edX/DemoX/2012_Fall"),
    exits="0 even if there is none, 3 unreachable", see="rollbook authorization list",
)  # fmt: skip
def dump(
    run: Run,
    course: Annotated[
        str | None,
        typer.Option("--course", "--course-id", metavar="COURSE", help="Only this course.", autocompletion=courses),
    ] = None,
    exam: Annotated[
        str | None, typer.Option("--exam", "--exam-series-code", metavar="CODE", help="Only this exam.")
    ] = None,
    accommodation_pending: Annotated[
        bool, typer.Option("--accommodation-pending", help="Only undecided accommodation requests.")
    ] = False,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE instead of stdout.")
    ] = "-",
) -> None:
    """Write all authorizations with their states as JSON."""
    run.output, run.json = output, True
    run.check(())
    with run.connect() as conn:
        found = pearson.dump(conn, course=course, exam=exam, accommodation_pending=accommodation_pending)
        if not found:
            note_unknown(conn, run, course=course, exam=exam)
        exporting.record_export(conn, run, "authorizations", len(found), course)
    render.document(run, found, lambda _: None)


@command(
    app, "report", sets=("data",), columns=tuple(dict.fromkeys(name for names in REPORTS.values() for name in names)),
    examples=("pearson report waiting", "pearson report rejected --csv", "pearson report appointments --json"),
    exits="0 even if it is empty, 2 unknown report, 3 unreachable", see="rollbook pearson list",
)  # fmt: skip
def report(
    run: Run,
    what: Annotated[
        Report,
        typer.Argument(
            metavar="REPORT", help="Unsent or unanswered; rejected by Pearson; undecided requests; exams by day."
        ),
    ],
) -> None:
    """Report waiting records, rejections with reasons, undecided accommodations, or appointments by exam and day."""
    run.check(REPORTS[what])
    with run.connect() as conn:
        found = pearson.report(conn, what)
    render.rows(run, found, REPORTS[what], empty="nothing to report", bar="authorizations")
