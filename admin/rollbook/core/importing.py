r"""Imports: a file of rows is staged in a temporary table, judged there by SQL, and applied all or nothing.

The file is COPYed into `pg_temp.staged`. The SQL of each import records wrong rows in `pg_temp.problem`, and what it
did to each row in `pg_temp.outcome`. A blank field keeps a value; `\N` is null.
"""

from __future__ import annotations

import csv
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core import history, render
from rollbook.core.command import Format, OnError
from rollbook.core.errors import PartialError, RefusedError, UsageError
from rollbook.core.files import written
from rollbook.core.progress import progress
from rollbook.core.rows import Row, one
from rollbook.core.sheet import Records, Sheet, check_rejects, checked_header, line_count, opened, records, shown

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.workbook import Fault

SHOWN_VALUE = 200  # characters of a wrong value in a message
ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})  # as COPY reads them
BATCH = 1000  # rows between two reports of progress

# The server stops the work of a client that is gone. The memory lets a large file be joined in one pass.
SETTINGS = """
set local client_connection_check_interval = '1s';
set local work_mem = '64MB';
set local hash_mem_multiplier = 2
"""

TABLES: LiteralString = """
create temporary table problem (line integer, column_name text, value text, reason text, file text) on commit drop;
create temporary table outcome (line integer, outcome text, detail text, file text) on commit drop;
create temporary table normal (line integer, email text) on commit drop
"""

PROBLEMS = """
select p.line, p.column_name as "column", left(p.value, %s) as value, p.reason, p.file
from pg_temp.problem as p order by p.file nulls first, p.line, p.column_name, p.reason
"""

# With skip, rejected is an outcome too. Run it before `drop_problem_rows`.
REJECTED = """
insert into pg_temp.outcome (line, outcome, detail, file)
select
    p.line, 'rejected', string_agg(concat_ws(': ', p.column_name, p.reason), '; ' order by p.column_name, p.reason),
    p.file
from pg_temp.problem as p group by p.file, p.line
"""


# Addresses of this form are valid and in their normal form; only the others need the slow check.
ODD_EMAILS = r"""
select s.line, s.email
from pg_temp.staged as s
where s.email <> '\N' and not (
        length(s.email) <= 64
        and s.email ~ '^[A-Za-z0-9_+-]+(?:[.][A-Za-z0-9_+-]+)*@(?:[a-z0-9]+(?:-[a-z0-9]+)*[.])+[a-z][a-z]+$'
        and split_part(s.email, '.', -1) <> all(%s)
    ) and not exists (select from pg_temp.problem as p where p.line = s.line and p.file is null)
"""


@dataclass(frozen=True)
class Staged:
    """A file in pg_temp.staged: its columns in the order of the header, and the number of rows."""

    header: list[str]
    rows: int


@dataclass(frozen=True)
class Import:
    """A kind of import: its sheet, the check for wrong rows, the write of the others, and the columns of the answer.

    `check` records every broken rule in pg_temp.problem, and may lock the rows it reads. `apply` writes, and records
    the outcome of each row in pg_temp.outcome: created, changed, removed or unchanged; what it changed, with the values
    before and after, goes to pg_temp.written, for the history. Imports with the same `turn`
    run one after the other, so that the check of one sees the writes of the other.
    """

    sheet: Sheet
    turn: str
    check: Callable[[Conn, Staged], None]
    apply: Callable[[Conn, Staged], None]
    columns: tuple[str, ...]
    stage: Callable[[Conn, Run, Sheet, str, Callable[[int], None]], Staged] | None = None
    file: str | None = None  # the file of the staged rows, if there are several


# --- staging ----------------------------------------------------------------------------------------------------------


def stage(conn: Conn, run: Run, sheet: Sheet, name: str, advance: Callable[[int], None]) -> Staged:
    """Read a file into pg_temp.staged: line, and a text column for each of the sheet's.

    `advance` gets the number of rows read since its last call. Raises UsageError for an unreadable file or a wrong
    header, RefusedError for malformed CSV or a wrong encoding.
    """
    with opened(name, run.encoding) as file:
        found = records(file, run, name)
        _, first = next(found, (1, None))
        header = checked_header(sheet, first, run.delimiter)
        return load(conn, "staged", sheet.columns, header, found, advance=advance, analyzed=sheet.key)


def load(
    conn: Conn, table: LiteralString, columns: Sequence[str], header: list[str], rows: Iterator[tuple[int, list[str]]],
    *, advance: Callable[[int], None] = lambda _: None, file: str | None = None, analyzed: Sequence[str] = (),
) -> Staged:  # fmt: skip
    """COPY records into a new temporary table with these columns; other columns of the header are ignored.

    `analyzed` are the columns that queries search by, if not all. A record with too few or too many fields, or with
    a NUL, is a problem; the table keeps as much of it as fits.
    """
    typed = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(column)) for column in columns)
    place = sql.Identifier(table)
    conn.execute(sql.SQL("create temporary table {} (line integer, {}) on commit drop").format(place, typed))
    kept = [index for index, column in enumerate(header) if column in columns]
    listed = sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(header[index])) for index in kept)
    wrong: list[tuple[int, str, str | None]] = []
    count = 0
    batch: list[str] = []
    statement = sql.SQL("copy pg_temp.{} (line{}) from stdin (null '')").format(place, listed)
    with conn.cursor().copy(statement) as copy:
        for line, fields in rows:
            values = fields
            if len(fields) != len(header):
                wrong.append((line, f"{len(fields)} fields, the header has {len(header)}", file))
                values = [*fields, *[""] * len(header)]  # the rejects show the fields that are there
            if "\x00" in "".join(values):
                wrong.append((line, "contains a NUL character, which cannot be stored", file))
                values = [value.replace("\x00", "") for value in values]
            batch.append(copy_line(line, [values[index] for index in kept]))
            count += 1
            if count % BATCH == 0:
                copy.write("".join(batch))
                batch.clear()
                advance(BATCH)
        copy.write("".join(batch))
    conn.cursor().executemany("insert into pg_temp.problem (line, reason, file) values (%s, %s, %s)", wrong)
    if isinstance(rows, Records):
        record_cells(conn, rows.faults, header, file)
    found = sql.SQL(", ").join(map(sql.Identifier, ("line", *(analyzed or columns))))
    conn.execute(sql.SQL("analyze pg_temp.{} ({})").format(place, found))
    return Staged([header[index] for index in kept], count)


def record_cells(conn: Conn, faults: Sequence[Fault], header: Sequence[str], file: str | None) -> None:
    """Record what is wrong in the cells of a workbook in pg_temp.problem."""
    conn.cursor().executemany(
        "insert into pg_temp.problem (line, column_name, value, reason, file) values (%s, %s, %s, %s, %s)",
        [
            (each.line, None if each.column is None else (*header, *[None] * 16384)[each.column], each.value,
             each.reason, file)
            for each in faults
        ],
    )  # fmt: skip


def copy_line(line: int, values: list[str]) -> str:
    """Return a record in COPY's text format; an empty value is null."""
    text = "\t".join(values)
    if "\\" in text or "\n" in text or "\r" in text or text.count("\t") >= len(values):
        text = "\t".join(value.translate(ESCAPED) for value in values)
    return f"{line}\t{text}\n"


# --- problems ----------------------------------------------------------------------------------------------------


def problems(conn: Conn) -> list[Row]:
    """Return the problems by line: line column value reason, and file if there are several files."""
    found = conn.execute(PROBLEMS, [SHOWN_VALUE]).fetchall()
    if not any(row["file"] for row in found):
        for row in found:
            del row["file"]
    return found


def check_emails(conn: Conn, but: LiteralString = "") -> None:
    """Record invalid addresses in pg_temp.problem, by the rule of `user create`; normal forms in pg_temp.normal.

    `but` is a further condition on the rows `s`.
    """
    from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

    for row in conn.execute(ODD_EMAILS + but, [list(SPECIAL_USE_DOMAIN_NAMES)]).fetchall():
        try:
            address = validate_email(row["email"].strip(), check_deliverability=False).normalized
        except EmailNotValidError as exc:
            conn.execute(
                "insert into pg_temp.problem (line, column_name, value, reason) values (%s, 'email', %s, %s)",
                [row["line"], row["email"], f"this is not an e-mail address: {exc}"],
            )
        else:
            if address != row["email"]:
                conn.execute("insert into pg_temp.normal values (%s, %s)", [row["line"], address])


def normalise_emails(conn: Conn) -> None:
    """Set the addresses of the valid rows to their normal form; messages show wrong ones as they were written."""
    if one(conn, "select exists (select from pg_temp.normal) as yes")["yes"]:
        conn.execute("update pg_temp.staged as s set email = n.email from pg_temp.normal as n where n.line = s.line")


def drop_problem_rows(conn: Conn, file: str | None = None) -> None:
    """Delete the rows with problems from pg_temp.staged; `file` is the staged one, if there are several."""
    conn.execute(
        "delete from pg_temp.staged as s using pg_temp.problem as p "
        "where p.line = s.line and p.file is not distinct from %s",
        [file],
    )


def write_rejects(conn: Conn, staged: Staged, run: Run) -> None:
    """Write the wrong rows unchanged, with line and error, to the file of --rejects.

    Its delimiter and encoding are those of the input, so that the same options import it again. Call it before
    `drop_problem_rows`.
    """
    assert run.rejects is not None  # noqa: S101 (the caller's question)
    columns = sql.SQL(", ").join(sql.SQL("s.{}").format(sql.Identifier(column)) for column in staged.header)
    rows = conn.execute(sql.SQL(
        "select {}, p.line, string_agg(concat_ws(': ', p.column_name, p.reason), '; ' order by p.column_name) as error "
        "from pg_temp.problem as p left join pg_temp.staged as s on s.line = p.line where p.file is null "
        "group by {}, p.line order by p.line"
    ).format(columns, columns)).fetchall()  # fmt: skip
    encoding = run.encoding.removesuffix("-sig")
    with written(run.rejects, "--rejects", encoding=encoding, errors="backslashreplace") as file:
        writer = csv.writer(file, delimiter=run.delimiter, lineterminator="\r\n")
        writer.writerow([*staged.header, "line", "error"])
        writer.writerows([row.get(column) for column in (*staged.header, "line", "error")] for row in rows)


# --- an import --------------------------------------------------------------------------------------------------------


def take_turn(conn: Conn, run: Run, turn: str, what: str = "import") -> None:
    """Wait for other imports (or exports) with this `turn`; later ones wait until this transaction ends."""
    if one(conn, "select pg_try_advisory_xact_lock(hashtext(%s)) as ours", [turn])["ours"]:
        return
    render.note(run, f"waiting: another {what} is running")
    conn.execute("select pg_advisory_xact_lock(hashtext(%s))", [turn])


def begin(conn: Conn) -> None:
    """Prepare the transaction that will do the whole import."""
    conn.execute(SETTINGS)
    conn.execute(TABLES)
    history.begin(conn)


def judged(conn: Conn, run: Run, staged: Staged) -> int:
    """Report the wrong rows, write them to the file of --rejects, and return their number.

    Raises RefusedError with all problems, unless --on-error is skip.
    """
    found = problems(conn)
    if run.rejects is not None:
        write_rejects(conn, staged, run)
    if not found:
        return 0
    count = len({(row.get("file"), row["line"]) for row in found})
    wrong = f"{render.plural(count, 'row')} of {staged.rows} {'is' if count == 1 else 'are'} wrong"
    if not render.wants_json(run):
        render.faults(found)
    if run.on_error is OnError.abort:
        fix = "correct them" if run.rejects is None else f"correct {run.rejects}"
        raise RefusedError(
            f"{wrong}; nothing was changed", fix=f"{fix}, or apply the others with --on-error skip", problems=found
        )
    partial = PartialError(f"{wrong} and skipped", fix=f"correct {run.rejects or 'them'}, and import that")
    partial.details["problems"] = found
    render.error(run, partial)
    conn.execute(REJECTED)
    return count


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch the garbage collector off: it would search every row again and again, and find nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def requested(run: Run, sheet: Sheet, name: str | None) -> str | None:
    """Return the name of the file to import, or None after --template has printed the header. Raises UsageError."""
    if run.template:
        render.text(run, run.delimiter.join(sheet.columns) + "\n")
        return None
    if name is None:
        raise UsageError("no file named", fix="name a file, or - for standard input; --template prints its header")
    check_rejects(run, name)
    return name


@uncollected()
def imported(run: Run, kind: Import, name: str | None) -> int:
    """Import a file (`-`: stdin), all or nothing unless --on-error is skip, and return the exit code.

    Raises UsageError (no file, a wrong header), RefusedError (wrong rows; nothing was changed).
    """
    name = requested(run, kind.sheet, name)
    if name is None:
        return 0
    with run.connect() as conn:
        begin(conn)
        with progress(run, run.verb, line_count(name)) as advance:
            staged = (kind.stage or stage)(conn, run, kind.sheet, name, advance)
        take_turn(conn, run, kind.turn)
        kind.check(conn, staged)
        rejected = judged(conn, run, staged)
        rows = outcomes(conn, kind) if rejected else []
        drop_problem_rows(conn, kind.file)
        normalise_emails(conn)
        conn.execute("delete from pg_temp.outcome")
        kind.apply(conn, staged)
        rows += outcomes(conn, kind)
        counts = Counter(row["outcome"] for row in rows)
        batch = None
        if counts.keys() - {"unchanged", "rejected", "gone"}:
            batch = record_batch(conn, run, shown(name), counts, only_course(rows))
    # What has no line is not in the file, and comes after it.
    rows.sort(key=lambda row: (row["file"] != kind.file, row["file"] or "", row["line"] is None, row["line"] or 0))
    report(run, rows, kind.columns, counts, batch)
    return PartialError.exit_code if rejected else 0


def outcomes(conn: Conn, kind: Import) -> list[Row]:
    """Return the outcomes recorded so far: line file, the key of the sheet, outcome detail."""
    keys = sql.SQL(", ").join(
        sql.SQL("s.{} as {}").format(sql.Identifier(key), sql.Identifier("course" if key == "course_id" else key))
        for key in kind.sheet.key
    )
    return conn.execute(
        sql.SQL(
            "select case when o.line > 0 then o.line end as line, o.file, {}, o.outcome, o.detail "
            "from pg_temp.outcome as o "
            "left join pg_temp.staged as s on s.line = o.line and o.file is not distinct from {}"
        ).format(keys, sql.Literal(kind.file))
    ).fetchall()


def record_batch(conn: Conn, run: Run, name: str, counts: Mapping[str, int], course: str | None) -> int:
    """Record an import and the rows of pg_temp.written; return the number of the batch."""
    batch = history.record(conn, run, name, "imported", after=dict(counts), course_id=course)
    history.record_written(conn, run, batch)
    return batch


def note_batch(run: Run, batch: int | None) -> None:
    """Report the number of a batch, and how it is undone."""
    if batch is not None and not run.dry_run and not render.wants_json(run):
        render.note(run, f"batch {batch}; undo: rollbook history undo {batch}")


def only_course(rows: Sequence[Row]) -> str | None:
    """Return the course if all rows belong to one."""
    found = {row["course"] for row in rows if "course" in row}
    return found.pop() if len(found) == 1 else None


def report(run: Run, rows: list[Row], columns: Sequence[str], counts: Counter[str], batch: int | None) -> None:
    """Write the outcome of each row, and the number of each outcome. JSON has the number of the batch in each row."""
    limit = render.LIMIT_ON_TERMINAL if render.chosen_format(run) is Format.table else None
    if render.wants_json(run):
        columns = (*columns, "batch")
        for row in rows:
            row["batch"] = None if run.dry_run else batch
    render.rows(run, rows[:limit], columns, empty="the file has no rows")
    words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no rows"
    render.note(run, f"{words}; dry run: nothing was changed" if run.dry_run else words)
    note_batch(run, batch)
