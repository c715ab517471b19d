"""An import of answers: archives are checked, then applied in one transaction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rollbook.core import history, importing
from rollbook.testcentre.answer_archive import read_archive
from rollbook.testcentre.queries import pearson_import

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.command import Run
    from rollbook.testcentre.queries.pearson_import import Verdict


def import_archives(run: Run, names: Sequence[str]) -> tuple[list[Verdict], int]:
    """Apply archives, each once. Return a verdict for each line, and how many lines were not fully applied.

    Raises RefusedError, before anything is changed, for an archive that is not valid.
    """
    archives = {name: read_archive(Path(name)) for name in dict.fromkeys(names)}
    with run.connect() as conn:
        importing.take_turn(conn, run, pearson_import.TURN)
        verdicts, trouble = pearson_import.apply_answers(conn, archives, run.author)
        for name in archives:
            counts = Counter(verdict.outcome for verdict in verdicts if verdict.file == name)
            history.record(conn, run, name, "imported", after=dict(counts))
    return verdicts, trouble
