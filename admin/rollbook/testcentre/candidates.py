"""Candidates created and changed one at a time, each write recorded in the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.testcentre.exchange_file import FIELD_NAMES
from rollbook.testcentre.queries import candidate

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.users import User
    from rollbook.people.queries.user import Change
    from rollbook.testcentre.queries.candidate import Created


def create(conn: Conn, run: Run, user: User, given: dict[str, str]) -> Created:
    """Make a user a candidate. Raises RefusedError with all faults, or if the user is a candidate already."""
    created = candidate.create(conn, user, given)
    after = {name: text for name, text in created.record.items() if text}
    after["client_candidate_id"] = created.client_candidate_id
    history.record(conn, run, user["username"], "created", after=after, user_id=user["id"], kind="candidate")
    return created


def update(conn: Conn, run: Run, user: User, given: dict[str, str]) -> tuple[list[Change], Created | None]:
    """Set fields of a candidate; return the changes (field before after), and the candidate if it had to be created.

    Raises RefusedError with all faults.
    """
    if candidate.demographics(conn, user["id"]) is None:
        created = create(conn, run, user, given)
        return [
            {"field": name, "before": None, "after": created.record[name]}
            for name in FIELD_NAMES if created.record[name]
        ], created  # fmt: skip
    changes = candidate.update(conn, user["id"], given)
    if changes:
        history.record(
            conn, run, user["username"], "changed", before=history.changed(changes, "before"),
            after=history.changed(changes, "after"), user_id=user["id"], kind="candidate",
        )  # fmt: skip
    return changes, None
