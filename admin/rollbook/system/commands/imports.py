"""`rollbook import`: the imports of files."""

from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.nouns import noun

app = noun("import")

COLUMNS = ("batch", "at", "actor", "command", "file", "counts", "undone_by", "reason", "on_behalf_of")


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="at",
    examples=("import list", "import list --since yesterday --match people.csv --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated",
    see="rollbook history list --batch, rollbook history undo",
)  # fmt: skip
def list_(run: Run) -> None:
    """List the imports, newest first: who, when, the file, what it did. `undone_by`: the entry of the undo."""
    from rollbook.core.history import list_imports

    with run.connect() as conn:
        found = list_imports(conn, run.match, render.fetch_limit(run), run.period)
    render.listing(run, found, COLUMNS, empty="no imports are recorded")
