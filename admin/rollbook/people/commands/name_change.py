"""`rollbook name-change`: new names that users request, and the decisions."""

from enum import StrEnum
from typing import Annotated

import typer

from rollbook.core import history, render
from rollbook.core.arguments import User
from rollbook.core.command import OnError, Run, command
from rollbook.core.errors import RefusedError
from rollbook.core.nouns import noun
from rollbook.core.users import find_users
from rollbook.people.queries import change

app = noun("name-change")

COLUMNS = ("id", "username", "old_name", "new_name", "rationale", "requested_at", "state", "reason")
CREATED = ("id", "username", "old_name", "new_name", "rationale", "requested_at", "outcome")
DECIDED = ("id", "username", "old_name", "new_name", "outcome")
WIDTHS = {"name": 255, "rationale": 1024}
BIGGEST = 2**63 - 1
Numbers = Annotated[
    list[int], typer.Argument(metavar="ID...", min=1, max=BIGGEST, help="Requests, see rollbook name-change list.")
]


class State(StrEnum):
    """The state of a request."""

    pending = "pending"
    approved = "approved"
    rejected = "rejected"


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=(
        "name-change create ada 'Ada Lovelace' --rationale Marriage",
        "name-change create ada@example.org 'Ada Lovelace' --json",
    ),
    exits="0 requested, 1 refused (unknown user, invalid or unchanged name), 3 unreachable, 4 not migrated",
    see="rollbook name-change approve, rollbook user update --name (at once)",
)  # fmt: skip
def create(
    run: Run,
    user: User,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new full name; at least two characters.")],
    rationale: Annotated[str, typer.Option(metavar="TEXT", help="The user's reason.")] = "",
) -> None:
    """Request a new name for a user. It replaces the user's pending request, if any."""
    for field, text in (("name", name), ("rationale", rationale)):
        if len(text) > WIDTHS[field]:
            raise RefusedError(f"{field} has {len(text)} characters, at most {WIDTHS[field]} fit")
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        before = change.pending_name_change(conn, found["id"])
        made = change.request_name_change(conn, found["id"], name, rationale)
        outcome = "changed" if before else "created"
        history.record(
            conn, run, found["username"], outcome, before=before and asked(before), after=asked(made),
            user_id=found["id"],
        )  # fmt: skip
    render.rows(run, [made | {"outcome": outcome}], CREATED)


def asked(request: render.Row) -> render.Row:
    """Return the fields of a request that the history keeps."""
    return {name: request[name] for name in ("new_name", "rationale")}


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="requested_at",
    examples=("name-change list", "name-change list --state rejected --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated",
    see="rollbook name-change approve, rollbook name-change reject",
)  # fmt: skip
def list_(
    run: Run, state: Annotated[State, typer.Option(help="Only requests in this state.")] = State.pending
) -> None:  # fmt: skip
    """List changes of name that are pending, approved or rejected; the oldest first."""
    with run.connect() as conn:
        found, total = change.name_changes(conn, state, run.match, render.fetch_limit(run), run.period)
    render.listing(run, found, COLUMNS, empty=f"no name change is {state}; --state shows others", total=total)


def decide(run: Run, numbers: list[int], *, approved: bool) -> int:
    """Decide requests, all or nothing unless --on-error is skip, and report each."""
    word = "approved" if approved else "rejected"
    with run.connect() as conn:
        done, failures = change.decide_name_changes(
            conn, numbers, approved=approved, reason=run.reason, skip=run.on_error is OnError.skip
        )
        history.record_many(conn, run, [
            {"kind": "user" if approved else None, "object": row["username"], "outcome": word,
             "user_id": row["user_id"],
             "before": {"name": row["old_name"]} if approved else asked(row),
             "after": {"name": row["new_name"]} if approved else None}
            for row in done
        ])  # fmt: skip
    for failure in failures:
        render.error(run, failure)
    outcome = f"would {'approve' if approved else 'reject'}" if run.dry_run else word
    render.rows(run, [row | {"outcome": outcome} for row in done], DECIDED)
    return 5 if failures else 0


@command(
    app, "approve", sets=("data", "writes", "several"), columns=DECIDED,
    examples=("name-change approve 1", "name-change approve 1 2 --on-error skip"),
    exits="0 approved, 1 unknown or already decided, nothing changed, 3 unreachable, 4 not migrated, 5 some skipped",
    see="rollbook name-change list, rollbook name-change reject",
)  # fmt: skip
def approve(run: Run, number: Numbers) -> int:
    """Approve changes of name. The profile's meta keeps the old name, under old_names."""
    return decide(run, number, approved=True)


@command(
    app, "reject", sets=("data", "writes", "several"), columns=DECIDED,
    examples=("name-change reject 1 --reason 'no proof'", "name-change reject 1 2 --dry-run"),
    exits="0 rejected, 1 unknown or already decided, nothing changed, 3 unreachable, 4 not migrated, 5 some skipped",
    see="rollbook name-change list --state rejected",
)  # fmt: skip
def reject(run: Run, number: Numbers) -> int:
    """Reject changes of name. `name-change list --state rejected` shows them."""
    return decide(run, number, approved=False)
