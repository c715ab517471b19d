"""--wait: the servers of courses have a change before the command ends."""

from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.command import Run
from rollbook.core.errors import UnreachableError
from rollbook.replication.arrivals import wait_for_courses

Wait = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=0.001, help="Wait up to SECONDS for the server to receive the change; otherwise exit 4."
    ),
]


def awaited(run: Run, courses: list[str], seconds: float | None) -> int:
    """Wait until the servers of these courses have all that is committed by now; return 0, or 4 if one has not.

    A course without a server had it when the transaction ended.
    """
    if seconds is None or run.dry_run:
        return 0
    with run.connect() as portal:
        portal.autocommit = True
        answers = wait_for_courses(portal, courses, run.caller(seconds), seconds)
    for name, answer in answers.items():
        if isinstance(answer, UnreachableError):
            render.error(run, answer)
        elif not answer:
            render.note(
                run, f"server {name} has not confirmed the change within {seconds:g} s; see rollbook replication status"
            )
    return 0 if all(answer is True for answer in answers.values()) else 4
