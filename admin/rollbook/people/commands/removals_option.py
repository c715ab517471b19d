"""The option --max-removals."""

from typing import Annotated

import typer

MaxRemovals = Annotated[
    str, typer.Option(metavar="N|P%", help="Refuse if more than N users, or P % of the course, would be removed.")
]
