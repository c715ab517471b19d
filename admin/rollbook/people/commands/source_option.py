"""The option --source: which system a bundle comes from."""

from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Option(metavar="NAME", help="A name of your own for the system that sends the bundles."),
]  # fmt: skip
