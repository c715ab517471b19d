"""The undo of what was written to people's rows: which values must be there still, and how those of before return.

An entry is undone as its command writes: e-mail addresses and names by the SQL functions, everything under the
triggers. A row that was removed returns with its id.
"""

from __future__ import annotations

from rollbook.core.undoing import Step
from rollbook.people.queries import undo as queries

# In this order: what hangs on a group or an account goes before it, and new accounts give their names back.
STEPS = (
    ("enrollment", "created", Step(
        queries.ENROLLED, (queries.LEAVE,), "student_courseenrollment", "these enrollments", queries.ENROLLED_IDS,
    )),
    ("enrollment", "moved", Step(queries.MOVED, (queries.MOVE_BACK,))),
    ("member", "created", Step(queries.JOINED, (queries.QUIT,))),
    ("allowed", "created", Step(queries.ALLOWED, (queries.DISALLOW,))),
    ("allowed", "changed", Step(queries.TURNED, (queries.TURN_BACK,))),
    ("group", "created", Step(queries.GROUPED, (queries.UNGROUP,), "student_usertestgroup", "these groups",
                              queries.GROUP_IDS)),
    ("user", "created", Step(
        queries.CREATED, (queries.DELETE,), "auth_user", "these accounts", queries.CREATED_IDS,
    )),
    ("user", "changed activated deactivated granted revoked approved", Step(queries.CHANGED, queries.CHANGE_BACK)),
    ("group", "removed", Step(queries.UNGROUPED, (queries.GROUP_AGAIN,))),
    ("member", "removed", Step(queries.QUITTED, (queries.JOIN_AGAIN,))),
    ("allowed", "removed", Step(queries.DISALLOWED, (queries.ALLOW_AGAIN,))),
    ("enrollment", "removed", Step(queries.LEFT, (queries.ENROLL_AGAIN,))),
)  # fmt: skip
