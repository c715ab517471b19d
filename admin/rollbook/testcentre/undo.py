"""The undo of what was written to candidates and authorizations: what Pearson has is not taken back."""

from __future__ import annotations

from rollbook.core.undoing import Step
from rollbook.testcentre.queries import undo as queries

STEPS = (
    ("authorization", "created", Step(
        queries.AUTHORIZED, (queries.DELETE_AUTHORIZATION,), "student_testcenterregistration", "these authorizations",
        queries.AUTHORIZATION_IDS,
    )),
    ("authorization", "changed", Step(queries.AUTHORIZATION_CHANGED, (queries.AUTHORIZATION_BACK,))),
    ("candidate", "changed", Step(queries.CANDIDATE_CHANGED, (queries.CANDIDATE_BACK,))),
    ("candidate", "created", Step(
        queries.CANDIDATE_CREATED, (queries.DELETE_CANDIDATE,), "student_testcenteruser", "these candidates",
        queries.CANDIDATE_IDS,
    )),
)  # fmt: skip
