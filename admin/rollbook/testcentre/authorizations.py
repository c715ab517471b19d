"""Authorizations created, changed and cancelled, each write recorded in the history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.errors import RefusedError
from rollbook.core.remains import Remain
from rollbook.testcentre.queries import authorization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.rows import Row
    from rollbook.core.users import User
    from rollbook.people.queries.user import Change
    from rollbook.testcentre.queries.authorization import Authorization


def create(conn: Conn, run: Run, user: User, given: Row) -> tuple[Row, list[str]]:
    """Authorize a candidate; return the authorization, and remarks for staff.

    `given`: course_id, exam_series_code (None: the course's only current exam), the two dates (None: the exam's),
    accommodation_code, accommodation_request. Raises RefusedError with all faults.
    """
    exam = given["exam_series_code"] or authorization.current_exam(conn, given["course_id"])
    wanted = given | {"exam_series_code": exam}
    created, remarks = authorization.create(conn, user, wanted)
    after = {name: value for name, value in wanted.items() if value}
    after |= {"first": created["first"], "last": created["last"]}
    history.record(
        conn, run, created["client_authorization_id"], "created", after=after, user_id=user["id"],
        course_id=given["course_id"], kind="authorization",
    )  # fmt: skip
    return created, remarks


def update(conn: Conn, run: Run, key: str, wanted: Row) -> list[Change]:
    """Set fields of an authorization; return the changes: field before after. Raises RefusedError with all faults."""
    (found,) = authorization.find(conn, [key])
    changes = authorization.update(conn, found, wanted)
    if changes:
        history.record(
            conn, run, key, "changed", before=history.changed(changes, "before"),
            after=history.changed(changes, "after"), user_id=found.user_id, course_id=found.course,
            kind="authorization",
        )  # fmt: skip
    return changes


EXPORT = "rollbook pearson export ead -o DIR"
AT_TEST_CENTRE = Remain("test centre", "authorizations that were sent, until the next export", 1, EXPORT, EXPORT)


@dataclass(frozen=True)
class Cancelled:
    """What a cancellation did to one authorization, `cancelled` or `unchanged`, and what that means for the export."""

    client_authorization_id: str
    username: str
    course: str
    exam: str
    outcome: str
    detail: str
    remains: list[Remain] = field(default_factory=list)


def cancel(
    conn: Conn, run: Run, keys: Sequence[str], *, skip_unknown: bool
) -> tuple[list[Cancelled], list[RefusedError]]:
    """Cancel authorizations, each once; return what was done, and an error for each unknown key that was skipped.

    Raises RefusedError for an unknown key; with `skip_unknown` only if no key is known.
    """
    found, unknown = find_known(conn, keys) if skip_unknown else (authorization.find(conn, keys), [])
    now_cancelled = authorization.cancel(conn, [row.id for row in found])
    history.record_many(conn, run, [
        {"object": row.client_authorization_id, "outcome": "cancelled", "user_id": row.user_id, "course_id": row.course}
        for row in found if row.id in now_cancelled
    ])  # fmt: skip
    return [
        Cancelled(
            row.client_authorization_id, row.username, row.course, row.exam,
            outcome="cancelled" if row.id in now_cancelled else "unchanged",
            detail="was cancelled already" if row.id not in now_cancelled
            else "the next export deletes it at the test centre" if row.was_sent else "was never sent",
            remains=[AT_TEST_CENTRE] if row.was_sent and row.id in now_cancelled else [],
        )
        for row in found
    ], unknown  # fmt: skip


def find_known(conn: Conn, keys: Sequence[str]) -> tuple[list[Authorization], list[RefusedError]]:
    """Return the known authorizations, each once, and an error for each unknown key. Raises RefusedError for none."""
    found: list[Authorization] = []
    unknown: list[RefusedError] = []
    for key in dict.fromkeys(keys):
        try:
            found += authorization.find(conn, [key])
        except RefusedError as exc:
            unknown.append(exc)
    if not found:
        raise RefusedError("none of these authorizations exists", fix="rollbook authorization list --match TEXT")
    return found, unknown
