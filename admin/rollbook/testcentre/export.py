"""An export: files for the test centre, and the stamp of what they hold, in one transaction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rollbook.core import history, importing
from rollbook.core.errors import UnreachableError
from rollbook.testcentre.exchange_file import Kind, Outgoing, file_name
from rollbook.testcentre.queries import pearson_export
from rollbook.testcentre.queries.pearson_export import SetAside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rollbook.core.command import Run


@dataclass(frozen=True)
class File:
    """An exported file: its id (`batch`), name, kind, records, records set aside, and hash. A dry run has no id."""

    batch: int | None
    file: str
    kind: Kind
    rows: int
    set_aside: int
    sha256: str | None


def nothing(_: bytes) -> None:
    """Drop a line of a dry run."""


def export_files(
    run: Run, directory: Path, kinds: Sequence[Kind], *, everything: bool, force_add: bool
) -> tuple[list[File], list[SetAside]]:
    """Write one file of each kind and stamp its records; return the files, and the records that were set aside.

    Files get their names just before the commit. Killed earlier: nothing is stamped, and the next export removes the
    hidden file. Killed between the two: the file is complete, and its records are due again and sent twice. The other
    order could lose them. Raises RefusedError, UnreachableError (a full disk).
    """
    written: list[Outgoing] = []
    files: list[File] = []
    set_aside: list[SetAside] = []
    try:
        with run.connect() as conn:
            importing.take_turn(conn, run, pearson_export.TURN, "export")
            for kind in kinds:
                at = pearson_export.now(conn)
                file = None if run.dry_run else Outgoing(directory, kind, at, pearson_export.taken_names(conn))
                if file:
                    written.append(file)
                name = file.name if file else file_name(kind, at)
                done = pearson_export.export(
                    conn, kind, file.write if file else nothing, name=name, author=run.author, everything=everything,
                    force_add=force_add,
                )  # fmt: skip
                sha256 = file.flush() if file else None
                pearson_export.record_hash(conn, done.id, sha256)
                batch = done.id if file else None
                files.append(File(batch, name, kind, done.rows, len(done.set_aside), sha256))
                set_aside += done.set_aside
                history.record(conn, run, name, "exported", after=asdict(files[-1]))
            for file in written:
                file.publish()
    except OSError as exc:  # such as a full disk
        raise UnreachableError(
            f"cannot write into {directory}", why=exc.strerror, fix="free some space, or name another directory with -o"
        ) from exc
    finally:
        for file in written:
            file.discard()
    return files, set_aside
