"""`rollbook user link` and `unlink`: the accounts of persons in OneRoster bundles."""

from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import User
from rollbook.core.command import Run, command
from rollbook.core.users import find_user
from rollbook.people import roster_links
from rollbook.people.commands.source_option import Source
from rollbook.people.commands.user import app

__all__ = ["app"]

DONE = ("username", "source", "sourced_id", "outcome")
SourcedId = Annotated[str, typer.Argument(metavar="SOURCEDID", help="The sourcedId of the person in users.csv.")]


@command(
    app, "link", sets=("data", "writes"), columns=DONE,
    examples=("user link ada u5", "user link id:42 u5 --source district --reason 'same person'"),
    exits="0 linked, 1 unknown user, or the person is linked to another account, 3 unreachable",
    see="rollbook user import, rollbook user show",
)  # fmt: skip
def link(run: Run, user: User, sourced_id: SourcedId, source: Source = roster_links.SOURCE) -> None:
    """Make an account that of a person in the bundles of a source. Bundles never change staff, linked or not."""
    with run.connect() as conn:
        account = find_user(conn, user)
        done = roster_links.link(conn, run, account, source, sourced_id)
    report(run, account["username"], source, sourced_id, "linked" if done else "unchanged")


@command(
    app, "unlink", sets=("data", "writes"), columns=DONE,
    examples=("user unlink ada u5", "user unlink id:42 u5 --source district"),
    exits="0 removed, 1 unknown user, or not linked, 3 unreachable", see="rollbook user show",
)  # fmt: skip
def unlink(run: Run, user: User, sourced_id: SourcedId, source: Source = roster_links.SOURCE) -> None:
    """Remove the link between an account and a person in bundles. An import links it again if the address agrees."""
    with run.connect() as conn:
        account = find_user(conn, user)
        roster_links.unlink(conn, run, account, source, sourced_id)
    report(run, account["username"], source, sourced_id, "removed")


def report(run: Run, username: str, source: str, sourced_id: str, outcome: str) -> None:
    """Write what was done."""
    render.rows(run, [{"username": username, "source": source, "sourced_id": sourced_id, "outcome": outcome}], DONE)
