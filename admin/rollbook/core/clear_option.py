"""--clear: the fields of a record that a command empties."""

from collections.abc import Container, Mapping, Sequence
from typing import Annotated, Any

import typer

from rollbook.core.errors import UsageError

Clear = Annotated[list[str], typer.Option("--clear", metavar="FIELD", help="Empty this field; can be repeated.")]


def cleared(fields: Sequence[str], empty: Mapping[str, Any], given: Container[str]) -> dict[str, Any]:
    """Return the empty value of each field by its column. `empty` has those of all columns that can be cleared.

    Raises UsageError for an unknown field, or one that is set as well.
    """
    found: dict[str, Any] = {}
    for field in fields:
        column = field.replace("-", "_")
        if column not in empty:
            known = ", ".join(name.replace("_", "-") for name in empty)
            raise UsageError(f"--clear {field}: no such field", fix=f"fields: {known}")
        if column in given:
            raise UsageError(f"--{field} and --clear {field} exclude each other", fix="use one of them")
        found[column] = empty[column]
    return found
