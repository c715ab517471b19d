"""sql/functions/routing/require_read_committed.sql: TRUNCATE and drop_course run at READ COMMITTED only."""

from __future__ import annotations

import pytest
from psycopg import IsolationLevel

from tests.sql.helpers import COURSES, KEEP, Db, add_user, enroll, faults, refused, run, versions


@pytest.mark.made
def test_truncate_and_drop_course_are_refused_at_other_levels_and_change_nothing(live: Db) -> None:
    enroll(live, add_user(live, "ada"), *COURSES)
    before = versions(live)
    for level in (IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE):
        live.isolation_level = level
        refused(live, "RB009", "select rollbook.drop_course(%s)", KEEP)
        refused(live, "RB009", "truncate portal.auth_user cascade")
        refused(live, "RB009", "truncate portal.student_courseenrollment")
    live.isolation_level = IsolationLevel.READ_COMMITTED
    assert (versions(live), faults(live)) == (before, [])
    run(live, "truncate portal.student_courseenrollment")
    run(live, "select rollbook.drop_course(%s)", KEEP)
    assert faults(live) == []
